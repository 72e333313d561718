# SPDX-License-Identifier: Apache-2.0
"""packages.py - MR401 to MR410: the pure-Python packages above the modules, and which
versions of them go together. Their files are read as text; nothing is imported.
"""

from __future__ import annotations

from . import tables
from .facts import numbers
from .finding import INFO, OK, SKIP, WARN, Finding, Headline
from .modules import copies

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator

    from .facts import Facts

# What transformers looks for, as packages, and for which models.
FAST_PATH = (
    ("mamba_ssm", "mamba-ssm"),
    ("causal_conv1d", "causal-conv1d"),
    ("fla", "flash-linear-attention"),
    ("kernels", "kernels"),
)


def check(facts: Facts) -> Iterator[Finding]:
    yield from _mamba(facts)
    yield from _pair(facts)
    yield from _fork(facts)
    yield from _transformers(facts)
    yield from _mamba3(facts)
    yield from _others(facts)
    yield from _fast_path(facts)


def headlines(facts: Facts, findings: list[Finding]) -> Iterator[Headline]:
    names = ("mamba-ssm", "causal-conv1d", "transformers")
    there = [d for d in map(facts.dist, names) if d]
    listed = ", ".join(f"{d.name} {d.version.split('+')[0]}" for d in there)
    yield Headline("packages", "some" if there else "none", {"listed": listed})


def folder(facts: Facts, name: str) -> str | None:
    """The package of that name that an import would take."""
    for site in facts.machine.site_folders():
        if facts.machine.is_file(f"{site}/{name}/__init__.py"):
            return f"{site}/{name}"
    return None


def _version(facts: Facts, name: str) -> tuple[int, ...] | None:
    dist = facts.dist(name)
    return None if dist is None else numbers(dist.version)


def _mamba(facts: Facts) -> Iterator[Finding]:
    torch = (facts.torch.number if facts.torch else ()) or (2, 4)
    _, mamba, conv = tables.row(tables.PURE_PAIRS, torch)  # type: ignore[misc]
    for name, file in (("mamba-ssm", "mamba_ssm"), ("causal-conv1d", "causal_conv1d")):
        dist, place = facts.dist(name), folder(facts, file)
        wanted = mamba if name == "mamba-ssm" else conv
        values = {"package": name, "wanted": wanted}
        if place is None:
            yield Finding("MR401", INFO, "absent", values)
        elif dist is None:
            yield Finding("MR401", INFO, "bare", values, (place,))
        else:
            values["version"] = dist.version
            extensions = [c for c in copies(facts.machine, _kernels(file))]
            case = "kernels" if extensions else "pure"
            yield Finding("MR401", OK, case, values, (place,))


def _kernels(package: str) -> str:
    """The module that the package's own wheel brings beside it."""
    return {"mamba_ssm": "selective_scan_cuda"}.get(package, package + "_cuda")


def _pair(facts: Facts) -> Iterator[Finding]:
    mamba, conv = facts.dist("mamba-ssm"), facts.dist("causal-conv1d")
    place = folder(facts, "causal_conv1d")
    has_functions = place is not None and facts.machine.is_file(
        place + "/cpp_functions.py"
    )
    values = {
        "mamba": mamba.version if mamba else "-",
        "conv": conv.version if conv else "-",
        "torch": facts.torch.version if facts.torch else "-",
    }
    sound = True
    if mamba and place and not has_functions:
        if numbers(mamba.version) >= tables.MAMBA_WANTS_CPP_FUNCTIONS:
            sound = False
            yield Finding("MR402", WARN, "functions", values, (place,))
    if facts.torch and has_functions:
        if facts.torch.number < tables.CUSTOM_OP_SINCE_TORCH:
            sound = False
            yield Finding("MR402", WARN, "torch", values, (place or "",))
    if sound:
        both = mamba is not None and conv is not None
        yield Finding("MR402", OK if both else SKIP, "fits" if both else "none", values)


def _fork(facts: Facts) -> Iterator[Finding]:
    place = folder(facts, "mamba_ssm")
    path = f"{place}/modules/mamba_simple.py"
    text = facts.machine.text(path) if place else None
    if text is None:
        yield Finding("MR403", SKIP, "none", {})
        return
    fork = next((whose for word, whose in tables.FORKS if word in text), None)
    case = "stock" if fork is None else "fork"
    yield Finding("MR403", INFO if fork else OK, case, {"fork": fork}, (place or "",))


def _transformers(facts: Facts) -> Iterator[Finding]:
    mamba, transformers = facts.dist("mamba-ssm"), facts.dist("transformers")
    if mamba is None or transformers is None:
        yield Finding("MR404", SKIP, "none", {})
        return
    values = {"mamba": mamba.version, "transformers": transformers.version}
    old = numbers(mamba.version) < tables.MAMBA_WITHOUT_GREEDY
    new = numbers(transformers.version) >= tables.TRANSFORMERS_WITHOUT_GREEDY
    clash = old and new
    yield Finding("MR404", WARN if clash else OK, "clash" if clash else "fits", values)


def _mamba3(facts: Facts) -> Iterator[Finding]:
    mamba = facts.dist("mamba-ssm")
    if mamba is None or numbers(mamba.version) < tables.MAMBA_WITH_MAMBA3:
        yield Finding("MR405", SKIP, "none", {})
        return
    missing = [name for name in tables.MAMBA3_NEEDS if facts.dist(name) is None]
    values = {"mamba": mamba.version, "missing": ", ".join(missing)}
    ffi, tilelang = (_version(facts, n) for n in ("apache-tvm-ffi", "tilelang"))
    breaks, up_to = tables.FFI_BREAKS
    if missing:
        yield Finding("MR405", WARN, "missing", values)
    elif ffi and tilelang and ffi >= breaks and tilelang <= up_to:
        values["ffi"] = facts.dist("apache-tvm-ffi").version  # type: ignore[union-attr]
        yield Finding("MR405", WARN, "ffi", values)
    else:
        yield Finding("MR405", OK, "fits", values)


def _others(facts: Facts) -> Iterator[Finding]:
    numpy, torch = facts.dist("numpy"), facts.torch
    sound = True
    if numpy and torch and torch.number < tables.TORCH_FOR_NUMPY_2:
        if numbers(numpy.version) >= (2,):
            sound = False
            values = {"numpy": numpy.version, "torch": torch.version}
            yield Finding("MR406", WARN, "numpy", values)
    if folder(facts, "mamba_ssm"):
        for name in ("einops", "triton"):
            if folder(facts, name) is None:
                sound = False
                yield Finding("MR406", WARN, "missing", {"package": name})
    if sound:
        yield Finding("MR406", OK, "fits", {})


def _fast_path(facts: Facts) -> Iterator[Finding]:
    transformers = facts.dist("transformers")
    if transformers is None:
        yield Finding("MR410", SKIP, "none", {})
        return
    old = numbers(transformers.version) < (5,)
    values = {"transformers": transformers.version}
    missing = [
        name
        for package, name in FAST_PATH[:2]
        if folder(facts, package) is None or (old and facts.dist(name) is None)
    ]
    if missing:
        values["missing"] = ", ".join(missing)
        yield Finding("MR410", INFO, "missing", values)
        return
    also = [name for package, name in FAST_PATH[2:] if not folder(facts, package)]
    values["also"] = ", ".join(also) or "-"
    yield Finding("MR410", OK, "here", values)
