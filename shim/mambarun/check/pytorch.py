# SPDX-License-Identifier: Apache-2.0
"""pytorch.py - MR003 and MR201 to MR210: which torch an import would find and which
CUDA libraries it would load. torch is read, never imported.
"""

from __future__ import annotations

from . import tables
from .facts import api_text, capability_text, numbers
from .finding import ERROR, INFO, OK, SKIP, WARN, Finding, Headline
from .modules import abi_of_torch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator

    from .facts import Facts, Torch


ENVIRONMENT = ("torch", "wheel", "conda", "prefix")  # `how` of a library


def check(facts: Facts) -> Iterator[Finding]:
    torch = facts.torch
    yield from _kind(torch)
    yield from _which(facts)
    if torch is None:
        for code in ("MR202", "MR203", "MR204", "MR205", "MR206", "MR210"):
            yield Finding(code, SKIP, "none", {})
        return
    yield from _abi(facts, torch)
    yield from _replaced(facts, torch)
    yield from _driver(facts, torch)
    yield from _architectures(facts, torch)
    yield from _runtime(facts, torch)
    yield from _cudnn(facts, torch)


def headlines(facts: Facts, findings: list[Finding]) -> Iterator[Headline]:
    torch = facts.torch
    if torch is None:
        yield Headline("torch", "none", {})
        return
    values = {
        "torch": torch.version,
        "cudart": _version(used(facts, "cudart")),
        "cudnn": _version(used(facts, "cudnn")),
    }
    kind = "cuda" if facts.libraries else "alone"
    yield Headline("torch", kind if torch.cuda else "cpu", values)


def used(facts: Facts, what: str) -> dict[str, Any] | None:
    """The copy of a library that torch would load."""
    return next((f for f in facts.libraries_of(what) if f["used"]), None)


def _version(library: dict[str, Any] | None) -> str:
    """ "-" if torch would load none from a file."""
    return "-" if library is None else library.get("version") or "?"


def _kind(torch: Torch | None) -> Iterator[Finding]:
    if torch is None:
        yield Finding("MR003", SKIP, "none", {})
    elif torch.hip or torch.xpu:
        case = "hip" if torch.hip else "xpu"
        yield Finding("MR003", ERROR, case, {"torch": torch.version}, (torch.folder,))
    else:
        yield Finding("MR003", OK, "fits", {"torch": torch.version})


def _which(facts: Facts) -> Iterator[Finding]:
    torch, gpu = facts.torch, bool(facts.gpus)
    if torch is None:
        yield Finding("MR201", ERROR if gpu else WARN, "none", {})
        return
    values = {"torch": torch.version, "cuda": torch.cuda}
    if torch.number < tables.LEAST_TORCH:
        values["least"] = ".".join(map(str, tables.LEAST_TORCH))
        yield Finding("MR201", WARN, "old", values, (torch.folder,))
    elif not torch.cuda and not torch.hip and not torch.xpu:
        status, case = (WARN, "cpu_only") if gpu else (OK, "cpu")
        yield Finding("MR201", status, case, values, (torch.folder,))
    else:
        yield Finding("MR201", OK, "cuda", values, (torch.folder,))


def _abi(facts: Facts, torch: Torch) -> Iterator[Finding]:
    flavour = abi_of_torch(facts)
    case = "known" if flavour else "unknown"
    values = {"flavour": flavour, "torch": torch.version}
    yield Finding("MR202", OK if flavour else SKIP, case, values)


def _replaced(facts: Facts, torch: Torch) -> Iterator[Finding]:
    machine = facts.machine
    dists = [d for d in facts.dists if d.name == "torch" and d.site == torch.site]
    numbered = [d for d in dists if numbers(d.version) != torch.number]
    values = {"torch": torch.version}
    if len(dists) > 1:
        values["versions"] = ", ".join(d.version for d in dists)
        yield Finding("MR203", WARN, "two", values, tuple(d.path for d in dists))
    elif numbered:
        values["metadata"] = numbered[0].version
        evidence = (torch.folder + "/version.py", numbered[0].path)
        yield Finding("MR203", WARN, "differs", values, evidence)
    elif torch.site == machine.user_site and len(facts.torches) > 1:
        values["other"] = facts.torches[1].version
        evidence = tuple(t.folder for t in facts.torches)
        yield Finding("MR203", WARN, "user", values, evidence)
    else:
        yield Finding("MR203", OK, "whole", values)


def _driver(facts: Facts, torch: Torch) -> Iterator[Finding]:
    major = next(iter(numbers(torch.cuda)), 0)
    if not major or not facts.api:
        yield Finding("MR204", SKIP, "none", {})
        return
    values = {
        "torch": torch.version,
        "cuda": torch.cuda,
        "api": api_text(facts.api),
        "least": tables.LEAST_DRIVER.get(major, "?"),
        "index": next(i for a, i in tables.TORCH_INDEX.items() if facts.api >= a),
    }
    old = facts.api < 1000 * major
    yield Finding("MR204", ERROR if old else OK, "old" if old else "fits", values)


def _architectures(facts: Facts, torch: Torch) -> Iterator[Finding]:
    known = _capabilities(torch)
    if known is None or not facts.gpus:
        yield Finding("MR205", SKIP, "none", {})
        return
    least, largest = known
    lacking = [g for g in facts.gpus if not least <= g["capability"] <= largest]
    if not lacking:
        yield Finding("MR205", OK, "fits", {"torch": torch.version})
    for gpu in lacking:
        values = {
            "torch": torch.version,
            "cuda": torch.cuda,
            "name": gpu["name"],
            "capability": capability_text(gpu["capability"]),
            "date": tables.DATE,
        }
        case = "dropped" if gpu["capability"] < least else "new"
        yield Finding("MR205", WARN, case, values)


def _capabilities(torch: Torch) -> tuple[int, int] | None:
    """The least and the largest that kernels of torch's own wheels run on."""
    cuda = numbers(torch.cuda)
    for since, cuda_since, least, largest in tables.TORCH_CAPABILITIES:
        if cuda and torch.number >= since and cuda >= cuda_since:
            return least, largest
    return None


# ---- MR206, MR210 -----------------------------------------------------------------


def _runtime(facts: Facts, torch: Torch) -> Iterator[Finding]:
    yield from _library(facts, torch, "MR206", "cudart", torch.cuda.split(".")[0])


def _cudnn(facts: Facts, torch: Torch) -> Iterator[Finding]:
    row = tables.row(tables.TORCH_CUDNN, torch.number)
    major = str(row[1]) if row and torch.cuda else ""  # type: ignore[index]
    yield from _library(facts, torch, "MR210", "cudnn", major)


def _library(
    facts: Facts, torch: Torch, code: str, what: str, wanted: str
) -> Iterator[Finding]:
    """wanted: the major version that torch was built with, "" if none."""
    found, taken = facts.libraries_of(what), used(facts, what)
    evidence = tuple(_line(f) for f in found if f["path"])
    values = {
        "torch": torch.version,
        "wanted": wanted,
        "version": _version(taken),
        "path": facts.machine.shown((taken or {}).get("path", "")),
        "name": (taken or {}).get("name", ""),
    }
    major = _version(taken).split(".")[0]
    others = [
        f
        for f in found
        if f["path"]
        and _version(f).split(".")[0] != major
        and not (f["how"] == "wheel" and not f["path"].startswith(torch.site + "/"))
    ]
    values["others"] = ", ".join(f"{f['name']}" for f in others)
    inside = next((f for f in others if f["how"] in ENVIRONMENT), None)
    if not torch.cuda:
        yield Finding(code, OK, "unused", values, evidence)
    elif not facts.libraries:  # libmambarun, which lists them, does not open
        yield Finding(code, SKIP, "unknown", values)
    elif taken is None:
        yield Finding(code, OK, "inside", values, evidence)
    elif not taken["path"]:
        yield Finding(code, WARN, "missing", values, evidence)
    elif wanted and major.isdigit() and major != wanted:
        yield Finding(code, WARN, "major", values, evidence)
    elif taken["by"] == "LD_LIBRARY_PATH":  # MR504 warns
        yield Finding(code, INFO, "overridden", values, evidence)
    elif inside is not None:
        dist = facts.owner(inside["path"])
        shown = facts.machine.shown(inside["path"])
        values["remove"] = f"pip uninstall {dist.name}" if dist else f"rm '{shown}'"
        yield Finding(code, WARN, "two", values, evidence)
    elif others:
        yield Finding(code, INFO, "beside", values, evidence)
    else:
        yield Finding(code, OK, "fits", values, evidence)


def _line(library: dict[str, Any]) -> str:
    mark = f", taken by {library['by']}" if library["used"] else ""
    return f"{library['path']}  {library['version'] or '?'} ({library['how']}{mark})"
