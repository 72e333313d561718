# SPDX-License-Identifier: Apache-2.0
"""environment.py - MR501 to MR508: toolkits and compilers, which nobody needs, and
variables that steer the loader, CUDA, torch and mambarun.
"""

from __future__ import annotations

import re

from .._info import VARIABLES
from .finding import INFO, OK, SKIP, WARN, Finding, Headline
from .modules import torch_folders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator

    from .facts import Facts
    from .machine import Machine

# Libraries that torch brings itself: another copy on LD_LIBRARY_PATH comes before it.
OVERRIDDEN = re.compile(
    r"lib(cudart|cudnn\w*|nvJitLink|cublas(Lt)?|cusparse|nvrtc|cuda|stdc\+\+)\.so(\.|$)"
)
HARMLESS = (  # shown with -v, as they change what CUDA or torch does
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_MODULE_LOADING",
    "PYTORCH_CUDA_ALLOC_CONF",
    "CUDA_CACHE_PATH",
    "CUDA_CACHE_DISABLE",
    "CUDA_CACHE_MAXSIZE",
    "CUDA_FORCE_PTX_JIT",
    "CUDA_DISABLE_PTX_JIT",
    "CAUSAL_CONV1D_DETERMINISTIC",
)
HOMES = ("CUDA_HOME", "CUDA_PATH")
NINJA = re.compile(
    r"""^\s*command\s*=\s*\[\s*["']ninja["']\s*,\s*["']--version""", re.M
)


def check(facts: Facts) -> Iterator[Finding]:
    machine = facts.machine
    yield from _toolkits(facts)
    yield from _compilers(machine)
    yield from _edited(facts)
    yield from _loader_path(facts)
    yield from _homes(machine)
    yield from _preload(machine)
    yield from _variables(machine)
    yield from _own_variables(machine)


def headlines(facts: Facts, findings: list[Finding]) -> Iterator[Headline]:
    yield Headline("env", "plain" if _quiet(findings) else "notes", {})


def _quiet(findings: list[Finding]) -> bool:
    return not any(f.code.startswith("MR5") and f.status == WARN for f in findings)


def _toolkits(facts: Facts) -> Iterator[Finding]:
    found = [t for t in facts.libraries if t["what"] == "toolkit" and t["path"]]
    if not found:
        yield Finding("MR501", OK, "none", {})
        return
    evidence = tuple(f"{t['path']}  {t['version'] or '?'} ({t['how']})" for t in found)
    taken = next((t["path"] for t in found if t["used"]), found[0]["path"])
    values = {"count": len(found), "path": facts.machine.shown(taken)}
    yield Finding("MR501", INFO, "here", values, evidence)


def _compilers(machine: Machine) -> Iterator[Finding]:
    missing = [p for p in ("g++", "nvcc") if next(machine.programs(p), None) is None]
    case = "missing" if missing else "here"
    yield Finding("MR502", OK, case, {"missing": ", ".join(missing)})


def _edited(facts: Facts) -> Iterator[Finding]:
    """A popular remedy has torch call `ninja --version` where it should build."""
    if facts.torch is None:
        yield Finding("MR503", SKIP, "none", {})
        return
    path = facts.torch.folder + "/utils/cpp_extension.py"
    if NINJA.search(facts.machine.text(path) or ""):
        values = {"path": facts.machine.shown(path)}
        yield Finding("MR503", WARN, "edited", values, (path,))
    else:
        yield Finding("MR503", OK, "untouched", {})


def _loader_path(facts: Facts) -> Iterator[Finding]:
    machine, clean = facts.machine, True
    own = {n for f in torch_folders(facts) for n in machine.names(f)}
    for folder in dict.fromkeys(machine.paths_in("LD_LIBRARY_PATH")):
        names = [n for n in machine.names(folder) if OVERRIDDEN.match(n)]
        if not names or _is_drivers(names) or _is_torchs(facts, folder):
            continue
        clean = False
        hidden = [n for n in names if n in own or n.startswith("libstdc++")]
        kinds = dict.fromkeys(n.split(".so")[0] for n in hidden or names)
        values = {"folder": machine.shown(folder), "libraries": ", ".join(kinds)}
        evidence = tuple(f"{folder}/{n}" for n in (hidden or names)[:6])
        status, case = (WARN, "overrides") if hidden else (INFO, "beside")
        yield Finding("MR504", status, case, values, evidence)
    if clean:
        case = "harmless" if machine.environ.get("LD_LIBRARY_PATH") else "unset"
        yield Finding("MR504", OK, case, {})


def _is_drivers(names: list[str]) -> bool:
    """A folder of the driver's own libraries, which containers put on the path."""
    return all(name.startswith("libcuda.so") for name in names)


def _is_torchs(facts: Facts, folder: str) -> bool:
    torch = facts.torch
    if torch is None:
        return False
    real = facts.machine.real(folder)
    own = [torch.folder + "/lib", torch.site + "/nvidia/"]
    return any(real.startswith(facts.machine.real(p)) for p in own)


def _homes(machine: Machine) -> Iterator[Finding]:
    clean = True
    for name in HOMES:
        path = machine.environ.get(name)
        if not path:
            continue
        values = {"name": name, "path": machine.shown(path)}
        nvcc = next(machine.programs("nvcc"), None)
        if not machine.is_folder(path):
            clean = False
            yield Finding("MR505", WARN, "nowhere", values, (path,))
        elif nvcc and not machine.real(nvcc).startswith(machine.real(path) + "/"):
            clean = False
            values["nvcc"] = machine.shown(nvcc)
            yield Finding("MR505", INFO, "other", values, (path, nvcc))
    if clean:
        yield Finding("MR505", OK, "fits", {})


def _preload(machine: Machine) -> Iterator[Finding]:
    value = machine.environ.get("LD_PRELOAD")
    if value:
        yield Finding("MR506", INFO, "set", {}, (value,))
    else:
        yield Finding("MR506", OK, "unset", {})


def _variables(machine: Machine) -> Iterator[Finding]:
    found = [f"{n}={machine.environ[n]}" for n in HARMLESS if n in machine.environ]
    if found:
        yield Finding("MR507", INFO, "set", {"listed": ", ".join(found)})
    else:
        yield Finding("MR507", OK, "unset", {})


def _own_variables(machine: Machine) -> Iterator[Finding]:
    named = sorted(n for n in machine.environ if n.startswith("MAMBARUN_"))
    known = [f"{n}={machine.environ[n]}" for n in named if n in VARIABLES]
    for name in named:
        if name not in VARIABLES:
            values = {"name": name, "known": ", ".join(VARIABLES)}
            yield Finding("MR508", WARN, "unknown", values)
    if known:
        yield Finding("MR508", INFO, "set", {"listed": ", ".join(known)})
    elif not named:
        yield Finding("MR508", OK, "unset", {})
