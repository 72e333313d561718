# SPDX-License-Identifier: Apache-2.0
"""parts.py - what fabricated machines are made of. Each function returns a part: a
function that adds something to a Builder. A layout comes first, as others look where
site-packages is.
"""

import os
import re
from pathlib import Path

import mambarun

from .elf_writer import elf

ROOT = Path(__file__).resolve().parents[3]
LIB = "/usr/lib/x86_64-linux-gnu"
NEW, OLD = "NSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE", "Ss"
STRING = {"TRUE": NEW, "FALSE": OLD}


# ---- layouts ----------------------------------------------------------------------


def conda(name="mamba", python=(3, 10, 13)):
    def part(b):
        b.version, b.prefix = python, f"/opt/conda/envs/{name}"
        b.file(f"{b.prefix}/conda-meta/history")
        b.environ["CONDA_PREFIX"] = b.prefix
        b.program(f"{b.prefix}/bin/{b.python}")
        b.link(f"{b.prefix}/bin/python", b.python)
        b.file(f"{b.prefix}/lib/libstdc++.so.6", elf(soname="libstdc++.so.6"))
        b.folder(b.site)

    return part


def venv(python=(3, 11, 7)):
    def part(b):
        b.version, b.prefix = python, "/home/ada/project/.venv"
        b.fields["base_prefix"] = "/usr"
        b.environ["VIRTUAL_ENV"] = b.prefix
        b.file(f"{b.prefix}/pyvenv.cfg", "home = /usr/bin\n")
        b.program(f"/usr/bin/{b.python}")
        b.link(f"{b.prefix}/bin/python", f"/usr/bin/{b.python}")
        b.fields["executable"] = f"{b.prefix}/bin/python"
        b.folder(b.site)

    return part


def system(python=(3, 10, 12)):
    """The distribution's Python, packages in the user's own folder."""

    def part(b):
        b.version, b.prefix = python, "/usr"
        b.program(f"/usr/bin/{b.python}")
        b.link("/usr/bin/python3", b.python)
        b.folder(b.site)

    return part


# ---- mambarun itself --------------------------------------------------------------


def installed(version=None, standins=mambarun.PROMISED, library=None):
    """As pip puts it there. library: the version that libmambarun has."""

    def part(b):
        number = version or mambarun.__version__
        files = {"mambarun/__init__.py": "", "mambarun/_lib/libmambarun.so": elf()}
        for name in standins:
            files[f"{name}/__init__.py"] = "from mambarun import _hook\n"
        b.package("mambarun", number, files)
        b.facts.update(
            stage="done",
            ended=None,
            stderr="",
            library={
                "path": f"{b.site}/mambarun/_lib/libmambarun.so",
                "version": library or mambarun.__version__,
            },
            cpu={"name": "Intel(R) Xeon(R) Gold 6348 CPU @ 2.60GHz", "count": 56},
            cpu_variants=_cpu_variants(),
            cpu_variant="cpu_avx512",
        )

    return part


def _rows(kind):
    text = (ROOT / "libmambarun" / "manifest.def").read_text()
    for row in re.findall(rf"^{kind}\((.*)\)$", text, re.M):
        yield [piece.strip() for piece in row.split(",")]


def _cpu_variants():
    own, cuda = _rows("MBR_CPU_VARIANT"), _rows("MBR_CUDA_VARIANT")
    return [
        *(_variant(name, "cpu", True, "this CPU has it") for name, _ in own),
        *(
            _variant(name, kind, False, "for CUDA devices")
            for name, _, kind, *_ in cuda
        ),
    ]


def _variant(name, mode, usable, reason):
    path = f"/mambarun/_lib/libmambarun_{name}.so"
    return dict(name=name, mode=mode, usable=usable, reason=reason, path=path)


def gpu_variants(capability, api, absent=(), asked=None):
    """Verdicts as libmambarun gives them, from the rows of the manifest."""
    out = []
    for name, toolkit, kind, arch, least, last in _rows("MBR_CUDA_VARIANT"):
        if asked not in (None, name):
            verdict = False, f"not asked for: MAMBARUN_VARIANT is {asked}"
        elif name in absent:
            verdict = False, "not installed"
        elif not int(least) <= capability <= int(last):
            verdict = False, f"needs sm_{arch}, device is sm_{capability}"
        elif api < 1000 * int(toolkit):
            verdict = False, f"needs driver API {toolkit}.0"
        else:
            verdict = True, "the device has it"
        out.append(_variant(name, kind, *verdict))
    return out


# ---- driver and GPUs --------------------------------------------------------------


NO_FILE = "{}.so.1: cannot open shared object file: No such file or directory"


def no_gpu():
    why = f"no NVIDIA driver: {NO_FILE.format('libcuda')}"

    def part(b):
        b.facts.update(
            nvml={"error": NO_FILE.format("libnvidia-ml")},
            driver={"path": None, "why": why, "api": 0},
            cuda={"error": why, "code": "MR102"},
            gpus=[],
        )

    return part


def gpu(name="NVIDIA A800 80GB PCIe", capability=80, memory=80, **more):
    return {
        "name": name,
        "capability": capability,
        "memory": memory << 30,
        "multiprocessors": 108,
        "integrated": False,
        "mode": 0,
        **more,
    }


def driver(
    release="535.104.12",
    api=12020,
    gpus=None,
    folder=LIB,
    kernel=True,
    absent=(),
    asked=None,
):
    """NVIDIA's driver, its libraries and device nodes, and GPUs that answer."""
    gpus = [gpu()] if gpus is None else gpus

    def part(b):
        if kernel:
            b.file(
                "/proc/driver/nvidia/version",
                f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {release}  Sat\n",
            )
        for node in ("nvidiactl", "nvidia0", "nvidia-uvm"):
            b.file(f"/dev/{node}")
        for stem in ("libcuda", "libnvidia-ml", "libnvidia-ptxjitcompiler"):
            library(f"{folder}/{stem}.so.{release}", f"{stem}.so.1")(b)
            b.link(f"{folder}/{stem}.so.1", f"{stem}.so.{release}")
        b.link(f"{folder}/libcuda.so", "libcuda.so.1")
        b.facts.update(
            nvml={
                "driver": release,
                "gpus": [g["name"] for g in gpus],
                "mig": False,
            },
            driver={"path": f"{folder}/libcuda.so.1", "why": "", "api": api},
            cuda={},
            gpus=[
                {**g, "variants": gpu_variants(g["capability"], api, absent, asked)}
                for g in gpus
            ],
        )

    return part


def said(**facts):
    """Other facts from the child: the given ones replace those of the parts before."""

    def part(b):
        b.facts.update(facts)

    return part


def died(stage, ended, stderr=""):
    """The child ended early: what comes after that stage it did not say."""
    order = ("library", "cpu_variants", "cpu_variant", "nvml", "driver", "cuda", "gpus")
    said_before = {"libnvidia-ml.so.1": 3, "libcuda.so.1": 4, "cuInit": 5}

    def part(b):
        for name in order[said_before.get(stage, 0) :]:
            b.facts.pop(name, None)
        b.facts.update(stage=stage, ended=ended, stderr=stderr)

    return part


# ---- torch ------------------------------------------------------------------------


def symbols(version, abi):
    """What a torch of that version and ABI exports, as far as it matters here."""
    number = tuple(map(int, version.split("+")[0].split(".")[:2]))
    index = "a" if number >= (2, 1) else "i"  # DeviceIndex grew a type of its own
    string = STRING[abi]
    return {
        "libc10.so": [
            f"_ZN3c105ErrorC2ENS_14SourceLocationE{string}",
            f"_ZN3c106detail14torchCheckFailEPKcS2_jRK{string}",
            "_ZN3c104impl23ExcludeDispatchKeyGuardC1ENS_14DispatchKeySetE",
        ],
        "libc10_cuda.so": [
            f"_ZN3c104cuda9SetDeviceE{index}",
            f"_ZN3c104cuda29c10_cuda_check_implementationEiPKcS2_{index}b",
        ],
        "libtorch_cpu.so": [
            "_ZN2at4_ops10zeros_like4callERKNS_6TensorE",
            "_ZNK2at10TensorBase8data_ptrIfEEPT_v",
        ],
        "libtorch_python.so": [
            "THPVariableClass",
            f"_ZN5torch8autograd4wrapE{string}",
        ],
    }


def torch(
    version="2.2.0",
    cuda="12.1",
    abi="FALSE",
    cudnn=True,
    cudart=None,
    dist=True,
    tag="DT_RUNPATH",
    site=None,
    hip=None,
    bundled=False,
):
    """torch as its wheels are: with what it needs in site-packages/nvidia, or bundled
    in torch/lib as up to 1.13. dist: version of the metadata, if it differs."""

    def part(b):
        folder = f"{site or b.site}/torch"
        numbers = [int(n) for n in version.split(".")[:2]]
        cudnn_version = cudnn
        if cudnn is True:
            cudnn_version = "9.1.0.70" if numbers >= [2, 4] else "8.9.2.26"
        major = cuda.split(".")[0] if cuda else ""
        local = f"+cu{cuda.replace('.', '')}" if cuda else "+cpu"
        local = "+rocm6.0" if hip else local
        b.package("torch", version, {"torch/__init__.py": ""}, site=site)
        if dist is not True:
            info = b.at(f"{site or b.site}/torch-{version}.dist-info")
            info.rename(info.with_name(f"torch-{dist}.dist-info"))
        b.file(
            f"{folder}/version.py",
            f"__version__ = '{version}{local}'\ndebug = False\n"
            f"cuda = {cuda or None!r}\nhip = {hip!r}\n",
        )
        b.file(
            f"{folder}/utils/cpp_extension.py",
            "    command = ['ninja', '-v']\n    env = os.environ.copy()\n",
        )
        needed = [f"libcudart.so.{_soname(cuda)}"] if cuda else []
        if cuda and cudnn:
            needed.append(f"libcudnn.so.{cudnn_version.split('.')[0]}")
        where = "$ORIGIN"
        if not bundled:
            nvidia = "$ORIGIN/../../nvidia"
            where = f"{nvidia}/cuda_runtime/lib:{nvidia}/cudnn/lib:$ORIGIN"
        search = {"rpath" if tag == "DT_RPATH" else "runpath": where}
        exported = symbols(version, abi)
        names = ["libc10.so", "libtorch.so", "libtorch_cpu.so", "libtorch_python.so"]
        names += ["libtorch_cuda.so", "libc10_cuda.so"] if cuda else []
        for name in (*names, "libtorch_global_deps.so"):
            loads = name.startswith(("libtorch_cuda", "libtorch_global"))
            data = elf(
                soname=name,
                needed=[*(needed if loads else []), "libc.so.6"],
                defined=exported.get(name, ()),
                **search,
            )
            b.file(f"{folder}/lib/{name}", data)
        if not cuda:
            return
        if bundled:
            for name in needed:
                library(f"{folder}/lib/{name}", name)(b)
            return
        versions = [cudart or cuda + ".105", cudnn_version]
        for place, name, found in zip(("cuda_runtime", "cudnn"), needed, versions):
            wheel(place, name, found, cuda=major, site=site)(b)

    return part


def _soname(cuda):
    return "11.0" if cuda.startswith("11.") else cuda.split(".")[0]


def conda_torch(version="2.2.0", cuda="12.1", abi="FALSE"):
    """pytorch's conda package: libraries in the environment's own lib."""

    def part(b):
        torch(version, cuda, abi, cudnn=None, bundled=True)(b)
        b.at(f"{b.site}/torch/lib/libcudart.so.{_soname(cuda)}").unlink()
        for name in ("libtorch_global_deps.so", "libtorch_cuda.so"):
            b.file(
                f"{b.site}/torch/lib/{name}",
                elf(
                    soname=name,
                    needed=[f"libcudart.so.{_soname(cuda)}", "libcudnn.so.8"],
                    rpath="$ORIGIN:$ORIGIN/../../../..",
                ),
            )
        b.file(f"{b.prefix}/conda-meta/pytorch-{version}-py3.10_cuda{cuda}.json", "{}")
        library(f"{b.prefix}/lib/libcudnn.so.8.9.2", "libcudnn.so.8")(b)
        b.link(f"{b.prefix}/lib/libcudnn.so.8", "libcudnn.so.8.9.2")
        full = f"libcudart.so.{cuda}.105"
        library(f"{b.prefix}/lib/{full}", f"libcudart.so.{_soname(cuda)}")(b)
        b.link(f"{b.prefix}/lib/libcudart.so.{_soname(cuda)}", full)

    return part


def library(path, soname=None, **more):
    """A shared library, at any place."""

    def part(b):
        place = path.format(site=b.site, prefix=b.prefix)
        b.file(place, elf(soname=soname or path.rpartition("/")[2], **more))

    return part


def wheel(folder, name, version, cuda=None, site=None):
    """One of NVIDIA's wheels: the library and the metadata that has the version."""

    def part(b):
        where = site or b.site
        major = cuda or version.split(".")[0]
        files = {f"nvidia/{folder}/lib/{name}": elf(soname=name)}
        b.package(f"nvidia_{folder}_cu{major}", version, files, site=where)

    return part


def toolkit(version="12.1", folder=None, nvcc=True, libraries=True):
    def part(b):
        where = folder or f"/usr/local/cuda-{version}"
        b.file(f"{where}/version.json", f'{{"cuda": {{"version": "{version}.1"}}}}')
        if nvcc:
            b.program(f"{where}/bin/nvcc")
        if libraries:
            for stem, number in (("cudart", _soname(version)), ("nvJitLink", "12")):
                name, full = f"lib{stem}.so.{number}", f"lib{stem}.so.{version}.105"
                library(f"{where}/lib64/{full}", name)(b)
                b.link(f"{where}/lib64/{name}", full)

    return part


# ---- modules and packages ---------------------------------------------------------

MODULE_NEEDS = ("libc10.so", "libtorch.so", "libtorch_cpu.so", "libtorch_python.so")
MODULE_CUDA = ("libc10_cuda.so", "libtorch_cuda.so")
GLIBC_2_17 = {"libc.so.6": ["GLIBC_2.2.5", "GLIBC_2.17"]}


def module(
    name="selective_scan_cuda",
    *,
    built="2.2.0",
    abi="FALSE",
    cuda="12.1",
    dist=None,
    site=None,
    suffix=None,
    needs=(),
    glibc=None,
    machine="x86_64",
    data=None,
    extra=(),
    architectures=("sm_80",),
):
    """A compiled extension: by default one that fits torch(). dist: (package, version)
    of the wheel that brought it. data: these bytes instead."""

    def part(b):
        exported = symbols(built, abi)
        wanted = [symbol for names in exported.values() for symbol in names]
        needed = [*MODULE_NEEDS, *MODULE_CUDA, f"libcudart.so.{_soname(cuda)}"]
        content = elf(
            machine=machine,
            needed=[*needed, *needs, "libstdc++.so.6", "libc.so.6"],
            undefined=[*wanted, *extra, "PyErr_SetString"],
            defined=[f"PyInit_{name}"],
            version_needs={"libc.so.6": glibc} if glibc else GLIBC_2_17,
            cuda=architectures,
        )
        file = name + (b.suffix if suffix is None else suffix)
        content = content if data is None else data
        if dist is None:
            b.file(f"{site or b.site}/{file}", content)
            return
        package, version = dist
        stem = package.replace("-", "_")
        files = {f"{stem}/__init__.py": "", file: content}
        b.package(package, version, files, site=site)

    return part


def package(name, version, *files, site=None):
    def part(b):
        stem = name.replace("-", "_")
        listed = {f"{stem}/__init__.py": "", **{f: "" for f in files}}
        b.package(name, version, listed, site=site)

    return part


def upstream(mamba="2.2.4", conv="1.5.0.post8", triton=True):
    """The pure-Python halves, and what they import."""

    def part(b):
        if mamba:
            b.package(
                "mamba-ssm",
                mamba,
                {
                    "mamba_ssm/__init__.py": "",
                    "mamba_ssm/modules/mamba_simple.py": "class Mamba:\n    pass\n",
                },
            )
        if conv:
            new = tuple(int(n) for n in conv.split(".")[:3]) >= (1, 5, 1)
            files = {"causal_conv1d/__init__.py": ""}
            files.update({"causal_conv1d/cpp_functions.py": ""} if new else {})
            b.package("causal-conv1d", conv, files)
        b.package("einops", "0.8.0")
        if triton:
            b.package("triton", "2.2.0")

    return part


# ---- anything else ----------------------------------------------------------------


def env(**variables):
    def part(b):
        b.environ.update(variables)

    return part


def fields(**changed):
    """Other fields of Machine."""

    def part(b):
        b.fields.update(changed)

    return part


def user_site(b):
    """The user's own site-packages, before the environment's as Python has it."""
    site = f"{b.home}/.local/lib/{b.python}/site-packages"
    b.folder(site)
    b.before.append(site)


def file(path, content=""):
    return lambda b: b.file(path.format(site=b.site, prefix=b.prefix), content)


def folder(path):
    return lambda b: b.folder(path.format(site=b.site, prefix=b.prefix))


def link(path, target):
    return lambda b: b.link(path.format(site=b.site, prefix=b.prefix), target)


def program(path):
    return lambda b: b.program(path.format(site=b.site, prefix=b.prefix))


def pipe(path):
    """A named pipe, which nobody writes to: who opens it waits for ever."""

    def part(b):
        place = b.at(path.format(site=b.site, prefix=b.prefix, suffix=b.suffix))
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            place.unlink()
        os.mkfifo(str(place))

    return part


def closed(*paths):
    """Files and folders that their owner took all rights from."""

    def part(b):
        for path in paths:
            place = path.format(site=b.site, prefix=b.prefix, suffix=b.suffix)
            b.at(place).chmod(0)

    return part


def huge(b):
    """A terabyte that takes no room."""
    place = b.at(f"{b.site}/selective_scan_cuda{b.suffix}")
    place.write_bytes(elf(needed=["libc.so.6"]))
    os.truncate(str(place), 1 << 40)


def loops(b):
    """Links to themselves, wherever one may be followed; a folder that holds itself."""
    links = ("/srv/loop", "/usr/local/cuda", "/usr/lib64", b.site + "/mamba_ssm")
    for path in (*links, f"{b.site}/nvidia/loop", f"{b.site}/torchvision"):
        b.link(path, path.rpartition("/")[2])
    b.link(f"{b.site}/up", "..")
    b.before.append("/srv/loop")
    b.after += ["/srv/loop/deeper", f"{b.site}/up/site-packages/up/site-packages"]


def odd_names(b):
    """Names that are no text, and metadata whose names say nothing."""
    os.makedirs(os.fsencode(str(b.at(b.site))) + b"/\xff\xfe-1.0.dist-info")
    for name in ("-", "a-b-c", ".", "-..-"):
        b.file(f"{b.site}/{name}.dist-info/RECORD", b"\0\xff,,\n")
    folder = os.fsdecode(b"/data/\xff\xfe")
    b.before.append(folder)
    module(site=folder, abi="TRUE")(b)


def gone(path):
    return lambda b: b.at(path.format(site=b.site, prefix=b.prefix)).unlink()
