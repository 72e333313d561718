# SPDX-License-Identifier: Apache-2.0
"""rows.py - the fabricated machines: of what each is made, and what the check has to
say of it. Data only. The first is the machine of the hand-written installation guide
that mambarun started from.
"""

import re
from typing import NamedTuple

from . import parts as p
from .fakes import fake_driver


class Row(NamedTuple):
    """name; what it is made of; {code: worst status} of all findings that are neither
    ok nor skipped, beside those of the plain machine; {code: words of its fix}, the
    same in every language; the exit status."""

    name: str
    parts: tuple
    says: dict
    fixes: dict
    exit: int = 0


INFO, WARN, ERROR = "info", "warn", "error"
CU121_TRUE = "2.2.4+cu12torch2.2cxx11abiTRUE"
CONV_TRUE = "1.5.0.post8+cu12torch2.2cxx11abiTRUE"
NO_LIBCUDA = f"no NVIDIA driver: {p.NO_FILE.format('libcuda')}"


def machine(*more, layout=None, torch=None, driver=None, mambarun=None):
    """A machine on which all is well, and what is added to it."""
    return (
        layout or p.conda(),
        mambarun or p.installed(),
        torch or p.torch(),
        driver or p.driver(),
        *more,
    )


def refusal(status, code, name="CUDA_ERROR_FAKE", text="as the test says"):
    """The driver is there, and cuInit fails."""
    error = f"cannot use cuda:0: cuInit fails with {name} ({status}): {text}"
    return p.said(cuda={"error": error, "code": code}, gpus=[])


def without_libcuda(why=NO_LIBCUDA, **more):
    driver = {"path": None, "why": why, "api": 0}
    return p.said(driver=driver, cuda={"error": why, "code": "MR102"}, gpus=[], **more)


def foreign(dist=("mamba-ssm", "2.2.4"), **how):
    """A module that a wheel brought, with what its package imports."""

    def part(b):
        p.module(dist=dist, **how)(b)
        p.package("einops", "0.8.0")(b)
        p.package("triton", "2.2.0")(b)

    return part


XPU = "__version__ = '2.5.1+xpu'\ncuda = None\nhip = None\nxpu = '20240200'\n"
BROKEN = {"MR302": WARN}
REMOVE = {"MR302": "pip uninstall mamba-ssm"}

# ---- the guide's machine ----------------------------------------------------------

GUIDE = Row(
    "the guide's: Debian 10, both wheels of the wrong ABI, LD_LIBRARY_PATH",
    machine(
        p.module(abi="TRUE", dist=("mamba-ssm", CU121_TRUE)),
        p.module("causal_conv1d_cuda", abi="TRUE", dist=("causal-conv1d", CONV_TRUE)),
        p.package("einops", "0.8.0"),
        p.package("triton", "2.2.0"),
        p.package("numpy", "1.24.4"),
        p.toolkit("12.1", nvcc=False),
        p.file("/.dockerenv"),
        p.env(LD_LIBRARY_PATH="/usr/local/cuda-12.1/lib64"),
        p.fields(libc=("glibc", "2.28")),
    ),
    {
        "MR302": WARN,
        "MR504": WARN,
        "MR004": INFO,
        "MR206": INFO,
        "MR501": INFO,
    },
    {"MR302": "pip uninstall", "MR504": "LD_LIBRARY_PATH"},
)

# ---- Pythons and torches ----------------------------------------------------------

PLAIN = Row("plain: conda, torch 2.2 from PyPI, an A800", machine(), {}, {})
PYTHONS = (
    Row("a virtual environment", machine(layout=p.venv()), {}, {}),
    Row("the distribution's Python", machine(layout=p.system()), {}, {}),
    Row("conda's own pytorch", machine(torch=p.conda_torch()), {}, {}),
    Row(
        "torch 1.12 with everything in its own folder",
        machine(torch=p.torch("1.12.1", "11.3", cudnn="8.3.2", bundled=True)),
        {},
        {},
    ),
    Row(
        "CUDA_HOME and PATH of a toolkit that nobody needs",
        machine(
            p.toolkit("12.1"),
            p.env(CUDA_HOME="/usr/local/cuda-12.1"),
            p.program("/usr/bin/g++"),
        ),
        {"MR501": INFO},
        {},
    ),
    Row(
        "PATH has another Python first",
        machine(
            p.program("/opt/other/bin/python"),
            lambda b: b.first_on_path.append("/opt/other/bin"),
        ),
        {"MR022": WARN},
        {"MR022": "python -m mambarun"},
    ),
    Row(
        "free-threaded Python 3.13",
        machine(p.fields(free_threaded=True), layout=p.conda(python=(3, 13, 1))),
        {},
        {},
    ),
    Row(
        "Python 3.7",
        machine(layout=p.conda(python=(3, 7, 16))),
        {"MR020": ERROR},
        {"MR020": "python"},
        1,
    ),
    Row("32-bit Python", machine(p.fields(bits=32)), {"MR020": ERROR}, {}, 1),
    Row("PyPy", machine(p.fields(implementation="pypy")), {"MR020": WARN}, {}),
    Row(
        "start-up files not read, as under -S",
        machine(p.fields(hook=None, start_files_read=False)),
        {"MR021": WARN},
        {},
    ),
    Row(
        "the finder is not installed",
        machine(p.fields(hook=None)),
        {"MR021": WARN},
        {"MR021": "mambarun.install()"},
    ),
    Row(
        "the finder is the third one",
        machine(p.fields(hook=2)),
        {"MR021": INFO},
        {},
    ),
    Row(
        "neither finder nor stand-ins",
        machine(p.fields(hook=None), mambarun=p.installed(standins=())),
        {"MR021": WARN, "MR301": ERROR},
        {"MR021": "pip install", "MR301": "pip install"},
        1,
    ),
    Row(
        "pip on PATH is another Python's",
        machine(
            p.file("/opt/other/bin/pip", "#!/opt/other/bin/python3.9\nimport pip\n"),
            lambda b: b.at("/opt/other/bin/pip").chmod(0o755),
            lambda b: b.first_on_path.append("/opt/other/bin"),
        ),
        {"MR022": WARN},
        {"MR022": "python -m pip"},
    ),
)

TORCHES = (
    Row(
        "no torch, on a machine with a GPU",
        machine(torch=p.folder("/tmp")),
        {"MR201": ERROR},
        {"MR201": "pip install torch"},
        1,
    ),
    Row(
        "no torch, no GPU",
        machine(torch=p.folder("/tmp"), driver=p.no_gpu()),
        {"MR101": WARN, "MR201": WARN},
        {"MR201": "pip install torch"},
    ),
    Row(
        "CPU-only torch on a machine with a GPU",
        machine(torch=p.torch(cuda=None)),
        {"MR201": WARN},
        {"MR201": "--index-url https://download.pytorch.org/whl/cu12"},
    ),
    Row(
        "CPU-only torch and no GPU",
        machine(torch=p.torch(cuda=None), driver=p.no_gpu()),
        {"MR101": WARN},
        {},
    ),
    Row(
        "torch for ROCm",
        machine(torch=p.torch(cuda=None, hip="6.0.32830"), driver=p.no_gpu()),
        {"MR003": ERROR, "MR101": WARN},
        {"MR003": "pip install"},
        1,
    ),
    Row(
        "half-upgraded torch: version.py is newer than the metadata",
        machine(torch=p.torch("2.3.1", dist="2.2.0")),
        {"MR203": WARN},
        {"MR203": "pip install --force-reinstall torch"},
    ),
    Row(
        "two torches' metadata in one folder",
        machine(p.package("torch", "2.1.2")),
        {"MR203": WARN},
        {"MR203": "pip uninstall torch && pip install torch"},
    ),
    Row(
        "a torch of pip install --user shadows the environment's",
        machine(
            p.user_site,
            lambda b: p.torch("2.5.1", "12.1", site=b.before[-1])(b),
        ),
        {"MR203": WARN},
        {"MR203": "PYTHONNOUSERSITE=1"},
    ),
    Row(
        "torch of CUDA 13 on a driver of 12.2",
        machine(torch=p.torch("2.9.0", "13.0", "TRUE", cudnn="9.13.0.50")),
        {"MR204": ERROR},
        {"MR204": "cu12"},
        1,
    ),
    Row(
        "torch of CUDA 13 on a Tesla V100",
        machine(
            torch=p.torch("2.9.0", "13.0", "TRUE", cudnn="9.13.0.50"),
            driver=p.driver("580.65.06", 13000, [p.gpu("Tesla V100-SXM2", 70, 32)]),
        ),
        {"MR205": WARN},
        {"MR205": "cu12"},
    ),
    Row(
        "torch 2.2 on an RTX 5090",
        machine(
            driver=p.driver("580.65.06", 13000, [p.gpu("GeForce RTX 5090", 120, 32)])
        ),
        {"MR205": WARN},
        {"MR205": "pip install"},
    ),
    Row(
        "torch of CUDA 12 whose runtime package was removed",
        machine(p.gone("{site}/nvidia/cuda_runtime/lib/libcudart.so.12")),
        {"MR206": WARN},
        {"MR206": "pip install"},
    ),
    Row(
        "cuDNN 9 where torch wants 8",
        machine(
            p.gone("{site}/nvidia/cudnn/lib/libcudnn.so.8"),
            p.wheel("cudnn", "libcudnn.so.9", "9.1.0.70", cuda="12"),
        ),
        {"MR210": WARN},
        {"MR210": "pip install"},
    ),
    Row(
        "cuDNN 8 and 9 in one environment",
        machine(p.wheel("cudnn", "libcudnn.so.9", "9.1.0.70", cuda="11")),
        {"MR210": WARN},
        {"MR210": "pip uninstall nvidia-cudnn-cu11"},
    ),
    Row(
        "torch's folder is a link that leads nowhere",
        machine(
            lambda b: b.at(f"{b.site}/torch").rename(b.at("/tmp/moved")),
            p.link("{site}/torch", "/data/torch"),
            torch=lambda b: (b.folder("/tmp"), p.torch()(b)),
        ),
        {"MR201": ERROR},
        {"MR201": "pip install torch"},
        1,
    ),
    Row(
        "torch for Intel's GPUs",
        machine(
            p.file("{site}/torch/version.py", XPU),
            torch=p.torch("2.5.1", cuda=None),
            driver=p.no_gpu(),
        ),
        {"MR003": ERROR, "MR101": WARN},
        {"MR003": "pip install"},
        1,
    ),
    Row(
        "torch 1.11",
        machine(torch=p.torch("1.11.0", "11.3", cudnn="8.2.0", bundled=True)),
        {"MR201": WARN},
        {"MR201": "pip install"},
    ),
    Row(
        "a torch that has the runtime and cuDNN inside its own libraries",
        machine(
            p.library("{site}/torch/lib/libtorch_global_deps.so"),
            p.library("{site}/torch/lib/libtorch_cuda.so"),
        ),
        {},
        {},
    ),
    Row(
        "the runtime of CUDA 11 is in the environment, too",
        machine(p.wheel("cuda_runtime", "libcudart.so.11.0", "11.8.89")),
        {"MR206": WARN},
        {"MR206": "pip uninstall nvidia-cuda-runtime-cu11"},
    ),
    Row(
        "the runtime of CUDA 13 is in a toolkit, too",
        machine(p.toolkit("13.0")),
        {"MR206": INFO, "MR501": INFO},
        {},
    ),
    Row(
        "a newer cuDNN 8 on LD_LIBRARY_PATH",
        machine(
            p.library("/opt/cudnn/lib/libcudnn.so.8.9.7", "libcudnn.so.8"),
            p.link("/opt/cudnn/lib/libcudnn.so.8", "libcudnn.so.8.9.7"),
            p.env(LD_LIBRARY_PATH="/opt/cudnn/lib"),
        ),
        {"MR210": INFO, "MR504": WARN},
        {"MR504": "LD_LIBRARY_PATH"},
    ),
    Row(
        "torch of CUDA 12 with the libraries of a torch of CUDA 11",
        machine(
            p.library(
                "{site}/torch/lib/libtorch_global_deps.so",
                needed=["libcudart.so.11.0", "libcudnn.so.9"],
            ),
            p.gone("{site}/nvidia/cuda_runtime/lib/libcudart.so.12"),
            p.gone("{site}/nvidia/cudnn/lib/libcudnn.so.8"),
            p.wheel("cuda_runtime", "libcudart.so.11.0", "11.8.89"),
            p.wheel("cudnn", "libcudnn.so.9", "9.1.0.70", cuda="11"),
        ),
        {"MR206": WARN, "MR210": WARN},
        {"MR206": "pip install", "MR210": "pip install"},
    ),
)

# ---- modules ----------------------------------------------------------------------

MODULES = (
    Row(
        "a leftover of the other ABI",
        machine(foreign(abi="TRUE")),
        BROKEN,
        REMOVE,
    ),
    Row(
        "a leftover of the other ABI, of an upstream wheel for torch 1.13",
        machine(
            foreign(
                built="1.13.0", dist=("mamba-ssm", "2.2.2+cu11torch1.13cxx11abiFALSE")
            )
        ),
        BROKEN,
        REMOVE,
    ),
    Row(
        "a leftover built for an older torch",
        machine(foreign(built="2.0.1")),
        BROKEN,
        REMOVE,
    ),
    Row("a leftover of CUDA 11", machine(foreign(cuda="11.8")), BROKEN, REMOVE),
    Row(
        "a leftover that wants GLIBC 2.32",
        machine(
            foreign(glibc=["GLIBC_2.17", "GLIBC_2.32"]),
            p.fields(libc=("glibc", "2.28")),
        ),
        BROKEN,
        REMOVE,
    ),
    Row(
        "a leftover for aarch64",
        machine(foreign(machine="aarch64")),
        BROKEN,
        REMOVE,
    ),
    Row(
        "a leftover that needs a library torch no longer has",
        machine(foreign(needs=["libtorch_cuda_cu.so"])),
        BROKEN,
        REMOVE,
    ),
    Row(
        "a leftover that needs a library from nowhere",
        machine(foreign(needs=["libavcodec.so.58"])),
        BROKEN,
        REMOVE,
    ),
    Row(
        "a leftover cut off by a full disk",
        machine(foreign(data=p.elf(soname="x", needed=["libc.so.6"])[:150])),
        BROKEN,
        REMOVE,
    ),
    Row(
        "a leftover that is a web page",
        machine(p.module(data=b"<!DOCTYPE html>" * 20)),
        BROKEN,
        {"MR302": "rm "},
    ),
    Row("an empty leftover", machine(p.module(data=b"")), BROKEN, {"MR302": "rm "}),
    Row(
        "a leftover that is a link to a removed build",
        machine(
            lambda b: b.link(
                f"{b.site}/selective_scan_cuda{b.suffix}", "/tmp/build/gone.so"
            )
        ),
        {"MR302": INFO},
        {"MR302": "rm "},
    ),
    Row(
        "a leftover of Python 3.9",
        machine(foreign(suffix=".cpython-39-x86_64-linux-gnu.so")),
        {"MR302": INFO},
        {},
    ),
    Row(
        "a leftover, and no torch",
        machine(foreign(), torch=p.folder("/tmp"), driver=p.no_gpu()),
        {"MR101": WARN, "MR201": WARN, "MR302": WARN},
        REMOVE,
    ),
    Row(
        "a working module of another supplier",
        machine(foreign(dist=("mamba-ssm", "2.2.4+cu12torch2.2cxx11abiFALSE"))),
        {"MR301": INFO},
        {},
    ),
    Row(
        "VMamba's own working module",
        machine(
            p.module("selective_scan_cuda_oflex", dist=("selective-scan", "0.0.2"))
        ),
        {"MR301": INFO},
        {},
    ),
    Row(
        "a working module that hides another",
        machine(
            p.folder("/data/packages"),
            lambda b: b.after.append("/data/packages"),
            p.module(),
            p.module(site="/data/packages"),
        ),
        {"MR301": INFO, "MR303": WARN},
        {"MR303": "MAMBARUN_PREFER=ours"},
    ),
    Row(
        "without the finder a broken module earlier on the path wins",
        machine(
            p.folder("/data/packages"),
            lambda b: b.before.append("/data/packages"),
            p.module(site="/data/packages", abi="TRUE"),
            p.fields(hook=None),
        ),
        {"MR021": WARN, "MR301": ERROR, "MR302": ERROR},
        {"MR302": "rm "},
        1,
    ),
    Row(
        "mamba-ssm of pip install --user",
        machine(
            p.user_site,
            lambda b: foreign(
                dist=("mamba-ssm", "2.2.2"), abi="TRUE", site=b.before[-1]
            )(b),
        ),
        {"MR302": WARN, "MR303": WARN},
        {"MR303": "pip uninstall mamba-ssm"},
    ),
    Row(
        "started inside a clone of mamba",
        machine(
            p.file("/work/setup.py"),
            p.file("/work/mamba_ssm/__init__.py"),
            p.package("einops", "0.8.0"),
            p.package("triton", "2.2.0"),
        ),
        {"MR303": WARN},
        {"MR303": "cd "},
    ),
    Row(
        "a build folder in the current one",
        machine(
            p.file("/work/setup.py"),
            p.file(
                "/work/build/lib.linux-x86_64-cpython-310/"
                "selective_scan_cuda.cpython-310-x86_64-linux-gnu.so",
                p.elf(),
            ),
        ),
        {"MR303": INFO},
        {},
    ),
    Row(
        "an editable install",
        machine(p.file("{site}/__editable__.mamba_ssm-2.2.4.pth", "/work\n")),
        {"MR303": INFO},
        {},
    ),
    Row(
        "an .egg on easy-install.pth",
        machine(
            p.file(
                "{site}/easy-install.pth",
                "./selective_scan-0.0.2-py3.10-linux-x86_64.egg\n",
            )
        ),
        {"MR303": INFO},
        {},
    ),
    Row(
        "MAMBARUN_DISABLE=1 and no other module",
        machine(p.env(MAMBARUN_DISABLE="1")),
        {"MR301": INFO, "MR304": INFO, "MR508": INFO},
        {},
    ),
    Row(
        "MAMBARUN_DISABLE leaves the name to a broken module",
        machine(p.env(MAMBARUN_DISABLE="selective_scan_cuda"), foreign(abi="TRUE")),
        {"MR301": ERROR, "MR302": ERROR, "MR304": INFO, "MR508": INFO},
        {"MR302": "pip uninstall mamba-ssm"},
        1,
    ),
    Row(
        "MAMBARUN_PREFER=ours beside a working module",
        machine(p.env(MAMBARUN_PREFER="ours"), p.module()),
        {"MR304": INFO, "MR508": INFO},
        {},
    ),
    Row(
        "MAMBARUN_VARIANT names none",
        machine(p.env(MAMBARUN_VARIANT="cuda12_sm81")),
        {"MR304": ERROR, "MR508": INFO},
        {"MR304": "unset MAMBARUN_VARIANT"},
        1,
    ),
    Row(
        "a working module without code for this GPU",
        machine(foreign(architectures=("sm_90",))),
        {"MR301": INFO, "MR302": WARN},
        {"MR302": "MAMBARUN_PREFER=ours"},
    ),
    Row(
        "a working module without code for this GPU, but with PTX",
        machine(foreign(architectures=("sm_70", "compute_70"))),
        {"MR301": INFO},
        {},
    ),
    Row(
        "without the finder a working module earlier on the path",
        machine(
            p.folder("/data/packages"),
            lambda b: b.before.append("/data/packages"),
            p.module(site="/data/packages"),
            p.fields(hook=None),
        ),
        {"MR021": WARN, "MR301": INFO},
        {},
    ),
    Row(
        "MAMBARUN_DISABLE leaves the name to a working module",
        machine(p.env(MAMBARUN_DISABLE="1"), p.module()),
        {"MR301": INFO, "MR304": INFO, "MR508": INFO},
        {},
    ),
    Row(
        "MAMBARUN_VARIANT names one that this CPU has not",
        machine(
            p.env(MAMBARUN_VARIANT="cpu_avx512"),
            p.said(
                cpu_variant=None,
                cpu_load={"error": "cpu_avx512 needs AVX512", "code": "MR304"},
            ),
        ),
        {"MR304": ERROR, "MR508": INFO},
        {"MR304": "unset MAMBARUN_VARIANT"},
        1,
    ),
    Row(
        "another module is imported already",
        machine(
            p.module(),
            lambda b: b.fields.update(
                imported={"selective_scan_cuda": f"{b.site}/selective_scan_cuda.so"}
            ),
        ),
        {"MR301": INFO, "MR305": INFO},
        {},
    ),
    Row(
        "a working module, and no stand-ins",
        machine(p.module(), p.fields(hook=None), mambarun=p.installed(standins=())),
        {"MR021": WARN, "MR301": ERROR},
        {"MR301": "pip install"},
        1,
    ),
)

# ---- packages above ---------------------------------------------------------------

PACKAGES = (
    Row("mamba-ssm and causal-conv1d without kernels", machine(p.upstream()), {}, {}),
    Row(
        "mamba-ssm 2.2.6 with a causal-conv1d too old for it",
        machine(p.upstream("2.2.6", "1.5.0.post8"), torch=p.torch("2.5.1", "12.1")),
        {"MR402": WARN},
        {"MR402": "mambarun-check --explain MR401"},
    ),
    Row(
        "a causal-conv1d too new for torch 2.2",
        machine(p.upstream("2.2.4", "1.6.1")),
        {"MR402": WARN},
        {"MR402": "mambarun-check --explain MR401"},
    ),
    Row(
        "Vim's own mamba_ssm",
        machine(
            p.upstream("1.1.1", "1.1.1"),
            p.file(
                "{site}/mamba_ssm/modules/mamba_simple.py",
                "class Mamba:\n    def __init__(self, bimamba_type='none'): ...\n",
            ),
        ),
        {"MR403": INFO},
        {},
    ),
    Row(
        "mamba-ssm 2.2.4 with transformers 5",
        machine(p.upstream(), p.package("transformers", "5.1.0")),
        {"MR404": WARN},
        {"MR404": "pip install"},
    ),
    Row(
        "mamba-ssm 2.3.2 without what Mamba-3 imports",
        machine(p.upstream("2.3.2", "1.6.1"), torch=p.torch("2.5.1", "12.1")),
        {"MR405": WARN},
        {"MR405": "mambarun-check --explain MR401"},
    ),
    Row(
        "mamba-ssm 2.3.2 with a tvm-ffi that breaks tilelang",
        machine(
            p.upstream("2.3.2", "1.6.1"),
            p.package("tilelang", "0.1.8"),
            p.package("apache-tvm-ffi", "0.1.10"),
            p.package("quack-kernels", "0.2.1"),
            torch=p.torch("2.5.1", "12.1"),
        ),
        {"MR405": WARN},
        {"MR405": "0.1.9"},
    ),
    Row(
        "numpy 2 with torch 2.2",
        machine(p.package("numpy", "2.1.0")),
        {"MR406": WARN},
        {"MR406": "numpy<2"},
    ),
    Row(
        "mamba-ssm without triton",
        machine(p.upstream(triton=False)),
        {"MR406": WARN},
        {"MR406": "pip install triton"},
    ),
    Row(
        "transformers without causal-conv1d",
        machine(p.upstream("2.3.1", None), p.package("transformers", "4.51.0")),
        {"MR410": INFO},
        {},
    ),
    Row(
        "mamba-ssm 2.3.2 with all that Mamba-3 imports",
        machine(
            p.upstream("2.3.2", "1.6.1"),
            p.package("tilelang", "0.1.8"),
            p.package("apache-tvm-ffi", "0.1.9"),
            p.package("quack-kernels", "0.2.1"),
            torch=p.torch("2.5.1", "12.1"),
        ),
        {},
        {},
    ),
)

NO_LIBRARIES = (
    *(
        p.gone(f"{p.LIB}/{stem}.so.{end}")
        for stem in ("libcuda", "libnvidia-ml", "libnvidia-ptxjitcompiler")
        for end in ("1", "535.104.12")
    ),
    p.gone(f"{p.LIB}/libcuda.so"),
    without_libcuda(nvml={"error": p.NO_FILE.format("libnvidia-ml")}),
)

# ---- driver and GPUs --------------------------------------------------------------

DRIVERS = (
    Row("no driver", machine(driver=p.no_gpu()), {"MR101": WARN}, {}),
    Row(
        "a container without the compute capability",
        machine(p.file("/.dockerenv"), without_libcuda()),
        {"MR004": INFO, "MR103": ERROR},
        {"MR103": "NVIDIA_DRIVER_CAPABILITIES=compute,utility"},
        1,
    ),
    Row(
        "libcuda.so.1 lies where no loader looks",
        machine(
            without_libcuda(nvml={"error": p.NO_FILE.format("libnvidia-ml")}),
            driver=p.driver(folder="/usr/local/nvidia/lib64"),
        ),
        {"MR102": ERROR},
        {"MR102": "/usr/local/nvidia/lib64"},
        1,
    ),
    Row(
        "libcuda.so.1 is a link to a removed driver",
        machine(
            p.gone(f"{p.LIB}/libcuda.so.535.104.12"),
            without_libcuda(nvml={"error": p.NO_FILE.format("libnvidia-ml")}),
        ),
        {"MR102": ERROR},
        {"MR102": "NVIDIA"},
        1,
    ),
    Row(
        "a driver of CUDA 10",
        machine(driver=p.driver("440.33.01", 10020)),
        {"MR102": ERROR, "MR120": ERROR, "MR204": ERROR},
        {"MR102": "NVIDIA", "MR120": "NVIDIA"},
        1,
    ),
    Row(
        "the toolkit's stub",
        machine(refusal(34, "MR105", "CUDA_ERROR_STUB_LIBRARY")),
        {"MR105": ERROR},
        {"MR105": "LD_LIBRARY_PATH"},
        1,
    ),
    Row(
        "a compat package that does not suit the GPU",
        machine(refusal(804, "MR106", "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE")),
        {"MR106": ERROR},
        {"MR106": "LD_LIBRARY_PATH"},
        1,
    ),
    Row(
        "the driver was updated and the machine not rebooted",
        machine(refusal(803, "MR106", "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH")),
        {"MR106": ERROR},
        {"MR106": "reboot"},
        1,
    ),
    Row(
        "a compat package that works",
        machine(
            driver=p.driver("535.104.12", 12040, folder="/usr/local/cuda-12.4/compat")
        ),
        {"MR106": INFO},
        {},
    ),
    Row(
        "no fabric manager",
        machine(refusal(802, "MR107", "CUDA_ERROR_SYSTEM_NOT_READY")),
        {"MR107": ERROR},
        {"MR107": "nvidia-fabricmanager"},
        1,
    ),
    Row(
        "a container without device nodes",
        machine(
            p.file("/.dockerenv"),
            p.gone("/dev/nvidia-uvm"),
            p.gone("/dev/nvidia0"),
            refusal(100, "MR109"),
        ),
        {"MR004": INFO, "MR108": ERROR, "MR109": WARN},
        {"MR108": "--gpus all"},
        1,
    ),
    Row(
        "nvidia-uvm is not loaded",
        machine(p.gone("/dev/nvidia-uvm"), refusal(999, "MR112")),
        {"MR108": ERROR, "MR112": ERROR},
        {"MR108": "nvidia-modprobe"},
        1,
    ),
    Row(
        "CUDA_VISIBLE_DEVICES is empty",
        machine(p.env(CUDA_VISIBLE_DEVICES=""), refusal(100, "MR109")),
        {"MR109": WARN},
        {"MR109": "unset CUDA_VISIBLE_DEVICES"},
    ),
    Row(
        "NVIDIA_VISIBLE_DEVICES=void",
        machine(p.env(NVIDIA_VISIBLE_DEVICES="void"), refusal(100, "MR109")),
        {"MR109": WARN},
        {"MR109": "docker run --gpus all"},
    ),
    Row(
        "another process has the GPU for itself",
        machine(refusal(46, "MR111", "CUDA_ERROR_DEVICE_UNAVAILABLE")),
        {"MR111": WARN},
        {"MR111": "nvidia-smi"},
    ),
    Row(
        "a GPU in exclusive mode",
        machine(driver=p.driver(gpus=[p.gpu(mode=3)])),
        {"MR111": WARN},
        {"MR111": "nvidia-smi"},
    ),
    Row(
        "a Maxwell GPU",
        machine(driver=p.driver(gpus=[p.gpu("GeForce GTX 980", 52, 4)])),
        {"MR120": ERROR},
        {"MR120": "CPU"},
        1,
    ),
    Row(
        "MAMBARUN_VARIANT names one for another GPU",
        machine(
            p.env(MAMBARUN_VARIANT="cuda12_sm90"), driver=p.driver(asked="cuda12_sm90")
        ),
        {"MR120": ERROR, "MR304": INFO, "MR508": INFO},
        {"MR120": "unset MAMBARUN_VARIANT"},
        1,
    ),
    Row(
        "a GPU newer than every variant",
        machine(driver=p.driver("590.10", 13010, [p.gpu("NVIDIA R100", 140, 288)])),
        {"MR120": WARN, "MR205": WARN},
        {"MR120": "mambarun.preload"},
    ),
    Row(
        "a GPU newer than every variant, and a driver that keeps nothing",
        machine(
            p.env(CUDA_CACHE_DISABLE="1"),
            driver=p.driver("590.10", 13010, [p.gpu("NVIDIA R100", 140, 288)]),
        ),
        {"MR120": WARN, "MR205": WARN, "MR507": INFO},
        {"MR120": "unset CUDA_CACHE_DISABLE"},
    ),
    Row(
        "a GPU newer than every variant, and no compiler for PTX",
        machine(
            p.gone(f"{p.LIB}/libnvidia-ptxjitcompiler.so.1"),
            p.gone(f"{p.LIB}/libnvidia-ptxjitcompiler.so.590.10"),
            driver=p.driver("590.10", 13010, [p.gpu("NVIDIA R100", 140, 288)]),
        ),
        {"MR113": ERROR, "MR120": WARN, "MR205": WARN},
        {"MR113": "libnvidia-ptxjitcompiler"},
        1,
    ),
    Row(
        "mambarun without CUDA variants on a machine with a GPU",
        machine(
            driver=p.driver(
                absent=[v["name"] for v in p.gpu_variants(80, 13000)],
            )
        ),
        {"MR120": ERROR},
        {"MR120": "ci/wheel.sh"},
        1,
    ),
    Row(
        "two unlike GPUs",
        machine(driver=p.driver(gpus=[p.gpu(), p.gpu("Tesla T4", 75, 15)])),
        {"MR121": INFO},
        {},
    ),
    Row(
        "one of two GPUs is hidden",
        machine(
            p.env(CUDA_VISIBLE_DEVICES="0"),
            p.said(nvml={"driver": "535.104.12", "gpus": ["A800"] * 2, "mig": False}),
        ),
        {"MR109": INFO},
        {},
    ),
    Row(
        "a GPU divided by MIG",
        machine(
            p.said(nvml={"driver": "535.104.12", "gpus": ["A100"], "mig": True}),
            driver=p.driver(gpus=[p.gpu("NVIDIA A100 MIG 1g.5gb", 80, 5)]),
        ),
        {},
        {},
    ),
    Row(
        "no unversioned libcuda.so for triton",
        machine(p.gone(f"{p.LIB}/libcuda.so")),
        {"MR104": INFO},
        {},
    ),
    Row(
        "the child of the check is killed by the driver",
        machine(p.died("cuInit", "SIGSEGV")),
        {"MR112": ERROR},
        {"MR112": "nvidia-smi"},
        3,
    ),
    Row(
        "the management library kills the child",
        machine(p.died("libnvidia-ml.so.1", "SIGABRT", "terminate called\n")),
        {"MR112": ERROR},
        {"MR112": "nvidia-smi"},
        3,
    ),
    Row(
        "a driver in the kernel and no libcuda.so.1 anywhere",
        machine(*NO_LIBRARIES),
        {"MR102": ERROR},
        {},
        1,
    ),
    Row(
        "the same in a container",
        machine(p.file("/.dockerenv"), *NO_LIBRARIES),
        {"MR004": INFO, "MR102": ERROR},
        {"MR102": "--gpus all"},
        1,
    ),
    Row(
        "a driver whose release nobody says",
        machine(
            p.gone("/proc/driver/nvidia/version"),
            p.said(nvml={"error": p.NO_FILE.format("libnvidia-ml")}),
        ),
        {"MR101": INFO},
        {},
    ),
    Row(
        "a driver and no GPU",
        machine(
            refusal(100, "MR109"), p.said(nvml={"driver": "535.104.12", "gpus": []})
        ),
        {"MR109": WARN},
        {},
    ),
    Row(
        "one of two GPUs fell off the bus",
        machine(
            lambda b: b.facts["gpus"].append(
                {"error": "cuDeviceGetName fails with 999", "code": "MR112"}
            )
        ),
        {"MR112": ERROR},
        {"MR112": "nvidia-smi"},
        1,
    ),
    Row(
        "a container without the compiler for PTX, on a GPU newer than every variant",
        machine(
            p.file("/.dockerenv"),
            p.gone(f"{p.LIB}/libnvidia-ptxjitcompiler.so.1"),
            p.gone(f"{p.LIB}/libnvidia-ptxjitcompiler.so.590.10"),
            driver=p.driver("590.10", 13010, [p.gpu("NVIDIA R100", 140, 288)]),
        ),
        {"MR004": INFO, "MR113": ERROR, "MR120": WARN, "MR205": WARN},
        {"MR113": "NVIDIA_DRIVER_CAPABILITIES=compute,utility"},
        1,
    ),
    Row(
        "the child of the check is killed by libmambarun",
        machine(p.died("libmambarun", "SIGILL")),
        {"MR112": ERROR},
        {},
        3,
    ),
    Row(
        "the child of the check does not start",
        machine(p.died("start", "not started", "Permission denied")),
        {"MR112": ERROR},
        {},
        3,
    ),
)

# ---- places -----------------------------------------------------------------------

HOSTS = (
    Row(
        "WSL 2",
        machine(
            p.file("/dev/dxg"),
            p.file("/proc/version", "Linux version 5.15.90-microsoft-standard-WSL2"),
            p.fields(release="5.15.90.1-microsoft-standard-WSL2"),
            driver=p.driver("552.44", 12040, folder="/usr/lib/wsl/lib", kernel=False),
        ),
        {"MR004": INFO},
        {},
    ),
    Row(
        "a Jetson",
        machine(
            p.file("/etc/nv_tegra_release", "# R36 (release), REVISION: 3.0\n"),
            p.fields(arch="aarch64"),
            driver=p.driver(
                "540.3.0",
                12020,
                [p.gpu("Orin", 87, 32, integrated=True)],
                folder="/usr/lib/aarch64-linux-gnu/nvidia",
                kernel=False,
            ),
        ),
        {"MR002": WARN, "MR004": INFO},
        {},
    ),
    Row("a container", machine(p.file("/run/.containerenv")), {"MR004": INFO}, {}),
    Row(
        "a pod, known by its control groups",
        machine(p.file("/proc/1/cgroup", "0::/kubepods/besteffort/pod1\n")),
        {"MR004": INFO},
        {},
    ),
    Row(
        "Windows",
        machine(
            p.fields(system="Windows", arch="AMD64", libc=("", "")), driver=p.no_gpu()
        ),
        {"MR002": ERROR, "MR101": WARN},
        {"MR002": "wsl --install"},
        1,
    ),
    Row(
        "macOS",
        machine(
            p.fields(system="Darwin", arch="arm64", libc=("", "")), driver=p.no_gpu()
        ),
        {"MR002": ERROR, "MR101": WARN},
        {"MR002": "Linux"},
        1,
    ),
    Row(
        "POWER",
        machine(p.fields(arch="ppc64le"), driver=p.no_gpu()),
        {"MR002": ERROR, "MR101": WARN},
        {},
        1,
    ),
    Row("Alpine", machine(p.fields(libc=("", ""))), {"MR010": ERROR}, {}, 1),
    Row(
        "CentOS 6",
        machine(p.fields(libc=("glibc", "2.12"))),
        {"MR010": ERROR},
        {},
        1,
    ),
    Row(
        "an upgrade that was cut short",
        machine(mambarun=p.installed(version="0.0.9")),
        {"MR001": ERROR},
        {"MR001": "pip install --force-reinstall --no-deps mambarun"},
        1,
    ),
    Row(
        "a library that is not as it was installed",
        machine(p.file("{site}/mambarun/_lib/libmambarun.so", "cut")),
        {"MR001": ERROR},
        {"MR001": "pip install --force-reinstall --no-deps mambarun"},
        1,
    ),
    Row(
        "a library that does not open",
        machine(
            p.said(library={"path": "/x", "error": "libmambarun.so is missing"}),
            p.died("libnvidia-ml.so.1", None),
        ),
        {"MR001": ERROR},
        {"MR001": "pip install --force-reinstall --no-deps mambarun"},
        1,
    ),
    Row(
        "FreeBSD",
        machine(p.fields(system="FreeBSD", libc=("", "")), driver=p.no_gpu()),
        {"MR002": ERROR, "MR101": WARN},
        {"MR002": "Linux"},
        1,
    ),
    Row(
        "variants of another version",
        machine(
            p.said(
                cpu_variant=None,
                cpu_load={"error": "cpu_avx2: wrong stamp", "code": "MR001"},
            )
        ),
        {"MR001": ERROR},
        {"MR001": "pip install --force-reinstall --no-deps mambarun"},
        1,
    ),
)

# ---- variables --------------------------------------------------------------------

CUDA_12_4 = "/usr/local/cuda-12.4"
VARIABLES = (
    Row(
        "torch's cpp_extension edited as folk remedies say",
        machine(
            p.file(
                "{site}/torch/utils/cpp_extension.py",
                "    command = ['ninja', '--version']\n",
            )
        ),
        {"MR503": WARN},
        {"MR503": "sed -i"},
    ),
    Row(
        "LD_LIBRARY_PATH to a toolkit",
        machine(p.toolkit("12.4"), p.env(LD_LIBRARY_PATH=f"{CUDA_12_4}/lib64")),
        {"MR206": INFO, "MR501": INFO, "MR504": WARN},
        {"MR504": "LD_LIBRARY_PATH"},
    ),
    Row(
        "the same with a torch that does not care",
        machine(
            p.toolkit("12.4"),
            p.env(LD_LIBRARY_PATH=f"{CUDA_12_4}/lib64"),
            torch=p.torch("2.5.1", "12.1", tag="DT_RPATH"),
        ),
        {"MR501": INFO, "MR504": WARN},
        {"MR504": "LD_LIBRARY_PATH"},
    ),
    Row(
        "LD_LIBRARY_PATH to conda's libraries, libstdc++ among them",
        machine(p.env(LD_LIBRARY_PATH="/opt/conda/envs/mamba/lib")),
        {"MR504": WARN},
        {"MR504": "LD_LIBRARY_PATH"},
    ),
    Row(
        "LD_LIBRARY_PATH to nothing of interest",
        machine(p.folder("/opt/tools/lib"), p.env(LD_LIBRARY_PATH="/opt/tools/lib:")),
        {},
        {},
    ),
    Row(
        "cuDNN of another major on LD_LIBRARY_PATH hides none",
        machine(
            p.library("/opt/cudnn/lib/libcudnn.so.9.1.0", "libcudnn.so.9"),
            p.link("/opt/cudnn/lib/libcudnn.so.9", "libcudnn.so.9.1.0"),
            p.env(LD_LIBRARY_PATH="/opt/cudnn/lib"),
        ),
        {"MR210": INFO, "MR504": INFO},
        {},
    ),
    Row(
        "CUDA_HOME leads nowhere",
        machine(p.env(CUDA_HOME="/usr/local/cuda-11.0")),
        {"MR505": WARN},
        {"MR505": "unset CUDA_HOME"},
    ),
    Row(
        "CUDA_HOME is not the toolkit of PATH's nvcc",
        machine(
            p.toolkit("12.1"),
            p.toolkit("12.4"),
            p.env(CUDA_HOME="/usr/local/cuda-12.1"),
            lambda b: b.first_on_path.append(f"{CUDA_12_4}/bin"),
        ),
        {"MR501": INFO, "MR505": INFO},
        {},
    ),
    Row(
        "LD_PRELOAD",
        machine(p.env(LD_PRELOAD="/usr/lib/libjemalloc.so.2")),
        {"MR506": INFO},
        {},
    ),
    Row(
        "variables that steer CUDA",
        machine(p.env(CUDA_LAUNCH_BLOCKING="1", CUDA_MODULE_LOADING="EAGER")),
        {"MR507": INFO},
        {},
    ),
    Row(
        "a variable that mambarun does not know",
        machine(p.env(MAMBARUN_VARIENT="cpu_avx2")),
        {"MR508": WARN},
        {"MR508": "unset MAMBARUN_VARIENT"},
    ),
    Row(
        "g++ and nvcc, which nobody needs",
        machine(p.program("/usr/bin/g++"), p.program("/usr/bin/nvcc")),
        {"MR501": INFO},
        {},
    ),
)

# ---- odd ones: whatever lies there, nothing crashes and nothing hangs --------------

ODD = (
    Row(
        "named pipes where files should be",
        machine(
            p.pipe("{site}/torch/version.py"),
            p.pipe("{site}/causal_conv1d-1.6.1.dist-info/RECORD"),
            p.module("causal_conv1d_cuda", abi="TRUE"),
            p.pipe("{site}/selective_scan_cuda{suffix}"),
            p.pipe("/proc/driver/nvidia/version"),
            p.pipe("/etc/ld.so.cache"),
        ),
        {"MR201": ERROR, "MR302": WARN},
        {},
        1,
    ),
    Row("a module of a terabyte", machine(p.huge), {"MR301": INFO}, {}),
    Row("links in circles", machine(p.loops), {}, {}),
    Row("names that are no text", machine(p.odd_names), {"MR302": WARN}, {}),
    Row(
        "entries of sys.path that are no folders",
        machine(
            p.file("/opt/packages.zip"),
            lambda b: b.before.extend(
                ["", "relative", "/opt/packages.zip", "/nowhere"]
            ),
        ),
        {},
        {},
    ),
    Row(
        "variables that name nothing that there is",
        machine(
            p.env(
                LD_LIBRARY_PATH=":::/nowhere:relative:" + "/x" * 5000,
                CUDA_HOME="relative",
                PATH="",
            )
        ),
        {"MR505": WARN},
        {},
    ),
    Row(
        "folders where files should be",
        machine(
            p.gone("{site}/torch/lib/libc10.so"),
            p.folder("{site}/torch/lib/libc10.so"),
            p.folder("{site}/selective_scan_cuda.so"),
            p.folder("{site}/torch/lib/libtorch_global_deps.so.bak"),
        ),
        {},
        {},
    ),
    Row(
        "the current folder was deleted",
        machine(p.fields(cwd="/gone/away")),
        {},
        {},
    ),
)

# Only for those who are not root, whom nothing is closed to; so not in ROWS.
CLOSED = (
    Row(
        "torch's folder is closed",
        machine(p.closed("{site}/torch")),
        {"MR201": ERROR},
        {},
        1,
    ),
    Row(
        "a module that may not be read",
        machine(p.module(abi="TRUE"), p.closed("{site}/selective_scan_cuda{suffix}")),
        {"MR302": WARN},
        {"MR302": "rm "},
    ),
    Row(
        "the GPU's device nodes are closed",
        machine(p.closed("/dev/nvidiactl", "/dev/nvidia0")),
        {"MR108": ERROR},
        {},
        1,
    ),
    Row(
        "mambarun's library may not be read",
        machine(p.closed("{site}/mambarun/_lib/libmambarun.so")),
        {"MR001": ERROR},
        {},
        1,
    ),
)

# ---- a driver that is loaded ------------------------------------------------------


def loaded(**how):
    """The fake driver itself, asked by the child process: see fakes.py. mambarun then
    is the one that runs the test, without metadata on the fabricated machine."""
    return machine(fake_driver(**how))


SOURCE_TREE = {"MR001": INFO, "MR508": INFO}
# What cuInit answers, by the driver's number.
ANSWERS = {
    1: ("MR112", ERROR, "nvidia-smi"),
    2: ("MR111", WARN, "nvidia-smi"),
    3: ("MR112", ERROR, "nvidia-smi"),
    4: ("MR112", ERROR, "nvidia-smi"),
    34: ("MR105", ERROR, "LD_LIBRARY_PATH"),
    46: ("MR111", WARN, "nvidia-smi"),
    100: ("MR109", WARN, ""),
    101: ("MR109", WARN, ""),
    201: ("MR112", ERROR, "nvidia-smi"),
    222: ("MR112", ERROR, "nvidia-smi"),
    304: ("MR112", ERROR, "nvidia-smi"),
    802: ("MR107", ERROR, "nvidia-fabricmanager"),
    803: ("MR106", ERROR, "reboot"),
    804: ("MR106", ERROR, "LD_LIBRARY_PATH"),
    999: ("MR112", ERROR, "nvidia-smi"),
    12345: ("MR112", ERROR, "nvidia-smi"),
}
MOODS = {
    "crashes": (dict(FAKE_MOOD="crash"), 3),
    "ends the process": (dict(FAKE_MOOD="exit"), 3),
    "sleeps for a minute": (dict(FAKE_MOOD="sleep", limit=1.0), 3),
}


def _symbols():
    text = (p.ROOT / "libmambarun" / "core" / "driver.def").read_text()
    return re.findall(r"^MBR_DRIVER\((\w+), *(\w+)", text, re.M)


LOADED = (
    *(
        Row(
            f"cuInit fails with {number}",
            loaded(FAKE_cuInit=str(number)),
            {**SOURCE_TREE, code: status},
            {code: fix},
            1 if status == ERROR else 0,
        )
        for number, (code, status, fix) in ANSWERS.items()
    ),
    *(
        Row(
            f"a driver that {mood}",
            loaded(**how),
            {**SOURCE_TREE, "MR112": ERROR},
            {"MR112": "nvidia-smi"},
            status,
        )
        for mood, (how, status) in MOODS.items()
    ),
    *(
        Row(
            f"a driver without {symbol}",
            loaded(absent=(symbol,), FAKE_DEVICES="0"),
            {**SOURCE_TREE, "MR102": ERROR},
            {"MR102": "nvidia-smi"},
            1,
        )
        for symbol, need in _symbols()
        if need == "REQUIRED"
    ),
    *(
        Row(
            f"a driver without {symbol}, and no GPU",
            loaded(absent=(symbol,), FAKE_cuInit="100"),
            {**SOURCE_TREE, "MR109": WARN},
            {},
        )
        for symbol, need in _symbols()
        if need == "OPTIONAL"
    ),
    Row(
        "a driver that prints to stdout, and no GPU",
        loaded(FAKE_MOOD="print", FAKE_cuInit="100"),
        {**SOURCE_TREE, "MR109": WARN},
        {},
    ),
    Row(
        "a folder of stubs on LD_LIBRARY_PATH",
        loaded(below="stubs"),
        {**SOURCE_TREE, "MR105": ERROR},
        {"MR105": "LD_LIBRARY_PATH"},
        1,
    ),
    Row(
        "a libcuda.so.1 that finds no driver",
        loaded(FAKE_API="0"),
        {**SOURCE_TREE, "MR102": ERROR},
        {"MR102": "nvidia-smi"},
        1,
    ),
    Row(
        "a libcuda.so.1 that is a text",
        loaded(text=True),
        {**SOURCE_TREE, "MR103": ERROR},
        {},
        1,
    ),
    Row(
        "NVML works and libcuda.so.1 is not there",
        loaded(cuda=False),
        {**SOURCE_TREE, "MR103": ERROR},
        {"MR103": "NVIDIA_DRIVER_CAPABILITIES=compute,utility"},
        1,
    ),
)

FABRICATED = (
    GUIDE,
    PLAIN,
    *(*PYTHONS, *TORCHES, *MODULES, *PACKAGES),
    *(*DRIVERS, *HOSTS, *VARIABLES, *ODD),
)
ROWS = (*FABRICATED, *LOADED)
