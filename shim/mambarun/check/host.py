# SPDX-License-Identifier: Apache-2.0
"""host.py - MR001 to MR022: mambarun's own files, the system, the interpreter and the
import hook.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import re

from .. import PROMISED
from . import tables
from .facts import numbers
from .finding import ERROR, INFO, OK, SKIP, WARN, Finding, Headline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator

    from .facts import Dist, Facts
    from .machine import Machine

CHUNK = 1 << 20


def check(facts: Facts) -> Iterator[Finding]:
    yield from _own_files(facts)
    yield from _system(facts.machine)
    yield from _place(facts.machine)
    yield from _glibc(facts.machine)
    yield from _python(facts.machine)
    yield from _hook(facts.machine)
    yield from _same_python(facts.machine)


def headlines(facts: Facts, findings: list[Finding]) -> Iterator[Headline]:
    machine, library = facts.machine, facts.probe.get("library") or {}
    variant = facts.probe.get("cpu_variant")
    values = {"version": library.get("version", "?"), "variant": variant or "-"}
    yield Headline("mambarun", "here" if variant else "broken", values)
    yield Headline(
        "python",
        "glibc" if machine.libc[0] else "other",
        {
            "python": _version_text(machine),
            "libc": " ".join(machine.libc),
            "kind": _environment(machine),
        },
    )


# ---- MR001 ------------------------------------------------------------------------


def _own_files(facts: Facts) -> Iterator[Finding]:
    library, dist = facts.probe.get("library"), _own_dist(facts)
    files = list(_recorded(facts.machine, dist)) if dist else []
    wrong = tuple(path for path, *said in files if _differs(facts, path, *said))
    if library is None:  # the child died over it; MR112 says so
        if wrong:
            yield Finding("MR001", ERROR, "changed", {"count": len(wrong)}, wrong)
        else:
            yield Finding("MR001", SKIP, "unknown", {})
        return
    if "error" in library:
        yield Finding("MR001", ERROR, "missing", {}, (library["error"],))
        return
    values = {"version": library["version"]}
    load = facts.probe.get("cpu_load") or {}
    if "error" in load and load["code"] != "MR304":
        yield Finding("MR001", ERROR, "mixed", {}, (load["error"],))
    if dist is None:
        yield Finding("MR001", INFO, "tree", values, (library["path"],))
    elif numbers(dist.version)[:3] != numbers(library["version"])[:3]:
        values = {"package": dist.version, "library": library["version"]}
        yield Finding("MR001", ERROR, "versions", values, (dist.path, library["path"]))
    elif wrong:
        yield Finding("MR001", ERROR, "changed", {"count": len(wrong)}, wrong)
    else:
        values["count"] = len(files)
        yield Finding("MR001", OK, "intact", values, (library["path"],))


def _own_dist(facts: Facts) -> Dist | None:
    """The dist-info beside the package that runs; a source tree has none."""
    sites = {os.path.dirname(folder) for folder in facts.machine.own}
    return next((d for d in facts.dists if d[0] == "mambarun" and d[3] in sites), None)


def _recorded(machine: Machine, dist: Dist) -> Iterator[tuple[str, str, str]]:
    """(path, hash, size) of the files that the wheel brought, by its RECORD."""
    text = machine.text(dist.path + "/RECORD") or ""
    for row in csv.reader(text.replace("\0", "").splitlines()):
        if len(row) == 3 and row[1] and row[2] and ".dist-info/" not in row[0]:
            yield os.path.join(dist.site, row[0]), row[1], row[2]


def _differs(facts: Facts, path: str, recorded: str, size: str) -> bool:
    """Also if the file cannot be read, or the record is no record."""
    machine = facts.machine
    if not machine.is_file(path) or str(machine.size(path)) != size:
        return True
    kind, _, wanted = recorded.partition("=")
    try:
        digest = hashlib.new(kind)
        with open(machine.file(path), "rb") as file:
            for chunk in iter(lambda: file.read(CHUNK), b""):
                digest.update(chunk)
    except (OSError, ValueError):
        return True
    return base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode() != wanted


# ---- MR002, MR004, MR010 ----------------------------------------------------------


def _system(machine: Machine) -> Iterator[Finding]:
    values = {"system": machine.system, "arch": machine.arch}
    if machine.system != "Linux":
        case = {"Windows": "windows", "Darwin": "macos"}.get(machine.system, "other")
        yield Finding("MR002", ERROR, case, values)
    elif machine.arch == "aarch64":
        yield Finding("MR002", WARN, "aarch64", values)
    elif machine.arch not in ("x86_64", "amd64"):
        yield Finding("MR002", ERROR, "processor", values)
    else:
        yield Finding("MR002", OK, "supported", values)


def _place(machine: Machine) -> Iterator[Finding]:
    found = [
        Finding("MR004", INFO, place, {}, (sign,))
        for place, sign in (
            ("wsl", sign_of_wsl(machine)),
            ("jetson", sign_of_jetson(machine)),
            ("container", sign_of_container(machine)),
        )
        if sign
    ]
    yield from found or [Finding("MR004", OK, "plain", {})]


def sign_of_wsl(machine: Machine) -> str:
    if machine.exists("/dev/dxg"):
        return "/dev/dxg"
    version = (machine.text("/proc/version") or "") + machine.release
    return "/proc/version" if "microsoft" in version.lower() else ""


def sign_of_jetson(machine: Machine) -> str:
    for path in ("/etc/nv_tegra_release", "/proc/device-tree/compatible"):
        text = machine.text(path)
        if text is not None and ("tegra" in text.lower() or path.startswith("/etc")):
            return path
    return ""


def sign_of_container(machine: Machine) -> str:
    for path in ("/.dockerenv", "/run/.containerenv"):
        if machine.exists(path):
            return path
    groups = machine.text("/proc/1/cgroup") or ""
    kinds = ("docker", "kubepods", "containerd", "libpod", "lxc")
    return "/proc/1/cgroup" if any(kind in groups for kind in kinds) else ""


def _glibc(machine: Machine) -> Iterator[Finding]:
    name, version = machine.libc
    least = ".".join(map(str, tables.LEAST_GLIBC))
    values = {"version": version, "least": least}
    if machine.system != "Linux":
        yield Finding("MR010", SKIP, "system", {})
    elif name != "glibc":
        yield Finding("MR010", ERROR, "other", values)
    elif numbers(version) < tables.LEAST_GLIBC:
        yield Finding("MR010", ERROR, "old", values)
    else:
        yield Finding("MR010", OK, "enough", values)


# ---- MR020, MR021, MR022 ----------------------------------------------------------


def _python(machine: Machine) -> Iterator[Finding]:
    values = {
        "python": _version_text(machine),
        "least": ".".join(map(str, tables.LEAST_PYTHON)),
        "bits": machine.bits,
        "kind": _environment(machine),
    }
    where = (machine.executable, machine.prefix)
    if machine.python < tables.LEAST_PYTHON:
        yield Finding("MR020", ERROR, "old", values, where)
    elif machine.bits != 64:
        yield Finding("MR020", ERROR, "bits", values, where)
    elif machine.implementation != "cpython":
        yield Finding("MR020", WARN, "implementation", values, where)
    else:
        yield Finding("MR020", OK, "enough", values, where)


def _version_text(machine: Machine) -> str:
    name = {"cpython": "", "pypy": "PyPy "}.get(
        machine.implementation, machine.implementation + " "
    )
    threads = " free-threaded" if machine.free_threaded else ""
    return name + ".".join(map(str, machine.python)) + threads


def _environment(machine: Machine) -> str:
    if machine.is_folder(machine.prefix + "/conda-meta"):
        return "conda"
    return "venv" if machine.prefix != machine.base_prefix else "system"


def _hook(machine: Machine) -> Iterator[Finding]:
    places = [p for p in (standin(machine, name) for name in PROMISED) if p]
    if machine.hook == 0:
        yield Finding("MR021", OK, "first", {})
    elif machine.hook is not None:
        yield Finding("MR021", INFO, "later", {"place": machine.hook + 1})
    elif len(places) < len(PROMISED):
        yield Finding("MR021", WARN, "nothing", {}, machine.own)
    elif not machine.start_files_read:
        yield Finding("MR021", WARN, "no_site", {}, tuple(places[:1]))
    else:
        yield Finding("MR021", WARN, "stubs", {}, tuple(places[:1]))


def standin(machine: Machine, name: str) -> str | None:
    """The file of the first of mambarun's packages of that name on sys.path."""
    for site in machine.site_folders():
        path = f"{site}/{name}/__init__.py"
        if is_standin(machine, path):
            return path
    return None


def is_standin(machine: Machine, path: str) -> bool:
    """Whether a module's file is mambarun's."""
    return "from mambarun import _hook" in (machine.text(path) or "")


def _same_python(machine: Machine) -> Iterator[Finding]:
    """mambarun-check is found on PATH, perhaps of another Python than `python` is."""
    for name in ("python", "python3"):
        first = next(machine.programs(name), None)
        if first is None:
            continue
        if _belongs(machine, first):
            break
        values = {"name": name, "other": machine.shown(first)}
        active = machine.environ.get("VIRTUAL_ENV") or machine.environ.get(
            "CONDA_PREFIX"
        )
        started_by_name = os.path.basename(machine.argv[0]) == "mambarun-check"
        status = WARN if active or started_by_name else INFO
        yield Finding("MR022", status, "other", values, (machine.executable, first))
        return
    yield from _same_pip(machine)


def _same_pip(machine: Machine) -> Iterator[Finding]:
    """`pip` installs for the interpreter in its first line."""
    pip = next(machine.programs("pip"), None)
    first = (machine.text(pip) or "").partition("\n")[0] if pip else ""
    found = re.match(r"#!(/\S*/(?:python|pypy)[\d.]*)\s*$", first)
    interpreter = found[1] if found else ""  # else a wrapper, which may start any
    if not interpreter or _belongs(machine, interpreter):
        yield Finding("MR022", OK, "same", {}, (machine.executable,))
        return
    values = {"other": machine.shown(interpreter)}
    yield Finding("MR022", WARN, "pip", values, (pip or "", machine.executable))


def _belongs(machine: Machine, program: str) -> bool:
    """Whether a python on PATH is the interpreter that runs: the same environment, or,
    outside of one, the same file."""
    if "/shims/" in program:  # pyenv's and the like: which Python, they say when run
        return True
    if os.path.dirname(program) == machine.prefix.rstrip("/") + "/bin":
        return True
    if machine.prefix != machine.base_prefix:
        return False
    return machine.real(program) == machine.real(machine.executable)
