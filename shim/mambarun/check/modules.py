# SPDX-License-Identifier: Apache-2.0
"""modules.py - MR301 to MR305: who supplies each promised name, which other copies
there are, and why a leftover is broken. Imports are simulated: nothing is loaded, ELF
files are only read.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from .. import PROMISED
from . import elf
from .facts import capability_text, numbers
from .finding import ERROR, INFO, OK, WARN, Finding, Headline
from .host import is_standin, standin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator

    from .facts import Dist, Facts
    from .machine import Machine

VARIABLES = ("MAMBARUN_DISABLE", "MAMBARUN_PREFER", "MAMBARUN_VARIANT")
# Where libraries lie that no package brings; the loader's defaults.
SYSTEM_FOLDERS = (
    "/lib/{arch}-linux-gnu",
    "/usr/lib/{arch}-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
)
TORCH_LIBRARIES = re.compile(r"lib(torch|c10|caffe2|shm)\w*\.so")
TORCH_SYMBOL = re.compile(r"_Z.*(2at|3c10|5torch)|THP")
NEW_ABI = re.compile(r"__cxx11|B5cxx11")
OLD_ABI = re.compile(r"RKSs|Ss$")


class Copy(NamedTuple):
    """A file that an import of the name could take, in the order of sys.path."""

    name: str
    path: str
    kind: str  # "extension", "package" or "source"
    site: str


class Supplier(NamedTuple):
    """Who supplies a promised name; why: a case of MR301."""

    name: str
    provider: str  # "mambarun", "other" or "nobody"
    path: str
    why: str
    others: tuple[Copy, ...]  # every copy that is not mambarun's
    faults: tuple[Fault, ...]  # of the first other copy


class Fault(NamedTuple):
    """Why an extension module does not load: a case of MR302."""

    case: str
    values: dict[str, Any]
    evidence: tuple[str, ...] = ()


def check(facts: Facts) -> Iterator[Finding]:
    suppliers = [supplier(facts, name) for name in PROMISED]
    yield from _names(facts, suppliers)
    yield from _faults(facts, suppliers)
    yield from _copies(facts, suppliers)
    yield from _asked(facts)
    yield from _imported(facts.machine)


def headlines(facts: Facts, findings: list[Finding]) -> Iterator[Headline]:
    suppliers = [supplier(facts, name) for name in PROMISED]
    ours = sum(s.provider == "mambarun" for s in suppliers)
    broken = {s.others[0].path for s in suppliers if s.faults}
    values = {"ours": ours, "all": len(PROMISED), "broken": len(broken)}
    if any(s.provider == "nobody" for s in suppliers):
        case = "missing"
    elif ours < len(PROMISED):
        case = "mixed"
    else:
        case = "shadowed" if broken else "ours"
    yield Headline("modules", case, values)


# ---- MR301 ------------------------------------------------------------------------


def supplier(facts: Facts, name: str) -> Supplier:
    """Who a name's import would take: the rule of _hook.py, judged from files."""
    if name not in facts.suppliers:
        facts.suppliers[name] = _supplier(facts, name)
    return facts.suppliers[name]  # type: ignore[no-any-return]


def _supplier(facts: Facts, name: str) -> Supplier:
    machine = facts.machine
    others = tuple(copies(machine, name))
    ours = standin(machine, name) or ""
    faults = tuple(_why_broken(facts, others[0])) if others else ()

    def supplied(provider: str, path: str, why: str) -> Supplier:
        return Supplier(name, provider, path, why, others, faults)

    def theirs(why: str) -> Supplier:
        return supplied("other", others[0].path, why)

    if disabled(machine, name):
        return theirs("disabled") if others else supplied("nobody", "", "disabled")
    if not ours:
        return theirs("no_standin") if others else supplied("nobody", "", "nothing")
    if machine.hook is None and others and _before(machine, others[0], ours):
        return theirs("before")
    if preferred(machine):
        return supplied("mambarun", ours, "asked")
    if others and not faults:
        return theirs("works")
    return supplied("mambarun", ours, "broken" if others else "alone")


def disabled(machine: Machine, name: str) -> bool:
    value = machine.environ.get("MAMBARUN_DISABLE", "")
    return value.strip() == "1" or name in value.replace(" ", "").split(",")


def preferred(machine: Machine) -> bool:
    environ = machine.environ
    asked = environ.get("MAMBARUN_PREFER") == "ours"
    return asked or bool(environ.get("MAMBARUN_VARIANT"))


def _before(machine: Machine, other: Copy, ours: str) -> bool:
    """Without the finder, the entry of sys.path decides; in one and the same, a package
    comes before an extension."""
    sites = machine.site_folders()
    mine = os.path.dirname(os.path.dirname(ours))
    return sites.index(other.site) < sites.index(mine)


def copies(machine: Machine, name: str) -> Iterator[Copy]:
    """Every module of that name that is not mambarun's."""
    for site in machine.site_folders():
        package = f"{site}/{name}/__init__.py"
        if machine.is_file(package) and not is_standin(machine, package):
            yield Copy(name, package, "package", site)
        for suffix in machine.suffixes:
            if machine.is_file(f"{site}/{name}{suffix}"):
                yield Copy(name, f"{site}/{name}{suffix}", "extension", site)
        if machine.is_file(f"{site}/{name}.py"):
            yield Copy(name, f"{site}/{name}.py", "source", site)


def _names(facts: Facts, suppliers: list[Supplier]) -> Iterator[Finding]:
    for s in suppliers:
        values = {"name": s.name}
        evidence = (s.path,) if s.path else ()
        if s.provider == "mambarun":
            yield Finding("MR301", OK, s.why, values, evidence)
        elif s.provider == "nobody":
            status = INFO if s.why == "disabled" else ERROR
            case = "disabled_nobody" if s.why == "disabled" else "nothing"
            yield Finding("MR301", status, case, values)
        elif s.faults:
            yield Finding("MR301", ERROR, "broken_wins", values, evidence)
        else:
            yield Finding("MR301", INFO, s.why, values, evidence)


# ---- MR302 ------------------------------------------------------------------------


def _faults(facts: Facts, suppliers: list[Supplier]) -> Iterator[Finding]:
    clean = True
    for s in suppliers:
        wins = s.provider == "other"
        for copy in s.others:
            faults = s.faults if copy is s.others[0] else _why_broken(facts, copy)
            for fault in list(faults)[:1]:
                clean = False
                yield _broken(facts, copy, fault, wins and copy is s.others[0])
        if wins and not s.faults:
            yield from _unfit(facts, s.others[0])
        yield from _strangers(facts, s.name)
    if clean:
        yield Finding("MR302", OK, "none", {})


def _broken(facts: Facts, copy: Copy, fault: Fault, wins: bool) -> Finding:
    dist = facts.owner(copy.path)
    values = {
        **fault.values,
        "file": os.path.basename(copy.path),
        "remove": _removal(facts, copy),
    }
    evidence = (copy.path, *_built(facts, copy, dist), *fault.evidence)
    return Finding("MR302", ERROR if wins else WARN, fault.case, values, evidence)


def _built(facts: Facts, copy: Copy, dist: Dist | None) -> Iterator[str]:
    """What can be said of who built a file, and for what: the package that brought it,
    its CUDA library and the architectures of its kernels."""
    said = [f"{dist.name} {dist.version}"] if dist else []
    try:
        file = elf.read(facts.machine.file(copy.path))
    except elf.NotElf:
        file = None
    if file is not None:
        said += [n for n in file.needed if n.startswith("libcudart")]
        said += [" ".join(file.cuda_architectures or ())]
    line = ", ".join(filter(None, said))
    if line:
        yield line


def _removal(facts: Facts, copy: Copy) -> str:
    dist = facts.owner(copy.path)
    if dist is not None:
        return f"pip uninstall {dist.name}"
    return f"rm '{facts.machine.shown(copy.path)}'"


def _why_broken(facts: Facts, copy: Copy) -> Iterator[Fault]:
    """The reasons, the first one that the loader would meet first. None: nothing speaks
    against it, which is no proof that it loads."""
    machine = facts.machine
    if copy.kind != "extension":
        return
    try:
        file = elf.read(machine.file(copy.path))
    except elf.NotElf as reason:
        yield Fault("damaged", {}, (str(reason),))
        return
    if file.machine != machine.arch:
        yield Fault("processor", {"built": file.machine, "here": machine.arch})
        return
    yield from _old_glibc(machine, file)
    yield from _missing_libraries(facts, copy, file)
    yield from _missing_symbols(facts, copy, file)


def _old_glibc(machine: Machine, file: elf.Elf) -> Iterator[Fault]:
    """Versions of glibc and of the C++ library that the file wants."""
    wanted = [v for versions in file.version_needs.values() for v in versions]
    newest = max(
        (numbers(v[len("GLIBC_") :]) for v in wanted if re.match(r"GLIBC_\d", v)),
        default=(0,),
    )
    if machine.libc[0] == "glibc" and newest > numbers(machine.libc[1]):
        values = {"needs": ".".join(map(str, newest)), "here": machine.libc[1]}
        yield Fault("glibc", values)


def _missing_libraries(facts: Facts, copy: Copy, file: elf.Elf) -> Iterator[Fault]:
    for soname in file.needed:
        if _found(facts, copy, file, soname):
            continue
        if TORCH_LIBRARIES.match(soname):
            if facts.torch is None:
                yield Fault("no_torch", {"library": soname})
            else:  # libtorch_cuda_cu.so and the like were of older versions
                values = {"library": soname, "torch": facts.torch.version}
                yield Fault("torch_library", values)
        elif re.match(r"lib(cudart|cublas|cusparse|nvrtc|cudnn|cufft)", soname):
            values = {
                "library": soname,
                "cuda": _major(soname),
                "here": (facts.torch.cuda if facts.torch else "") or "-",
            }
            yield Fault("cuda_library", values)
        else:
            yield Fault("library", {"library": soname})


def _major(soname: str) -> str:
    found = re.search(r"\.so\.(\d+(?:\.\d+)?)", soname)
    return found[1] if found else "?"


def _found(facts: Facts, copy: Copy, file: elf.Elf, soname: str) -> bool:
    """Whether the loader finds a library: as after `import torch`, which loads what
    torch's own folders hold."""
    machine = facts.machine
    if soname.startswith(("libpython", "ld-linux")) or re.match(
        r"lib(c|m|dl|rt|pthread|util|stdc\+\+|gcc_s|gomp)\.so", soname
    ):
        return True
    origin = os.path.dirname(machine.real(copy.path))
    own = [f.replace("$ORIGIN", origin) for f in (*file.rpath, *file.runpath)]
    folders = [*own, *machine.paths_in("LD_LIBRARY_PATH"), *_loader_folders(machine)]
    folders += torch_folders(facts)
    return any(machine.is_file(f"{folder}/{soname}") for folder in folders)


def _loader_folders(machine: Machine) -> Iterator[str]:
    """Where every program's libraries are looked for: what ld.so.cache is made of."""
    yield from (folder.format(arch=machine.arch) for folder in SYSTEM_FOLDERS)
    lists = [f"/etc/ld.so.conf.d/{n}" for n in machine.names("/etc/ld.so.conf.d")]
    for path in ("/etc/ld.so.conf", *lists):
        lines = (machine.text(path) or "").splitlines()
        yield from (line.strip() for line in lines if line.startswith("/"))


def torch_folders(facts: Facts) -> Iterator[str]:
    """Where the libraries lie that torch brings: its own folder, NVIDIA's wheels, such
    as site-packages/nvidia/cudnn/lib, and a conda environment's."""
    yield facts.machine.prefix + "/lib"
    if facts.torch is None:
        return
    yield facts.torch.folder + "/lib"
    for package in facts.machine.names(facts.torch.site + "/nvidia"):
        yield f"{facts.torch.site}/nvidia/{package}/lib"


def _missing_symbols(facts: Facts, copy: Copy, file: elf.Elf) -> Iterator[Fault]:
    """Symbols of torch that this torch does not have."""
    torch = facts.torch
    if torch is None:
        return
    wanted = [s for s in file.undefined if TORCH_SYMBOL.match(s)]
    libraries = torch_libraries(facts)
    if not wanted or not libraries:
        return
    missing = [s for s in wanted if not any(lib.exports(s) for lib in libraries)]
    if not missing:
        return
    dist = facts.owner(copy.path)
    values = {"symbol": _short(missing[0]), "torch": torch.version, "built": ""}
    flavour, here = _abi(missing), abi_of_torch(facts)
    evidence = (missing[0],)
    if flavour and here and flavour != here:
        values.update(built=flavour, here=here)
        yield Fault("abi", values, evidence)
        return
    values["built"] = _torch_in(dist.version) if dist else ""
    yield Fault("built_for" if values["built"] else "symbol", values, evidence)


def _short(symbol: str) -> str:
    return symbol if len(symbol) <= 60 else symbol[:57] + "..."


def _torch_in(version: str) -> str:
    """2.2 of "1.5.0.post8+cu12torch2.2cxx11abiTRUE", the name of an upstream wheel."""
    found = re.search(r"torch(\d+\.\d+)", version)
    return found[1] if found else ""


def torch_libraries(facts: Facts) -> list[elf.Elf]:
    """torch's libraries that modules are linked with; those that can be read."""
    if facts.torch_elves is None:
        facts.torch_elves = list(_torch_libraries(facts))
    return facts.torch_elves


def _torch_libraries(facts: Facts) -> Iterator[elf.Elf]:
    folder = facts.torch.folder + "/lib" if facts.torch else ""
    for name in facts.machine.names(folder) if folder else ():
        if not TORCH_LIBRARIES.match(name):
            continue
        try:
            yield elf.read(facts.machine.file(f"{folder}/{name}"))
        except elf.NotElf:
            continue


def _abi(symbols: list[str]) -> str:
    """TRUE or FALSE, as upstream's wheels write it: which std::string the names of
    symbols have; "" if none of them tells."""
    if any(NEW_ABI.search(s) for s in symbols):
        return "TRUE"
    return "FALSE" if any(OLD_ABI.search(s) for s in symbols) else ""


# Constructors of c10::Error, of which each torch exports those with its std::string.
ABI_WITNESSES = {
    "TRUE": (
        "_ZN3c105ErrorC2ENS_14SourceLocationENSt7__cxx1112basic_stringIcSt11char_"
        "traitsIcESaIcEEE",
        "_ZN3c106detail14torchCheckFailEPKcS2_jRKNSt7__cxx1112basic_stringIcSt11char_"
        "traitsIcESaIcEEE",
    ),
    "FALSE": (
        "_ZN3c105ErrorC2ENS_14SourceLocationESs",
        "_ZN3c106detail14torchCheckFailEPKcS2_jRKSs",
    ),
}


def abi_of_torch(facts: Facts) -> str:
    """TRUE or FALSE: cxx11abi of this torch, by what its libc10.so exports; "" if that
    does not tell."""
    if facts.torch is None:
        return ""
    try:
        library = elf.read(facts.machine.file(facts.torch.folder + "/lib/libc10.so"))
    except elf.NotElf:
        return ""
    for flavour, names in ABI_WITNESSES.items():
        if any(library.exports(name) for name in names):
            return flavour
    return ""


def _unfit(facts: Facts, copy: Copy) -> Iterator[Finding]:
    """A module that loads and has no kernels for a GPU that is here."""
    if copy.kind != "extension":
        return
    architectures = elf.read(facts.machine.file(copy.path)).cuda_architectures
    for gpu in facts.gpus if architectures else ():
        if not any(_serves(a, gpu["capability"]) for a in architectures or ()):
            capability = capability_text(gpu["capability"])
            values = {"name": gpu["name"], "capability": capability}
            yield _broken(facts, copy, Fault("gpu", values), False)
            return


def _serves(architecture: str, capability: int) -> bool:
    """sm_80 code runs on 8.x from 8.0 on, compute_80 on anything from 8.0 on."""
    kind, _, number = architecture.partition("_")
    built = int(number)
    if kind == "compute":
        return built <= capability
    return built // 10 == capability // 10 and built <= capability


def _strangers(facts: Facts, name: str) -> Iterator[Finding]:
    """Extensions of that name which this Python passes over."""
    machine = facts.machine
    for site in machine.site_folders():
        for entry in machine.names(site):
            if not re.fullmatch(rf"{name}(\.(cpython|pypy)[\w-]*)?\.so", entry):
                continue
            copy = Copy(name, f"{site}/{entry}", "extension", site)
            if entry[len(name) :] not in machine.suffixes:
                built = entry[len(name) + 1 : -len(".so")]
                fault = Fault("python", {"built": built, "here": _tag(machine)})
            elif machine.is_broken_link(copy.path):
                fault = Fault("link", {})
            else:
                continue
            yield _broken(facts, copy, fault, False)._replace(status=INFO)


def _tag(machine: Machine) -> str:
    return machine.suffixes[0].strip(".").rpartition(".")[0]


# ---- MR303 ------------------------------------------------------------------------


def _copies(facts: Facts, suppliers: list[Supplier]) -> Iterator[Finding]:
    machine, clean = facts.machine, True
    for s in suppliers:
        shadowed = [c for c in s.others if c.path != s.path]
        if s.provider == "other" and shadowed:
            clean = False
            paths = tuple(c.path for c in shadowed)
            yield Finding("MR303", WARN, "copies", {"name": s.name}, (s.path, *paths))
    more = (_user_site(facts, suppliers), _here(machine), _built_here(machine))
    for findings in (*more, _links(machine)):
        for finding in findings:
            clean = False
            yield finding
    if clean:
        yield Finding("MR303", OK, "none", {})


def _user_site(facts: Facts, suppliers: list[Supplier]) -> Iterator[Finding]:
    """What `pip install --user` left comes before every environment's packages."""
    machine = facts.machine
    site = machine.user_site
    if not machine.user_site_used or site not in machine.sys_path:
        return
    names = ("mamba-ssm", "causal-conv1d", "selective-scan")
    dists = [d for d in facts.dists if d.site == site and d.name in names]
    files = [c.path for s in suppliers for c in s.others if c.site == site]
    if dists or files:
        listed = ", ".join(f"{d.name} {d.version}" for d in dists)
        values = {
            "site": machine.shown(site),
            "packages": listed or os.path.basename(files[0]),
            "uninstall": "pip uninstall " + " ".join(d.name for d in dists)
            if dists
            else f"rm '{machine.shown(files[0])}'",
        }
        evidence = (*(d.path for d in dists), *files)
        yield Finding("MR303", WARN, "user", values, evidence)


def _here(machine: Machine) -> Iterator[Finding]:
    """Started inside a clone, Python takes the clone instead of what is installed."""
    for name in ("mamba_ssm", "causal_conv1d"):
        inside = machine.is_file(f"{machine.cwd}/{name}/__init__.py")
        if inside and machine.is_file(machine.cwd + "/setup.py"):
            path = f"{machine.cwd}/{name}"
            yield Finding("MR303", WARN, "clone", {"name": name}, (path,))


def _built_here(machine: Machine) -> Iterator[Finding]:
    """What `setup.py build` left in the current folder, where no import finds it."""
    for folder in machine.names(machine.cwd + "/build"):
        if not folder.startswith("lib"):
            continue
        where = f"{machine.cwd}/build/{folder}"
        for entry in machine.names(where):
            if entry.split(".")[0] in PROMISED and entry.endswith(".so"):
                path = f"{where}/{entry}"
                yield Finding("MR303", INFO, "build", {"file": entry}, (path,))


def _links(machine: Machine) -> Iterator[Finding]:
    """Names that start-up files send elsewhere: editable installs and .egg folders."""
    pattern = re.compile(r"mamba_ssm|causal_conv1d|selective_scan")
    for site in machine.site_folders():
        for entry in machine.names(site):
            path = f"{site}/{entry}"
            editable = entry.startswith("__editable__") and pattern.search(entry)
            easy = entry == "easy-install.pth" and pattern.search(
                machine.text(path) or ""
            )
            if editable or easy:
                yield Finding("MR303", INFO, "link", {"file": entry}, (path,))


# ---- MR304, MR305 -----------------------------------------------------------------


def _asked(facts: Facts) -> Iterator[Finding]:
    environ = facts.machine.environ
    load = facts.probe.get("cpu_load") or {}
    asked = [name for name in VARIABLES if environ.get(name)]
    variant = environ.get("MAMBARUN_VARIANT")
    names = [v["name"] for v in facts.probe.get("cpu_variants", ())]
    if variant and names and variant not in names:
        values = {"variant": variant, "names": ", ".join(names)}
        yield Finding("MR304", ERROR, "unknown", values)
    elif variant and load.get("code") == "MR304":
        yield Finding(
            "MR304", ERROR, "unusable", {"variant": variant}, (load["error"],)
        )
    elif asked:
        listed = ", ".join(f"{name}={environ[name]}" for name in asked)
        yield Finding("MR304", INFO, "asked", {"listed": listed})
    else:
        yield Finding("MR304", OK, "nothing", {})


def _imported(machine: Machine) -> Iterator[Finding]:
    for name, path in machine.imported.items():
        if not is_standin(machine, path):
            yield Finding("MR305", INFO, "other", {"name": name}, (path,))
            return
    yield Finding("MR305", OK, "nothing", {})
