# SPDX-License-Identifier: Apache-2.0
"""host.py - the texts of MR001 to MR022. Data only."""

from .form import Case, Text

REINSTALL = "pip install --force-reinstall --no-deps mambarun"

HEADLINES = {
    "mambarun": {
        "here": (
            "{version}, on this CPU {variant}",
            "{version}，本机 CPU 使用 {variant}",
        ),
        "broken": ("cannot run", "无法运行"),
    },
    "python": {
        "glibc": ("{python} ({kind}), {libc}", "{python}（{kind}），{libc}"),
        "other": ("{python} ({kind}), no glibc", "{python}（{kind}），没有 glibc"),
    },
}

TEXTS = {
    "MR001": Text(
        "mambarun",
        ("mambarun's own files are in order", "mambarun 自身的文件完好"),
        {
            "intact": Case(
                (
                    "mambarun {version}: {count} files are as they were installed",
                    "mambarun {version}：{count} 个文件与安装时一致",
                )
            ),
            "tree": Case(
                (
                    "mambarun {version} runs from a source tree or a copied folder: "
                    "there is no RECORD to check its files against",
                    "mambarun {version} 从源码目录或拷贝的目录运行，"
                    "没有 RECORD 可供核对文件",
                )
            ),
            "missing": Case(
                (
                    "mambarun's library is missing or damaged, so none of its modules "
                    "works",
                    "mambarun 的动态库缺失或损坏，它提供的模块都不能用",
                ),
                REINSTALL,
            ),
            "mixed": Case(
                (
                    "no CPU variant of mambarun opens: files are missing, or of "
                    "two versions",
                    "mambarun 的 CPU 变体一个也打不开：文件缺失，或者混入了另一个版本",
                ),
                REINSTALL,
            ),
            "versions": Case(
                (
                    "the package is mambarun {package}, its library is {library}: an "
                    "upgrade was cut short, or MAMBARUN_PATH names another build",
                    "Python 包是 mambarun {package}，动态库却是 {library}："
                    "升级没有完成，或者 MAMBARUN_PATH 指向了另一个构建",
                ),
                REINSTALL,
            ),
            "changed": Case(
                (
                    "{count} of mambarun's files are not as they were installed",
                    "mambarun 有 {count} 个文件与安装时不一致",
                ),
                REINSTALL,
            ),
            "unknown": Case(
                (
                    "not asked: the process that opens mambarun's library ended first",
                    "未能检查：负责打开动态库的进程提前结束了",
                )
            ),
        },
        (
            """\
mambarun's own files are not in order.

libmambarun.so is missing, cannot be opened, or lies beside variants (libmambarun_*.so)
that were built with another version of it. This happens after a partial upgrade, when a
copy left files out, or when MAMBARUN_PATH names a folder of another build. The check
compares every file with the size and SHA-256 that the wheel recorded.

What to do

- Look at MAMBARUN_PATH: unset it, unless you run from a source tree; there it has to
name the build's `lib` folder, with libmambarun.so and the variants in it.
- Otherwise reinstall: pip install --force-reinstall --no-deps mambarun""",
            """\
mambarun 自身的文件有问题。

libmambarun.so 缺失、打不开，或者旁边的变体（libmambarun_*.so）来自另一个版本。常见原
因：升级中断、拷贝时漏了文件，或者 MAMBARUN_PATH 指向了另一个构建的目录。检查会把每个文
件的大小和 SHA-256 与安装包里的记录逐一核对。

怎么办

- 先看 MAMBARUN_PATH：除非从源码目录运行，否则取消这个变量；从源码目录运行时，它应当指向
构建产物的 `lib` 目录，里面有 libmambarun.so 和各个变体。
- 其他情况重新安装：pip install --force-reinstall --no-deps mambarun""",
        ),
    ),
    "MR002": Text(
        "python",
        ("the system and the processor are supported", "操作系统和处理器受支持"),
        {
            "supported": Case(("{system} on {arch}", "{system}，{arch}")),
            "windows": Case(
                (
                    "mambarun does not run on Windows; in WSL 2 it does",
                    "mambarun 不支持 Windows，可以在 WSL 2 里使用",
                ),
                "wsl --install",
            ),
            "macos": Case(
                ("mambarun does not run on macOS", "mambarun 不支持 macOS"),
                ("use a Linux machine or container", "请换用 Linux 机器或容器"),
            ),
            "other": Case(
                (
                    "mambarun runs on Linux only; this is {system}",
                    "mambarun 只支持 Linux，当前系统是 {system}",
                ),
                ("use a Linux machine or container", "请换用 Linux 机器或容器"),
            ),
            "aarch64": Case(
                (
                    "aarch64: only cpu_scalar exists there, compiled but hardly tried",
                    "aarch64 上只有 cpu_scalar 这一个变体，能编译，但测试很少",
                )
            ),
            "processor": Case(
                (
                    "there is no mambarun for {arch} processors",
                    "mambarun 没有 {arch} 处理器的版本",
                ),
                (
                    "use an x86-64 machine with Linux",
                    "请换用 x86-64 的 Linux 机器",
                ),
            ),
        },
        (
            """\
mambarun runs on Linux with glibc, on x86-64.

On aarch64 the plain CPU variant is compiled and not more. Windows and macOS are not
supported; WSL 2 is a Linux and works.""",
            """\
mambarun 运行在 x86-64、使用 glibc 的 Linux 上。

aarch64 目前只编译了最基本的 CPU 变体。Windows 和 macOS 不受支持；WSL 2 本身就是 Linux，
可以使用。""",
        ),
    ),
    "MR004": Text(
        "python",
        ("WSL, Jetson or a container", "WSL、Jetson 或容器"),
        {
            "plain": Case(
                ("neither WSL, Jetson nor a container", "不是 WSL、Jetson 或容器")
            ),
            "wsl": Case(
                (
                    "this is WSL: the driver is the one of Windows, install none here",
                    "当前是 WSL：驱动用的是 Windows 的，这里不要再装",
                )
            ),
            "jetson": Case(
                (
                    "this is a Jetson: its driver comes with JetPack",
                    "当前是 Jetson：驱动随 JetPack 提供",
                )
            ),
            "container": Case(
                (
                    "this is a container: the driver comes from the host",
                    "当前在容器里：驱动来自宿主机",
                )
            ),
        },
        (
            """\
Where this runs changes what helps.

In a container and in WSL the NVIDIA driver is not part of the system that you see: it
is handed in from outside, and installing one inside breaks more than it mends. A
container wants to be started with --gpus all and with
NVIDIA_DRIVER_CAPABILITIES=compute,utility.""",
            """\
运行的地方不同，解决办法也不同。

在容器和 WSL 里，NVIDIA 驱动不属于你看到的这个系统，而是从外面传进来的；在里面再装一份驱
动，多半越修越坏。启动容器时要加 --gpus all，并设置
NVIDIA_DRIVER_CAPABILITIES=compute,utility。""",
        ),
    ),
    "MR005": Text(
        "mambarun",
        ("what --require asks for is there", "--require 要求的条件满足"),
        {
            "met": Case(("required and here: {wanted}", "要求的条件满足：{wanted}")),
            "unmet": Case(
                ("required and not here: {wanted}", "要求的条件不满足：{wanted}"),
                "mambarun-check -v",
            ),
        },
        (
            """\
--require names something that this machine does not have.

It takes, separated by commas: `gpu`, a GPU that some variant can run on; `sm_80` and
the like, a GPU of that compute capability; a variant's name; `torch`; the name of a
module, which mambarun or a working other module must supply. Without --require none of
these is needed for exit status 0.""",
            """\
--require 要求的条件，这台机器不满足。

可以写（用逗号隔开）：`gpu`，即有一块能用某个变体的 GPU；`sm_80` 之类，即某个计算能力的
GPU；变体的名字；`torch`；模块的名字，即该模块由 mambarun 或另一个可用的模块提供。不写
--require 时，缺少这些不影响退出码 0。""",
        ),
    ),
    "MR010": Text(
        "python",
        ("the C library is glibc, new enough", "C 运行库是 glibc，且版本够新"),
        {
            "enough": Case(
                (
                    "glibc {version}, at least {least} is needed",
                    "glibc {version}，要求不低于 {least}",
                )
            ),
            "old": Case(
                (
                    "glibc is {version}, mambarun needs {least} or newer",
                    "glibc 是 {version}，mambarun 要求 {least} 以上",
                ),
                (
                    "use a container of a newer Linux",
                    "请在较新的 Linux 容器里运行",
                ),
            ),
            "other": Case(
                (
                    "the C library is not glibc (musl, as in Alpine): mambarun and "
                    "torch need glibc",
                    "C 运行库不是 glibc（例如 Alpine 的 musl）："
                    "mambarun 和 torch 都需要 glibc",
                ),
                (
                    "use an image such as python:3.11-slim instead of one of Alpine",
                    "不要用 Alpine 镜像，换用 python:3.11-slim 之类",
                ),
            ),
            "system": Case(("not a Linux", "不是 Linux")),
        },
        (
            """\
mambarun needs glibc 2.17 or newer, as every torch since 1.12 does.

That is CentOS 7, Debian 8, Ubuntu 14.04 or anything later. Guides that ask for glibc
2.32 mean wheels of mamba_ssm and causal_conv1d that were built on newer systems;
mambarun takes the place of such modules. Python itself needs no such version.""",
            """\
mambarun 要求 glibc 2.17 以上，torch 1.12 以来也都是这个要求。

CentOS 7、Debian 8、Ubuntu 14.04 以及更新的系统都满足。网上教程里说的 glibc 2.32，指的是
在较新系统上编译的 mamba_ssm 和 causal_conv1d 安装包；mambarun 会代替那些模块。Python 本
身并不要求这个版本。""",
        ),
    ),
    "MR020": Text(
        "python",
        ("the interpreter is one that mambarun runs on", "Python 解释器受支持"),
        {
            "enough": Case(("Python {python} ({kind})", "Python {python}（{kind}）")),
            "old": Case(
                (
                    "Python is {python}, mambarun needs {least} or newer",
                    "Python 是 {python}，mambarun 要求 {least} 以上",
                ),
                "conda create -n mamba python=3.10",
            ),
            "bits": Case(
                (
                    "this Python has {bits} bits, torch and mambarun need 64",
                    "这个 Python 是 {bits} 位的，torch 和 mambarun 需要 64 位",
                ),
                "conda create -n mamba python=3.10",
            ),
            "implementation": Case(
                (
                    "{python} was not tried with mambarun; CPython was",
                    "mambarun 没有在 {python} 上测试过，只测试过 CPython",
                )
            ),
        },
        (
            """\
mambarun needs Python 3.8 or newer with 64 bits.

It is pure Python above a C library, so it is not tied to one version: free-threaded
builds work like any other. The report also says whether this is a virtual environment,
conda, or the system's Python.""",
            """\
mambarun 要求 64 位的 Python 3.8 以上。

它是 C 库之上的纯 Python 代码，不绑定某个 Python 版本，自由线程（free-threaded）版本也一
样可用。报告还会说明当前是虚拟环境、conda 还是系统自带的 Python。""",
        ),
    ),
    "MR021": Text(
        "modules",
        ("the import hook is in place", "导入钩子已生效"),
        {
            "first": Case(("the import hook is first", "导入钩子排在最前")),
            "later": Case(
                (
                    "the import hook is number {place} on sys.meta_path: the finders "
                    "before it decide first",
                    "导入钩子在 sys.meta_path 中排第 {place}，前面的查找器优先",
                )
            ),
            "stubs": Case(
                (
                    "start-up files are not read where mambarun lies (PYTHONPATH, "
                    "--target): a broken leftover on an earlier entry of sys.path wins",
                    "mambarun 所在目录的启动文件不会被读取（PYTHONPATH 或 --target 安"
                    "装）：sys.path 里更靠前的损坏文件会优先",
                ),
                "import mambarun; mambarun.install()",
            ),
            "no_site": Case(
                (
                    "Python was started with -S, so start-up files are not read: a "
                    "broken leftover on an earlier entry of sys.path wins",
                    "Python 以 -S 启动，不读取启动文件："
                    "sys.path 里更靠前的损坏文件会优先",
                ),
                "import mambarun; mambarun.install()",
            ),
            "nothing": Case(
                (
                    "neither the import hook nor all of the modules are in place",
                    "导入钩子没有生效，模块也不齐全",
                ),
                REINSTALL,
            ),
        },
        (
            """\
mambarun's modules reach a program through two doors.

One is a finder, first on sys.meta_path, which a start-up file (mambarun.pth, and
mambarun.start from Python 3.15 on) puts there; it wins over a broken leftover anywhere.
The other is real packages of the promised names, which work where start-up files are
not read: on a PYTHONPATH, after pip install --target, under python -S. Then the order
of sys.path decides between them and a leftover.

What to do

- Install into the environment itself, not with --target.
- Or say, before anything else: import mambarun; mambarun.install()""",
            """\
程序可以通过两条路拿到 mambarun 的模块。

一条是排在 sys.meta_path 最前面的查找器，由启动文件（mambarun.pth；Python 3.15 起还有
mambarun.start）装上，损坏的残留文件无论在哪里都排在它后面。另一条是同名的真实包，在不读取
启动文件的场合仍然有效，例如 PYTHONPATH、pip install --target 或 python -S；这时它和残留
文件谁优先，取决于 sys.path 的顺序。

怎么办

- 装进环境本身，不要用 --target。
- 或者在程序最开头写：import mambarun; mambarun.install()""",
        ),
    ),
    "MR022": Text(
        "python",
        (
            "this Python is the one that runs your program",
            "检查用的 Python 就是运行程序的那个",
        ),
        {
            "same": Case(
                ("`python` on PATH is this Python", "PATH 里的 `python` 就是当前这个")
            ),
            "other": Case(
                (
                    "`{name}` on PATH is another Python, {other}: this report is not "
                    "about that one",
                    "PATH 里的 `{name}` 是另一个 Python（{other}），本报告检查的不是它",
                ),
                "{name} -m mambarun",
            ),
            "pip": Case(
                (
                    "`pip` on PATH installs for another Python, {other}",
                    "PATH 里的 `pip` 会装到另一个 Python（{other}）",
                ),
                "python -m pip",
            ),
        },
        (
            """\
A machine has many Pythons, and a report is about one of them.

The command mambarun-check belongs to the Python that it was installed with, which need
not be the `python` that starts your program. `python -m mambarun` asks the very one.
The same holds for pip: `python -m pip` installs where `python` looks.""",
            """\
一台机器上往往有好几个 Python，而一份报告只针对其中一个。

mambarun-check 属于安装它的那个 Python，不一定是启动你程序的 `python`。用 `python -m
mambarun` 检查的就是同一个解释器。pip 也是如此：用 `python -m pip` 安装，才会装到
`python` 查找的地方。""",
        ),
    ),
}
