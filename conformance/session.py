# SPDX-License-Identifier: Apache-2.0
"""What the command does once its options are read: choose providers and cases, have
them judged, say what came of it."""

from __future__ import annotations

import argparse
import fnmatch
import json
import re
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Iterator, Sequence

import torch

from . import page, runner
from .cases import Case
from .examine import all_cases, upstream_tolerance
from .report import Report, counted, short, verdict
from .spec import Spec, every, parse, variant

CONFORMS, DOES_NOT, USAGE, BROKEN = range(4)
HERE = Path(__file__).resolve().parent
SHOWN = 20  # failures


class Usage(Exception):
    """What is wrong with the options."""


def run(options: argparse.Namespace) -> int:
    cases = all_cases(options.seed)
    names = selected(cases, options)
    if options.list:
        print("\n".join(names))
        return CONFORMS
    specs = chosen(options.provider or ["all"])
    options.device = device(options.device)
    if options.report:
        make_folder(options.report)
    out = sys.stderr if options.json else sys.stdout
    reports = []
    for spec in specs:
        asked = [name for name in names if spec.concerns(*cases[name])]
        if not asked:
            print(f"{spec}: these cases are not about it", file=out)
            continue
        hearing = Hearing(spec, cases, options)
        went_on = hearing.judge(asked)
        where = sys.stderr if hearing.report.broken else out
        print(summary(hearing.report), file=where, flush=True)
        reports.append(hearing.report)
        if not went_on:
            break
    if options.report:
        write(reports, Path(options.report))
    if options.json:
        print(json.dumps([report.as_data() for report in reports], indent=1))
    return status(reports, options.require)


def status(reports: list[Report], require: bool) -> int:
    """A run in which nothing passed proves nothing: it is broken, not green."""
    missing = require and any(r.unavailable or r.broken for r in reports)
    if missing or any(report.failures() for report in reports):
        return DOES_NOT
    judged = [report for report in reports if not report.unavailable]
    sound = judged and all(report.conforms for report in judged)
    return CONFORMS if sound else BROKEN


# ---- who and what -------------------------------------------------------------------


def chosen(texts: Sequence[str]) -> list[Spec]:
    """The providers, each once, in order."""
    found: dict[str, Spec] = {}
    for text in texts:
        try:
            specs = every() if text == "all" else [parse(text)]
            for spec in specs:
                if spec.kind == "mambarun":
                    variant(spec.name, "cpu")
                found.setdefault(str(spec), spec)
        except ValueError as mistake:
            raise Usage(f"--provider {text}: {mistake}") from None
    return list(found.values())


def device(text: str) -> str:
    """cpu or cuda:N, of any way to say it; empty stays empty."""
    found = re.fullmatch(r"cpu|cuda(:\d+)?|", text)
    if not found:
        raise Usage(f"--device {text}: it must be cpu, cuda or cuda:N")
    return "cuda:0" if text == "cuda" else text


def make_folder(path: str) -> None:
    """Before anything is judged: what cannot be written would be lost."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise Usage(f"--report {path}: {error.strerror}") from None


def selected(
    cases: dict[str, tuple[str, Case]], options: argparse.Namespace
) -> list[str]:
    found = [
        name
        for name, (room, case) in cases.items()
        if not (options.quick and not case.quick)
        if not options.only or matches(name, room, case, options.only)
    ]
    if not found:
        kind = "case of --quick" if options.quick else "case"
        raise Usage(f"no {kind} is called {' or '.join(options.only)}: see --list")
    return found


def matches(name: str, room: str, case: Case, patterns: Sequence[str]) -> bool:
    known_as = (name, f"{room}/{case.family}", room)
    return any(fnmatch.fnmatchcase(n, p) for n in known_as for p in patterns)


def mustpass() -> set[str]:
    lines = (HERE / "mustpass.txt").read_text().splitlines()
    return {line for line in lines if line and not line.startswith("#")}


# ---- judging ------------------------------------------------------------------------


class Hearing(runner.Listener):
    """One provider, judged: makes its report."""

    def __init__(
        self,
        spec: Spec,
        cases: dict[str, tuple[str, Case]],
        options: argparse.Namespace,
    ) -> None:
        self.spec, self.cases, self.options = spec, cases, options
        self.report = Report({"provider": str(spec)}, tolerance)
        ours = options.require and spec.kind == "mambarun"
        self.required = mustpass() if ours else set()

    def judge(self, names: Sequence[str]) -> bool:
        """False after Ctrl-C."""
        options = self.options
        self.progress = Progress(str(self.spec), len(names))
        begin = time.perf_counter()
        try:
            runner.run(
                self.spec,
                options.device,
                options.seed,
                names,
                self,
                options.limit,
                options.jobs,
            )
        except runner.Unavailable as reason:
            self.report.unavailable = str(reason)
        except runner.Broken as reason:
            if self.report.cases:
                self.interrupted(str(reason))
            else:
                self.report.broken = str(reason)
        except KeyboardInterrupt:
            self.interrupted("Ctrl-C")
            return False
        finally:
            self.report.seconds = time.perf_counter() - begin
            self.progress.end()
        return True

    def interrupted(self, reason: str) -> None:
        self.report.facts["interrupted"] = f"not every case was judged: {reason}"

    def began(self, facts: dict[str, str]) -> None:
        self.report.facts = {**facts, "cases": mode(self.options)}

    def seen(self, name: str, answer: dict[str, Any]) -> None:
        if name in self.required and answer["outcome"] == "skipped":
            answer["outcome"] = "failed"
            answer["text"] = f"stands in mustpass.txt, but {answer['text']}"
        room, case = self.cases.get(name, (name, None))
        family = f"{room}/{case.family}" if case else name
        again = repeat_line(self.spec, name, self.options)
        self.report.add(name, family, answer, again, case.why if case else "")
        self.progress.step(answer["outcome"])


def tolerance(room: str, output: str, dtype: str) -> tuple[float, float]:
    return upstream_tolerance(room, output, getattr(torch, dtype))


def mode(options: argparse.Namespace) -> str:
    words = "quick" if options.quick else "full"
    only = f", only {' '.join(options.only)}" if options.only else ""
    return f"{words}, seed {options.seed}{only}"


def repeat_line(spec: Spec, name: str, options: argparse.Namespace) -> str:
    words = [f"python -m {__package__}", f"--provider {shlex.quote(str(spec))}"]
    if options.device:
        words.append(f"--device {options.device}")
    if options.seed:
        words.append(f"--seed {options.seed}")
    return " ".join([*words, f"--only {shlex.quote(name)}"])


# ---- saying it ----------------------------------------------------------------------


class Progress:
    """A bar on stderr, if that is a terminal."""

    WIDTH = 30

    def __init__(self, who: str, total: int) -> None:
        self.who, self.total, self.done, self.failed = who, total, 0, 0
        self.shown = sys.stderr.isatty()
        self.begin = self.last = time.monotonic()

    def step(self, outcome: str) -> None:
        self.done += 1
        self.failed += outcome == "failed"
        now = time.monotonic()
        if self.shown and (now - self.last > 0.1 or self.done == self.total):
            self.last = now
            full = self.WIDTH * self.done // max(self.total, 1)
            bar = "#" * full + "." * (self.WIDTH - full)
            seconds = now - self.begin
            line = f"{self.who} [{bar}] {self.done}/{self.total}, {self.failed} failed"
            sys.stderr.write(f"\r{line}, {seconds:.0f} s")

    def end(self) -> None:
        if self.shown:
            sys.stderr.write("\r\033[K")


def summary(report: Report) -> str:
    return "\n".join(lines_of(report))


def lines_of(report: Report) -> Iterator[str]:
    """For a terminal: who, how many, the worst, and what failed."""
    if report.broken:
        yield f"{report.provider} is broken: {report.broken}"
        return
    if report.unavailable:
        yield f"{report.provider}: NotSupported: {report.unavailable}"
        return
    facts = report.facts
    shown = ("device", "gpu" if "gpu" in facts else "cpu", "module", "torch", "commit")
    yield f"{report.provider} ({'; '.join(facts[n] for n in shown if n in facts)})"
    for family in report.family_data():
        yield "  {family}: {counts}{worst}".format(
            family=family["family"],
            counts=counted(family["outcomes"]),
            worst=worst_of(family),
        )
    failures = report.failures()
    for case in failures[:SHOWN]:
        yield f"  FAILED {case['case']}: {short(case['text'])}"
        if case["why"]:
            yield f"    about: {case['why']}"
        yield f"    repeat: {case['repeat']}"
    if len(failures) > SHOWN:
        yield f"  and {len(failures) - SHOWN} more failures"
    for outcome, word in (("known", "deviates as known"), ("skipped", "NotSupported")):
        for text, number in report.reasons(outcome):
            yield f"  {word}, {number} x {short(text)}"
    if "interrupted" in facts:
        yield f"  {facts['interrupted']}"
    said = verdict(report.conforms, report.outcomes()).replace("does not", "does NOT")
    counts = counted(report.outcomes()) or "no case"
    yield f"{report.provider} {said}: {counts}, {report.seconds:.0f} s"


def worst_of(family: dict[str, Any]) -> str:
    if not family["comparisons"]:
        return ""
    words = "; worst {used:.2g} of the bound, {upstream:.2g} of upstream's tolerance"
    return words.format(**family)


def write(reports: list[Report], folder: Path) -> None:
    """For each provider what a program or a table wants; and the page."""
    for report in reports:
        name = "".join(c if c.isalnum() or c in "-_." else "-" for c in report.provider)
        (folder / f"{name}.json").write_text(report.as_json())
        (folder / f"{name}.md").write_text(report.as_text())
    page.write([report.as_data() for report in reports], folder)
