# SPDX-License-Identifier: Apache-2.0
"""pytorch.py - the texts of MR003 and MR201 to MR210. Data only."""

from .form import Case, Text

NO_TORCH = ("there is no torch", "没有安装 torch")
CUDA_INDEX = "pip install torch --index-url https://download.pytorch.org/whl/cu126"

HEADLINES = {
    "torch": {
        "cuda": (
            "{torch} (not imported), CUDA runtime {cudart}, cuDNN {cudnn}; mambarun "
            "uses neither of these two",
            "{torch}（未导入），CUDA 运行时 {cudart}，cuDNN {cudnn}；"
            "后两者 mambarun 都不用",
        ),
        "alone": ("{torch} (not imported)", "{torch}（未导入）"),
        "cpu": (
            "{torch} (not imported), without CUDA",
            "{torch}（未导入），不带 CUDA",
        ),
        "none": ("not installed", "未安装"),
    }
}


def _library(name, code_of_warning):
    """The cases of MR206 and MR210, which ask the same of two libraries."""
    return {
        "none": Case(NO_TORCH),
        "unused": Case(
            (
                f"this torch uses no {name}, and neither does mambarun",
                f"这个 torch 不使用 {name}，mambarun 也不使用",
            )
        ),
        "fits": Case(
            (
                f"torch will load {name} {{version}} from {{path}}; mambarun uses none",
                f"torch 会加载 {{path}} 里的 {name} {{version}}；mambarun 不使用它",
            )
        ),
        "unknown": Case(
            (
                f"which {name} torch would load is not known: mambarun's library, "
                "which looks for it, does not open",
                f"不知道 torch 会加载哪一份 {name}：负责查找的 mambarun 动态库打不开",
            )
        ),
        "inside": Case(
            (
                f"torch {{torch}} loads no {name} from a file; mambarun uses none",
                f"torch {{torch}} 不从文件加载 {name}；mambarun 不使用它",
            )
        ),
        "beside": Case(
            (
                f"torch will load {name} {{version}}; the {{others}} that is installed "
                "as well serves neither torch nor mambarun",
                f"torch 会加载 {name} {{version}}；另外安装的 {{others}} 对 torch 和 "
                "mambarun 都没有用",
            )
        ),
        "overridden": Case(
            (
                f"torch will load {name} {{version}} from LD_LIBRARY_PATH, not its "
                f"own: see {code_of_warning}",
                f"torch 会加载 LD_LIBRARY_PATH 里的 {name} {{version}}，而不是自带的："
                f"参见 {code_of_warning}",
            )
        ),
        "major": Case(
            (
                f"torch {{torch}} was built with {name} {{wanted}} and would load "
                f"{{version}} from {{path}}",
                f"torch {{torch}} 是用 {name} {{wanted}} 构建的，却会加载 "
                f"{{path}} 里的 "
                "{version}",
            ),
            "pip install --force-reinstall torch=={torch}",
        ),
        "two": Case(
            (
                f"this environment holds {name} of two major versions: torch takes "
                "{version}, {others} is there too",
                f"环境里有两个主版本的 {name}：torch 使用 {{version}}，"
                f"另外还有 {{others}}",
            ),
            "{remove}",
        ),
        "missing": Case(
            (
                f"torch needs {{name}} ({name}) and would not find it",
                f"torch 需要 {{name}}（{name}），但会找不到",
            ),
            "pip install --force-reinstall torch=={torch}",
        ),
    }


TEXTS = {
    "MR003": Text(
        "torch",
        (
            "torch is not one for AMD or Intel GPUs",
            "torch 不是 AMD 或 Intel GPU 的版本",
        ),
        {
            "fits": Case(
                (
                    "torch {torch} is not for ROCm or XPU",
                    "torch {torch} 不是 ROCm 或 XPU 版本",
                )
            ),
            "hip": Case(
                (
                    "torch {torch} is a ROCm build: AMD GPUs are not supported",
                    "torch {torch} 是 ROCm 版本：不支持 AMD GPU",
                ),
                CUDA_INDEX,
            ),
            "xpu": Case(
                (
                    "torch {torch} is an XPU build: Intel GPUs are not supported",
                    "torch {torch} 是 XPU 版本：不支持 Intel GPU",
                ),
                CUDA_INDEX,
            ),
            "none": Case(NO_TORCH),
        },
        (
            """\
mambarun has variants for NVIDIA GPUs and for CPUs.

A torch that was built for AMD (ROCm) calls its GPUs `cuda` too, but nothing of mambarun
runs there. Tensors on the CPU work with any torch.""",
            """\
mambarun 只有 NVIDIA GPU 和 CPU 的变体。

AMD（ROCm）版的 torch 也把自己的 GPU 叫作 `cuda`，但 mambarun 的变体在那里都不能运行。
CPU 张量不受影响，任何 torch 都可以。""",
        ),
    ),
    "MR201": Text(
        "torch",
        ("torch is installed, and for this machine", "已安装适合本机的 torch"),
        {
            "cuda": Case(
                (
                    "torch {torch}, built with CUDA {cuda}",
                    "torch {torch}，用 CUDA {cuda} 构建",
                )
            ),
            "cpu": Case(
                (
                    "torch {torch}, for the CPU only, as is this machine",
                    "torch {torch}，仅支持 CPU，与本机相符",
                )
            ),
            "old": Case(
                (
                    "torch is {torch}; mambarun was tried with {least} and newer",
                    "torch 是 {torch}；mambarun 只在 {least} 以上测试过",
                ),
                "pip install --upgrade torch",
            ),
            "cpu_only": Case(
                (
                    "there is a GPU, and torch {torch} is a build without CUDA",
                    "本机有 GPU，但 torch {torch} 是不带 CUDA 的版本",
                ),
                CUDA_INDEX,
            ),
            "none": Case(
                (
                    "torch is not installed: mambarun's modules take its tensors",
                    "没有安装 torch：mambarun 的模块处理的是 torch 张量",
                ),
                "pip install torch",
            ),
        },
        (
            """\
mambarun works with any torch from 1.12 on, and does not need to know which.

It is read from torch/version.py, without importing it. On a machine with a GPU, torch
must be one that was built with CUDA; pip takes one without it from some mirrors and on
some systems. The CUDA in torch's version (cu121) is what it brings itself: a toolkit
beside it changes nothing.""",
            """\
torch 1.12 以来的任何版本都可以，mambarun 也不需要知道是哪一个。

版本从 torch/version.py 读取，不导入 torch。有 GPU 的机器上，torch 必须是带 CUDA 的版
本；有些镜像源和系统上 pip 装到的是不带 CUDA 的版本。torch 版本号里的 CUDA（如 cu121）是
它自带的，另外安装工具包不会改变什么。""",
        ),
    ),
    "MR202": Text(
        "torch",
        ("which C++ ABI torch has", "torch 的 C++ ABI"),
        {
            "known": Case(
                (
                    "torch {torch} has cxx11abi={flavour}",
                    "torch {torch} 的 cxx11abi={flavour}",
                )
            ),
            "unknown": Case(
                (
                    "the C++ ABI of torch {torch} cannot be told from its files",
                    "从文件看不出 torch {torch} 的 C++ ABI",
                )
            ),
            "none": Case(NO_TORCH),
        },
        (
            """\
torch is built with one of two C++ ABIs, and compiled extensions must have the same.

pip's torch up to 2.5 has cxx11abi=FALSE, from 2.7 on TRUE; in 2.6 it depends on the
CUDA version, and NVIDIA's containers always have TRUE. The wheels of mamba_ssm and
causal_conv1d carry it in their names; with the wrong one an import ends in "undefined
symbol". mambarun is not linked with torch, so that it fits both.""",
            """\
torch 的 C++ ABI 有两种，编译的扩展必须与它一致。

pip 安装的 torch 2.5 以前是 cxx11abi=FALSE，2.7 以后是 TRUE，2.6 视 CUDA 版本而定；
NVIDIA 的容器一直是 TRUE。mamba_ssm 和 causal_conv1d 的安装包把它写在文件名里，选错了，
导入时就会报 “undefined symbol”。mambarun 不与 torch 链接，两种都适用。""",
        ),
    ),
    "MR203": Text(
        "torch",
        ("torch is whole", "torch 完整"),
        {
            "whole": Case(("torch {torch} is whole", "torch {torch} 完整")),
            "differs": Case(
                (
                    "torch's files are {torch}, its metadata says {metadata}: an "
                    "upgrade was cut short",
                    "torch 的文件是 {torch}，元数据却是 {metadata}：升级没有完成",
                ),
                "pip install --force-reinstall torch=={metadata}",
            ),
            "two": Case(
                (
                    "torch was installed twice over itself: {versions}",
                    "torch 被重复安装：{versions}",
                ),
                "pip uninstall torch && pip install torch",
            ),
            "user": Case(
                (
                    "torch {torch} of the user site (pip install --user) comes before "
                    "this environment's {other}",
                    "用户目录里的 torch {torch}（pip install --user）"
                    "优先于当前环境的 {other}",
                ),
                "export PYTHONNOUSERSITE=1",
            ),
            "none": Case(NO_TORCH),
        },
        (
            """\
There are traces of more than one torch.

pip of a model's requirements often replaces torch; if that is cut short, or happens in
another place (--user), what is imported is not what pip lists. mambarun does not mind
which torch it is; torch itself, and what is compiled for it, does.""",
            """\
有多个 torch 的痕迹。

安装模型的 requirements 时，pip 经常会替换 torch；如果中途失败，或者装到了别处
（--user），实际导入的就不是 pip 列出来的那个。mambarun 用哪个 torch 都可以，但 torch 自
己和为它编译的扩展会出问题。""",
        ),
    ),
    "MR204": Text(
        "torch",
        ("the driver is new enough for torch's CUDA", "驱动满足 torch 的 CUDA 要求"),
        {
            "fits": Case(
                (
                    "the driver (API {api}) runs torch's CUDA {cuda}",
                    "驱动（API {api}）能运行 torch 的 CUDA {cuda}",
                )
            ),
            "old": Case(
                (
                    "torch itself cannot use this driver: torch {torch} needs driver "
                    "{least} or newer, this one has API {api}",
                    "是 torch 自己用不了这个驱动：torch {torch} 要求驱动 {least} 以上"
                    "，当前驱动的 API 是 {api}",
                ),
                "pip install torch --index-url "
                "https://download.pytorch.org/whl/{index}",
            ),
            "none": Case(
                ("no driver, or a torch without CUDA", "没有驱动，或 torch 不带 CUDA")
            ),
        },
        (
            """\
torch says "The NVIDIA driver on your system is too old".

Every major version of CUDA needs a driver of some age: 11 needs 450, 12 needs 525, 13
needs 580. Within a major version any driver will do. Often this is called a conflict
between driver and toolkit ("driver conflict"); no toolkit is involved, it is the CUDA
that torch was built with.

What to do

- Take a torch that was built with an older CUDA, or update the driver.""",
            """\
torch 会报 “The NVIDIA driver on your system is too old”。

每个 CUDA 主版本都要求一定版本的驱动：11 要求 450，12 要求 525，13 要求 580；同一主版本
内不再挑剔。这常被说成驱动与工具包冲突（driver conflict），其实与工具包无关，说的是构建
torch 所用的 CUDA。

怎么办

- 换用较旧 CUDA 构建的 torch，或者升级驱动。""",
        ),
    ),
    "MR205": Text(
        "torch",
        ("torch has kernels for the GPU", "torch 含有这块 GPU 的内核"),
        {
            "fits": Case(
                (
                    "torch {torch} has kernels for the GPUs here",
                    "torch {torch} 含有本机 GPU 的内核",
                )
            ),
            "dropped": Case(
                (
                    "torch {torch} has no kernels for {name} any more (compute "
                    "capability {capability}; as of {date})",
                    "torch {torch} 不再包含 {name} 的内核（计算能力 {capability}；"
                    "依据 {date} 的资料）",
                ),
                "pip install torch --index-url https://download.pytorch.org/whl/cu126",
            ),
            "new": Case(
                (
                    "torch {torch} has no kernels for {name} yet (compute capability "
                    "{capability}; as of {date})",
                    "torch {torch} 还没有 {name} 的内核（计算能力 {capability}；"
                    "依据 {date} 的资料）",
                ),
                "pip install --upgrade torch --index-url "
                "https://download.pytorch.org/whl/cu128",
            ),
            "none": Case(
                ("no GPU, or a torch without CUDA", "没有 GPU，或 torch 不带 CUDA")
            ),
        },
        (
            """\
torch's wheels hold kernels for some GPUs only.

Where there are none, torch's own operations fail with "no kernel image is available for
execution on the device", whatever mambarun has. The table behind this check is of the
date that the message shows, and knows pip's wheels; a torch of your own may differ.""",
            """\
torch 的安装包只含有部分 GPU 的内核。

没有对应内核时，torch 自己的运算会报 “no kernel image is available for execution on the
device”，与 mambarun 无关。这项检查依据的表有日期，写在提示里，针对 pip 的安装包；自行编
译的 torch 可能不同。""",
        ),
    ),
    "MR206": Text(
        "torch",
        ("which CUDA runtime torch will load", "torch 会加载哪个 CUDA 运行时"),
        _library("libcudart", "MR504"),
        (
            """\
torch loads libcudart, the CUDA runtime; mambarun does not use it.

Nearly every torch brings its own: in torch/lib, in the nvidia-cuda-runtime wheel, or in
conda's lib. A copy on LD_LIBRARY_PATH may come before it. "libcudart.so.11.0: cannot
open shared object file" comes from a module that was compiled with another major
version of CUDA than torch has (MR302), and installing a toolkit is not the remedy.""",
            """\
torch 要加载 CUDA 运行时 libcudart；mambarun 不使用它。

torch 几乎都自带一份：在 torch/lib、nvidia-cuda-runtime 安装包或 conda 的 lib 目录里。
LD_LIBRARY_PATH 里的另一份可能排在前面。“libcudart.so.11.0: cannot open shared object
file” 来自用另一个 CUDA 主版本编译的模块（MR302），装工具包解决不了。""",
        ),
    ),
    "MR210": Text(
        "torch",
        ("which cuDNN torch will load", "torch 会加载哪个 cuDNN"),
        _library("libcudnn", "MR504"),
        (
            """\
Neither the selective scan nor the convolution uses cuDNN; mambarun does not either.

torch brings its own. Guides that install cuDNN with apt and read cudnn_version.h say
nothing about what is loaded: a torch that wants libcudnn.so.8 never opens a .so.9.
"cuDNN version incompatibility" comes from a copy on LD_LIBRARY_PATH that is older than
the one torch was built with (MR504).""",
            """\
选择性扫描和卷积都不使用 cuDNN，mambarun 也不用。

torch 自带 cuDNN。有些教程用 apt 安装 cuDNN，再看 cudnn_version.h，这说明不了实际加载的
是哪一份：需要 libcudnn.so.8 的 torch 绝不会打开 .so.9。“cuDNN version incompatibility”
的原因是 LD_LIBRARY_PATH 里的那份比构建 torch 时用的旧（MR504）。""",
        ),
    ),
}
