# SPDX-License-Identifier: Apache-2.0
"""modules.py - the texts of MR301 to MR305. Data only."""

from .form import Case, Text

HEADLINES = {
    "modules": {
        "ours": (
            "all {all} are supplied by mambarun",
            "{all} 个模块都由 mambarun 提供",
        ),
        "shadowed": (
            "all {all} are supplied by mambarun; broken leftovers, shadowed and "
            "harmless: {broken}",
            "{all} 个模块都由 mambarun 提供；{broken} 个损坏的残留文件已被它取代，"
            "不影响使用",
        ),
        "mixed": (
            "{ours} of {all} are supplied by mambarun, the others by other packages",
            "{all} 个模块中 {ours} 个由 mambarun 提供，其余由别的包提供",
        ),
        "missing": (
            "{ours} of {all} are supplied by mambarun, some by nobody",
            "{all} 个模块中 {ours} 个由 mambarun 提供，有的没有人提供",
        ),
    }
}

TEXTS = {
    "MR301": Text(
        "modules",
        (
            "every promised module has a supplier that works",
            "应有的模块都能由某个可用的包提供",
        ),
        {
            "alone": Case(
                (
                    "{name}: mambarun, there is no other",
                    "{name}：由 mambarun 提供，没有别的",
                )
            ),
            "broken": Case(
                (
                    "{name}: mambarun, as the other one does not load (MR302)",
                    "{name}：由 mambarun 提供，因为另一个加载不了（MR302）",
                )
            ),
            "asked": Case(
                (
                    "{name}: mambarun, as MAMBARUN_PREFER or MAMBARUN_VARIANT asks",
                    "{name}：由 mambarun 提供，依据 MAMBARUN_PREFER 或 "
                    "MAMBARUN_VARIANT",
                )
            ),
            "works": Case(
                (
                    "{name}: another module of that name seems to work and is left "
                    "alone",
                    "{name}：另一个同名模块看来可用，保留不动",
                ),
                "export MAMBARUN_PREFER=ours",
            ),
            "before": Case(
                (
                    "{name}: another module comes before mambarun's on sys.path",
                    "{name}：sys.path 上另一个同名模块排在 mambarun 前面",
                ),
                "import mambarun; mambarun.install()",
            ),
            "disabled": Case(
                (
                    "{name}: left to another module by MAMBARUN_DISABLE",
                    "{name}：MAMBARUN_DISABLE 让给了另一个模块",
                ),
                "unset MAMBARUN_DISABLE",
            ),
            "disabled_nobody": Case(
                (
                    "{name}: nobody, as MAMBARUN_DISABLE turns mambarun's off",
                    "{name}：无人提供，MAMBARUN_DISABLE 关掉了 mambarun 的",
                ),
                "unset MAMBARUN_DISABLE",
            ),
            "no_standin": Case(
                (
                    "{name}: another module; mambarun's own is not on sys.path",
                    "{name}：由另一个模块提供；mambarun 的不在 sys.path 上",
                )
            ),
            "nothing": Case(
                (
                    "{name}: nobody supplies it, not even mambarun",
                    "{name}：无人提供，连 mambarun 的也没有",
                ),
                "pip install --force-reinstall --no-deps mambarun",
            ),
            "broken_wins": Case(
                (
                    "{name}: an import takes a module that does not load (MR302), not "
                    "mambarun's",
                    "{name}：导入会拿到一个加载不了的模块（MR302），而不是 mambarun 的",
                ),
                "import mambarun; mambarun.install()",
            ),
        },
        (
            """\
Who supplies each of the modules that mambarun promises.

"No module named selective_scan_cuda" and "name 'selective_scan_cuda_oflex' is not
defined" mean that nobody does; the second hides the first behind a guarded import. Many
projects import several of these names in one `try`, where one missing name loses all;
mambarun supplies every one of them, each with its own arguments. They are not to be
renamed into each other.

The rule: another module of the name that loads is left alone; one that does not load
gives way to mambarun's. MAMBARUN_PREFER=ours takes mambarun's in any case,
MAMBARUN_DISABLE leaves names alone. Whether a module loads is judged from its file
here, and by importing it under --run.""",
            """\
mambarun 负责提供的各个模块，实际由谁提供。

“No module named selective_scan_cuda” 和 “name 'selective_scan_cuda_oflex' is not
defined” 都说明没有人提供；后者只是因为导入写在 try/except 里，掩盖了前者。很多项目在同
一个 `try` 里导入好几个名字，缺一个就全部失效；mambarun 提供所有这些名字，各有各的参数，
不能把一个改名当另一个用。

规则是：能加载的同名模块保留不动；加载不了的让位给 mambarun。MAMBARUN_PREFER=ours 一律使
用 mambarun 的，MAMBARUN_DISABLE 则不碰指定的名字。这里只从文件判断能否加载，加上 --run
才会真正导入。""",
        ),
    ),
    "MR302": Text(
        "modules",
        ("no broken module is left", "没有残留的损坏模块"),
        {
            "none": Case(("no broken module is left", "没有残留的损坏模块")),
            "abi": Case(
                (
                    "{file} was built for a torch with cxx11abi={built}; yours is "
                    "{here}",
                    "{file} 是为 cxx11abi={built} 的 torch 编译的，你的是 {here}",
                ),
                "{remove}",
            ),
            "built_for": Case(
                (
                    "{file} was built for torch {built}; yours is {torch} and lacks "
                    "{symbol}",
                    "{file} 是为 torch {built} 编译的；"
                    "你的 torch {torch} 没有 {symbol}",
                ),
                "{remove}",
            ),
            "symbol": Case(
                (
                    "{file} was built for another torch: yours, {torch}, lacks "
                    "{symbol}",
                    "{file} 是为另一个 torch 编译的：你的 {torch} 没有 {symbol}",
                ),
                "{remove}",
            ),
            "torch_library": Case(
                (
                    "{file} was built for another torch: yours, {torch}, has no "
                    "{library}",
                    "{file} 是为另一个 torch 编译的：你的 {torch} 没有 {library}",
                ),
                "{remove}",
            ),
            "no_torch": Case(
                (
                    "{file} needs {library} of a torch that is not installed",
                    "{file} 需要 torch 的 {library}，而 torch 没有安装",
                ),
                "{remove}",
            ),
            "cuda_library": Case(
                (
                    "{file} was built with CUDA {cuda} and needs {library}; your torch "
                    "has CUDA {here}",
                    "{file} 是用 CUDA {cuda} 编译的，需要 {library}；"
                    "你的 torch 是 CUDA {here}",
                ),
                "{remove}",
            ),
            "library": Case(
                (
                    "{file} needs {library}, which is not found",
                    "{file} 需要 {library}，但找不到",
                ),
                "{remove}",
            ),
            "glibc": Case(
                (
                    "{file} was built on a newer system: it needs glibc {needs}, yours "
                    "is {here}",
                    "{file} 是在较新的系统上编译的：需要 glibc {needs}，你的是 {here}",
                ),
                "{remove}",
            ),
            "processor": Case(
                (
                    "{file} was built for {built}; this machine is {here}",
                    "{file} 是为 {built} 编译的，这台机器是 {here}",
                ),
                "{remove}",
            ),
            "python": Case(
                (
                    "{file} was built for another Python, {built}; this one is {here} "
                    "and does not see it",
                    "{file} 是为另一个 Python（{built}）编译的；当前是 {here}，"
                    "看不到它",
                ),
                "{remove}",
            ),
            "damaged": Case(
                (
                    "{file} is damaged or no module at all",
                    "{file} 已损坏，或者根本不是模块",
                ),
                "{remove}",
            ),
            "link": Case(
                ("{file} is a link that leads nowhere", "{file} 是失效的链接"),
                "{remove}",
            ),
            "gpu": Case(
                (
                    "{file} loads, and holds no code for {name} (compute capability "
                    "{capability})",
                    "{file} 能加载，但不含 {name} 的代码（计算能力 {capability}）",
                ),
                "export MAMBARUN_PREFER=ours",
            ),
        },
        (
            """\
Another compiled module of that name is installed and does not load.

mambarun supplies the name instead. The usual reasons:

    undefined symbol ...           it was compiled for another version of torch
    libcudart.so.11.0: cannot open it was compiled for another version of CUDA
    libc10.so: cannot open         torch was not imported before it
    GLIBC_2.32 not found           it was compiled on a newer system
    invalid ELF header, wrong ...  it is for another processor, or cut off

The wheels of mamba_ssm and causal_conv1d fit one torch, one CUDA, one C++ ABI and one
Python each; their names say which. A wheel whose name has cxx11abiTRUE does not fit a
torch 2.2 of pip, and installs without a word.

What to do

- Nothing: calls go to mambarun.
- To be rid of the warning, uninstall the package that left the file, or delete the
file; the warning names it. MAMBARUN_PREFER=ours does not even look for it. If the
package's Python half is still needed: see MR401.""",
            """\
装有另一个同名的编译模块，但它加载不了。

mambarun 会代替它。常见原因：

    undefined symbol ...           为另一个版本的 torch 编译
    libcudart.so.11.0: cannot open 为另一个版本的 CUDA 编译
    libc10.so: cannot open         在它之前没有导入 torch
    GLIBC_2.32 not found           在较新的系统上编译
    invalid ELF header, wrong ...  为别的处理器编译，或者文件不完整

mamba_ssm 和 causal_conv1d 的每个安装包只适用于一个 torch、一个 CUDA、一种 C++ ABI 和一
个 Python，都写在文件名里。文件名带 cxx11abiTRUE 的包不适用于 pip 安装的 torch 2.2，但安
装时不会有任何提示。

怎么办

- 什么都不用做：调用会走 mambarun。
- 想去掉警告，就卸载留下该文件的包，或者删除该文件，警告里有路径。设置
MAMBARUN_PREFER=ours 后根本不会去看它。如果还需要那个包的 Python 部分，参见 MR401。""",
        ),
    ),
    "MR303": Text(
        "modules",
        ("there is one copy of everything", "没有重复的副本"),
        {
            "none": Case(("no copy hides another", "没有互相覆盖的副本")),
            "copies": Case(
                (
                    "{name} is installed more than once; the first one is taken",
                    "{name} 安装了不止一份，使用第一份",
                ),
                "export MAMBARUN_PREFER=ours",
            ),
            "user": Case(
                (
                    "{packages} in {site} (pip install --user) comes before what any "
                    "environment has",
                    "{site} 里的 {packages}（pip install --user）优先于任何环境里的包",
                ),
                "{uninstall}",
            ),
            "clone": Case(
                (
                    "you are inside a clone: Python takes its {name}, not the one that "
                    "is installed",
                    "当前在源码目录里：Python 会使用这里的 {name}，而不是已安装的",
                ),
                "cd ..",
            ),
            "build": Case(
                (
                    "{file} was built in the current folder and is not installed",
                    "{file} 是在当前目录里编译的，没有安装",
                )
            ),
            "link": Case(
                (
                    "{file} sends imports to another folder (an editable install)",
                    "{file} 把导入指向别的目录（可编辑安装，即 pip install -e）",
                )
            ),
        },
        (
            """\
Python takes the first copy it finds, and later ones are without effect.

The order is: the folder of the program (or the current one), PYTHONPATH, the user site
(~/.local, from pip install --user), then the environment. So a `--user` install is seen
by every environment of that Python version and outlives them all, and inside a clone of
mamba, `import mamba_ssm` takes the clone, which has no compiled module.

What to do

- Uninstall what is not wanted with the pip of that Python, or start it with -s
(PYTHONNOUSERSITE=1). Start programs outside of a clone.""",
            """\
Python 使用先找到的那一份，后面的都不起作用。

顺序是：程序所在目录（或当前目录）、PYTHONPATH、用户目录（~/.local，来自 pip install
--user），最后才是环境。所以 `--user` 安装的包会被同一 Python 版本的所有环境看到，环境删
了它还在；而在 mamba 的源码目录里，`import mamba_ssm` 拿到的是源码，其中没有编译好的模
块。

怎么办

- 用对应 Python 的 pip 卸载不要的那一份，或者用 -s 启动（PYTHONNOUSERSITE=1）。不要在源
码目录里启动程序。""",
        ),
    ),
    "MR304": Text(
        "modules",
        ("what the environment asks of mambarun", "环境变量对 mambarun 的要求"),
        {
            "nothing": Case(
                ("no variable asks for anything", "没有设置相关的环境变量")
            ),
            "asked": Case(("asked for: {listed}", "已设置：{listed}")),
            "unknown": Case(
                (
                    "MAMBARUN_VARIANT is {variant}, which is no variant; valid are "
                    "{names}",
                    "MAMBARUN_VARIANT 是 {variant}，没有这个变体；可用的名字：{names}",
                ),
                "unset MAMBARUN_VARIANT",
            ),
            "unusable": Case(
                (
                    "MAMBARUN_VARIANT asks for {variant}, which does not run here",
                    "MAMBARUN_VARIANT 要求 {variant}，但它在这里不能运行",
                ),
                "unset MAMBARUN_VARIANT",
            ),
        },
        (
            """\
MAMBARUN_VARIANT asks for a variant that cannot be used.

It names exactly one variant, for all devices of its kind, and there is no fallback. The
message lists the names that exist, or says why this one does not run here.

What to do

- Correct the name, or unset MAMBARUN_VARIANT to have the best one chosen.""",
            """\
MAMBARUN_VARIANT 要求的变体不能使用。

它指定的就是那一个变体，对同类设备全部生效，不会自动换用别的。提示会列出存在的名字，或者说明这个
变体为什么不能在这里运行。

怎么办

- 改正名字，或者取消 MAMBARUN_VARIANT，由程序自动选择最好的。""",
        ),
    ),
    "MR305": Text(
        "modules",
        ("what is imported already", "已经导入的模块"),
        {
            "nothing": Case(
                ("no other module of these names is imported", "没有导入别的同名模块")
            ),
            "other": Case(
                (
                    "in this process {name} is already another module",
                    "当前进程里的 {name} 已经是另一个模块",
                ),
                "export MAMBARUN_PREFER=ours",
            ),
        },
        (
            """\
A name is settled when it is first imported, and stays so in that process.

This concerns only programs that run the checks from within.""",
            """\
一个名字在首次导入时确定，此后在该进程中不再改变。

只有在程序内部运行检查时才会遇到。""",
        ),
    ),
}
