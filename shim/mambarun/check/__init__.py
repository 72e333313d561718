# SPDX-License-Identifier: Apache-2.0
"""check - the command mambarun-check: what of this machine, this Python and its
packages helps or hinders the modules that mambarun supplies. Reads files and asks the
driver in another process; imports no torch unless it is to run something.

    from mambarun.check import diagnose
    report = diagnose()              # this machine; see report.py for what it offers
"""

from __future__ import annotations

import re
import traceback

from .. import PROMISED
from . import driver, environment, host, modules, packages, pytorch
from . import run as trials
from .facts import Facts
from .finding import ERROR, OK, Finding
from .machine import Machine
from .report import Report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterator, Sequence

    from .finding import Headline

GROUPS = (host, driver, pytorch, modules, packages, environment)


def diagnose(
    machine: Machine | None = None,
    *,
    run: bool | None = None,
    bench: bool = False,
    only: Sequence[str] = (),
    require: Sequence[str] = (),
    strict: bool = False,
    before_run: Callable[[], None] = lambda: None,
) -> Report:
    """All checks on a machine, by default on this one.

    run: whether to import torch and run the modules, in another process; None: if a
    GPU can be used. only: codes to report, instead of all. require: facts whose absence
    is an error; see `requirement`. before_run: is called before what takes seconds.
    """
    facts = Facts(machine or Machine.here())
    failures: dict[str, str] = {}
    findings: list[Finding] = []
    for group in GROUPS:
        findings += _guarded(group.__name__, lambda g=group: g.check(facts), failures)
    findings += _guarded(
        "run", lambda: _trials(facts, run, bench, only, before_run), failures
    )
    findings += _required(facts, require)
    headlines: list[Headline] = []
    for group in (*GROUPS, trials):
        headlines += _guarded(
            group.__name__, lambda g=group: g.headlines(facts, findings), failures
        )
    if only:
        findings = [f for f in findings if f.code in only]
        headlines = []
    return Report(facts, findings, headlines, failures, strict)


def _guarded(
    name: str, group: Callable[[], Iterator[Any]], failures: dict[str, str]
) -> list[Any]:
    """What a group yields; one that breaks takes no other one with it."""
    found = []
    try:
        for item in group():
            found.append(item)
    except Exception:
        failures[name.rpartition(".")[2]] = traceback.format_exc()
    return found


def _trials(
    facts: Facts,
    asked: bool | None,
    bench: bool,
    only: Sequence[str],
    before: Callable[[], None],
) -> Iterator[Finding]:
    wanted = not only or any(code in trials.CODES for code in only)
    usable = any(driver.chosen(gpu) for gpu in facts.gpus)
    if wanted and (usable if asked is None else asked):
        before()
        return trials.check(facts, bench)
    return trials.skipped("not_asked")


# ---- --require --------------------------------------------------------------------


def requirement(facts: Facts, wanted: str) -> bool:
    """Whether the machine has it: `gpu`, `torch`, `sm_80`, a variant or a module."""
    variants = [driver.chosen(gpu) for gpu in facts.gpus]
    if wanted == "gpu":
        return any(variants)
    if wanted == "torch":
        return facts.torch is not None
    if wanted.startswith("sm_"):
        return any(gpu["capability"] == int(wanted[3:]) for gpu in facts.gpus)
    if wanted in PROMISED:
        supplier = modules.supplier(facts, wanted)
        broken = supplier.provider == "other" and supplier.faults
        return supplier.provider != "nobody" and not broken
    usable = [v for v in facts.probe.get("cpu_variants", ()) if v["usable"]]
    usable += [v for gpu in facts.gpus for v in gpu["variants"] if v["usable"]]
    return any(v["name"] == wanted for v in usable)


def is_requirement(wanted: str) -> bool:
    """Whether --require knows the word at all."""
    pattern = r"gpu|torch|sm_\d{2,3}|(cpu|cuda\d+)_[a-z]+\d*"
    return wanted in PROMISED or re.fullmatch(pattern, wanted) is not None


def _required(facts: Facts, require: Sequence[str]) -> Iterator[Finding]:
    for wanted in require:
        met = requirement(facts, wanted)
        case = "met" if met else "unmet"
        yield Finding("MR005", OK if met else ERROR, case, {"wanted": wanted})
