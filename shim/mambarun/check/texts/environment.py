# SPDX-License-Identifier: Apache-2.0
"""environment.py - the texts of MR501 to MR508. Data only."""

from .form import Case, Text

HEADLINES = {
    "env": {
        "plain": ("no variable stands in the way", "没有造成干扰的环境变量"),
        "notes": ("some settings are worth a look", "有的设置需要留意"),
    }
}

TEXTS = {
    "MR501": Text(
        "env",
        ("CUDA toolkits, which are not needed", "CUDA 工具包（不需要）"),
        {
            "none": Case(
                ("no CUDA toolkit; none is needed", "没有 CUDA 工具包，也不需要")
            ),
            "here": Case(
                (
                    "{count} CUDA toolkit(s) here, of which torch would compile "
                    "extensions with {path}; mambarun needs none",
                    "有 {count} 个 CUDA 工具包，torch 编译扩展时会用 {path}；"
                    "mambarun 都不需要",
                )
            ),
        },
        (
            """\
A CUDA toolkit (nvcc, /usr/local/cuda) is for compiling.

mambarun was compiled beforehand, and torch brings the libraries it runs on. "The
detected CUDA version (12.3) mismatches the version that was used to compile PyTorch"
and "bare_metal_version is not defined" come from building extensions, which is not
needed here; neither is a second toolkit.""",
            """\
CUDA 工具包（nvcc、/usr/local/cuda）只用于编译。

mambarun 是预先编译好的，torch 也自带运行所需的库。“The detected CUDA version (12.3)
mismatches the version that was used to compile PyTorch” 和 “bare_metal_version is not
defined” 都出现在编译扩展时，而这里不需要编译，更不需要再装一个工具包。""",
        ),
    ),
    "MR502": Text(
        "env",
        ("compilers, which are not needed", "编译器（不需要）"),
        {
            "missing": Case(
                ("not here, and not needed: {missing}", "没有安装，也不需要：{missing}")
            ),
            "here": Case(
                (
                    "g++ and nvcc are here; they are not needed",
                    "有 g++ 和 nvcc，但用不到",
                )
            ),
        },
        (
            """\
No compiler is needed.

"command 'g++' failed: No such file or directory" and "nvcc was not found" come from
building mamba_ssm, causal_conv1d or selective_scan. mambarun supplies what they would
build. Their Python halves install without a compiler: see MR401.""",
            """\
不需要编译器。

“command 'g++' failed: No such file or directory” 和 “nvcc was not found” 出现在编译
mamba_ssm、causal_conv1d 或 selective_scan 时。它们要编译的东西由 mambarun 提供；Python
部分不用编译器也能安装，参见 MR401。""",
        ),
    ),
    "MR503": Text(
        "env",
        (
            "torch's cpp_extension.py is as it came",
            "torch 的 cpp_extension.py 未被改动",
        ),
        {
            "untouched": Case(
                ("torch calls ninja as it should", "torch 调用 ninja 的方式正常")
            ),
            "edited": Case(
                (
                    "{path} was edited: it calls `ninja --version` where it should "
                    "build, so that nothing is compiled",
                    "{path} 被改过：该编译的地方成了 `ninja --version`，"
                    "结果什么也没有编译",
                ),
                "sed -i \"s/'ninja', '--version'/'ninja', '-v'/\" {path}",
            ),
            "none": Case(("there is no torch", "没有安装 torch")),
        },
        (
            """\
"Command '['ninja', '-v']' returned non-zero exit status 1" is no fault of `-v`.

It is the last line after some error of the compiler, which stands above it. Changing
-v to --version in torch/utils/cpp_extension.py, as many pages advise, makes ninja print
its version and compile nothing; the next step then misses the object files. Undo it. To
use mambarun nothing is compiled.""",
            """\
“Command '['ninja', '-v']' returned non-zero exit status 1” 与 `-v` 无关。

它只是最后一行，真正的编译错误在上面。很多文章教人把 torch/utils/cpp_extension.py 里的
-v 改成 --version，那样 ninja 只会打印版本号，什么也不编译，下一步就会找不到目标文件。请
改回来。使用 mambarun 不需要编译任何东西。""",
        ),
    ),
    "MR504": Text(
        "env",
        (
            "LD_LIBRARY_PATH does not override torch's libraries",
            "LD_LIBRARY_PATH 没有覆盖 torch 自带的库",
        ),
        {
            "unset": Case(("LD_LIBRARY_PATH is not set", "没有设置 LD_LIBRARY_PATH")),
            "harmless": Case(
                (
                    "LD_LIBRARY_PATH holds none of the libraries that torch brings",
                    "LD_LIBRARY_PATH 里没有 torch 自带的那些库",
                )
            ),
            "beside": Case(
                (
                    "LD_LIBRARY_PATH has {folder}, whose {libraries} torch does not "
                    "use: it brings others",
                    "LD_LIBRARY_PATH 里有 {folder}，其中的 {libraries} torch 用不到，"
                    "它自带别的版本",
                )
            ),
            "overrides": Case(
                (
                    "LD_LIBRARY_PATH has {folder}, ahead of torch's own {libraries}",
                    "LD_LIBRARY_PATH 里的 {folder} 会先于 torch 自带的 {libraries} "
                    "被加载",
                ),
                "unset LD_LIBRARY_PATH",
            ),
        },
        (
            """\
What lies on LD_LIBRARY_PATH is loaded before what torch brings itself.

Guides have people write /usr/local/cuda/lib64 into .bashrc. Then torch may run with a
cuDNN, nvJitLink or libstdc++ that it was not built with: "cuDNN version
incompatibility", "undefined symbol: __nvJitLinkComplete_12_4", "GLIBCXX_3.4.26 not
found". With -v the report shows which copy torch would take (MR206, MR210). mambarun
uses none of these libraries.

What to do

- Remove the folder from LD_LIBRARY_PATH, in .bashrc too. The driver's may stay.""",
            """\
LD_LIBRARY_PATH 里的库优先于 torch 自带的库。

有的教程让人把 /usr/local/cuda/lib64 写进 .bashrc，于是 torch 可能用上并非构建时所用的
cuDNN、nvJitLink 或 libstdc++，报出 “cuDNN version incompatibility”、“undefined symbol:
__nvJitLinkComplete_12_4”、“GLIBCXX_3.4.26 not found” 等错误。加上 -v 可以看到 torch 会
用哪一份（MR206、MR210）。mambarun 不使用这些库。

怎么办

- 从 LD_LIBRARY_PATH（以及 .bashrc）里去掉该目录。驱动所在的目录可以保留。""",
        ),
    ),
    "MR505": Text(
        "env",
        ("CUDA_HOME leads somewhere", "CUDA_HOME 指向存在的目录"),
        {
            "fits": Case(
                ("CUDA_HOME is unset or fits", "CUDA_HOME 未设置，或者没有问题")
            ),
            "nowhere": Case(
                (
                    "{name} is {path}, which does not exist",
                    "{name} 是 {path}，但这个目录不存在",
                ),
                "unset {name}",
            ),
            "other": Case(
                (
                    "{name} is {path}, and the nvcc on PATH is {nvcc}",
                    "{name} 是 {path}，而 PATH 里的 nvcc 是 {nvcc}",
                )
            ),
        },
        (
            """\
CUDA_HOME tells builds where the toolkit is.

Nothing that runs reads it. One that leads nowhere, as after copying a line with another
version from a guide, makes every build of an extension fail. mambarun builds none.""",
            """\
CUDA_HOME 告诉编译过程工具包在哪里。

程序运行时不会读取它。如果它指向不存在的目录（比如照抄教程里另一个版本的那一行），编译扩
展就会失败；mambarun 不编译任何东西。""",
        ),
    ),
    "MR506": Text(
        "env",
        ("LD_PRELOAD", "LD_PRELOAD"),
        {
            "unset": Case(("LD_PRELOAD is not set", "没有设置 LD_PRELOAD")),
            "set": Case(
                (
                    "LD_PRELOAD is set: its libraries come before all others",
                    "设置了 LD_PRELOAD：其中的库优先于所有其他库",
                )
            ),
        },
        (
            """\
Libraries in LD_PRELOAD are loaded into every program, before all others.

That is right for an allocator or a profiler. A libstdc++ or libcudart there replaces
the one that torch was built with.""",
            """\
LD_PRELOAD 里的库会最先加载到每个程序里。

用于内存分配器或性能分析器是正常的；如果里面是 libstdc++ 或 libcudart，就会替换掉构建
torch 时所用的那一份。""",
        ),
    ),
    "MR507": Text(
        "env",
        ("variables of CUDA and torch", "CUDA 和 torch 的变量"),
        {
            "unset": Case(
                ("no variable changes what CUDA does", "没有改变 CUDA 行为的变量")
            ),
            "set": Case(("set: {listed}", "已设置：{listed}")),
        },
        (
            """\
Variables that change how CUDA and torch behave.

CUDA_LAUNCH_BLOCKING=1 makes every call wait and is for finding faults.
CUDA_CACHE_DISABLE=1 has the driver compile PTX again in every process.
CUDA_DISABLE_PTX_JIT=1 forbids it (MR114).""",
            """\
会改变 CUDA 和 torch 行为的变量。

CUDA_LAUNCH_BLOCKING=1 让每次调用都同步等待，用于排查错误。CUDA_CACHE_DISABLE=1 让驱动在
每个进程里重新编译 PTX。CUDA_DISABLE_PTX_JIT=1 则禁止编译（MR114）。""",
        ),
    ),
    "MR508": Text(
        "env",
        ("mambarun's own variables", "mambarun 自己的变量"),
        {
            "unset": Case(("no MAMBARUN_ variable is set", "没有设置 MAMBARUN_ 变量")),
            "set": Case(("set: {listed}", "已设置：{listed}")),
            "unknown": Case(
                (
                    "{name} is no variable of mambarun and has no effect; there are "
                    "{known}",
                    "mambarun 没有 {name} 这个变量，设置它不起作用；有效的是 {known}",
                ),
                "unset {name}",
            ),
        },
        (
            """\
mambarun reads these variables and no others:

    MAMBARUN_VARIANT  a variant's name: exactly this one
    MAMBARUN_PATH     a folder: look for the libraries there first
    MAMBARUN_TRACE    0: silent; 1: every probe, verdict and load on stderr
    MAMBARUN_DISABLE  1, or names with commas: leave these modules alone
    MAMBARUN_PREFER   ours: mambarun's modules even where others work""",
            """\
mambarun 只读取以下变量：

    MAMBARUN_VARIANT  变体的名字：只用这一个
    MAMBARUN_PATH     目录：先到这里找动态库
    MAMBARUN_TRACE    0：不输出；1：把探测、判断和加载逐条写到标准错误
    MAMBARUN_DISABLE  1，或用逗号隔开的名字：不碰这些模块
    MAMBARUN_PREFER   ours：即使别的模块可用也用 mambarun 的""",
        ),
    ),
}
