# SPDX-License-Identifier: Apache-2.0
"""packages.py - the texts of MR401 to MR410. Data only."""

from .form import Case, Text

EXPLAIN_PURE = "mambarun-check --explain MR401"

HEADLINES = {
    "packages": {
        "some": ("{listed}", "{listed}"),
        "none": (
            "neither mamba-ssm nor causal-conv1d (VMamba needs neither)",
            "没有 mamba-ssm 和 causal-conv1d（VMamba 两者都不需要）",
        ),
    }
}

TEXTS = {
    "MR401": Text(
        "packages",
        (
            "the Python halves: mamba_ssm and causal_conv1d",
            "Python 部分：mamba_ssm 和 causal_conv1d",
        ),
        {
            "absent": Case(
                (
                    "{package} is not installed; a model that imports it needs its "
                    "Python half, here {package} {wanted}, and no compiler",
                    "没有安装 {package}；导入它的模型需要它的 Python 部分"
                    "（这里适用 {package} {wanted}），不需要编译器",
                ),
                EXPLAIN_PURE,
            ),
            "bare": Case(
                (
                    "{package} is a plain folder, not installed by pip: transformers "
                    "before 5 does not see it",
                    "{package} 只是一个目录，不是 pip 安装的："
                    "transformers 5 以前的版本看不到它",
                ),
                EXPLAIN_PURE,
            ),
            "kernels": Case(
                (
                    "{package} {version}, with a compiled module of its own",
                    "{package} {version}，自带编译的模块",
                )
            ),
            "pure": Case(
                (
                    "{package} {version}, without a compiled module: mambarun's is "
                    "used",
                    "{package} {version}，不带编译的模块：使用 mambarun 的",
                )
            ),
        },
        (
            """\
mamba_ssm and causal_conv1d are Python packages above the compiled modules.

mambarun supplies the modules, not these packages. They install without a compiler, a
toolkit or a GPU, if their setup scripts are told to leave the modules out and not to
download a wheel. With torch 2.4 or newer:

    MAMBA_SKIP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE \\
        pip install --no-build-isolation --no-deps mamba-ssm==2.3.1
    CAUSAL_CONV1D_SKIP_CUDA_BUILD=TRUE CAUSAL_CONV1D_FORCE_BUILD=TRUE \\
        pip install --no-build-isolation --no-deps causal-conv1d==1.6.1

Before that, mamba-ssm==2.2.4 and causal-conv1d==1.5.0.post8. They want setuptools,
wheel, packaging and torch to be there while they install, and einops, transformers and
triton when they are imported; --no-deps keeps them from replacing torch.""",
            """\
mamba_ssm 和 causal_conv1d 是编译模块之上的 Python 包。

mambarun 提供的是编译模块，不是这两个包。只要让它们的安装脚本跳过编译模块、也不去下载安
装包，就不需要编译器、工具包和 GPU。torch 2.4 以上：

    MAMBA_SKIP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE \\
        pip install --no-build-isolation --no-deps mamba-ssm==2.3.1
    CAUSAL_CONV1D_SKIP_CUDA_BUILD=TRUE CAUSAL_CONV1D_FORCE_BUILD=TRUE \\
        pip install --no-build-isolation --no-deps causal-conv1d==1.6.1

更早的 torch 用 mamba-ssm==2.2.4 和 causal-conv1d==1.5.0.post8。安装时要有 setuptools、
wheel、packaging 和 torch，导入时要有 einops、transformers 和 triton；--no-deps 可以防止
它们替换 torch。""",
        ),
    ),
    "MR402": Text(
        "packages",
        (
            "mamba_ssm and causal_conv1d go together",
            "mamba_ssm 与 causal_conv1d 版本匹配",
        ),
        {
            "fits": Case(
                (
                    "mamba-ssm {mamba} and causal-conv1d {conv} go together",
                    "mamba-ssm {mamba} 与 causal-conv1d {conv} 匹配",
                )
            ),
            "none": Case(("not both are installed", "没有同时安装")),
            "functions": Case(
                (
                    "mamba-ssm {mamba} needs causal-conv1d 1.5.1 or newer "
                    "(cpp_functions), or its fast path is off; here is {conv}",
                    "mamba-ssm {mamba} 需要 causal-conv1d 1.5.1 以上（cpp_functions）"
                    "，否则快速路径会关闭；当前是 {conv}",
                ),
                EXPLAIN_PURE,
            ),
            "torch": Case(
                (
                    "causal-conv1d {conv} needs torch 2.4 or newer; here is {torch}",
                    "causal-conv1d {conv} 需要 torch 2.4 以上；当前是 {torch}",
                ),
                EXPLAIN_PURE,
            ),
        },
        (
            """\
Versions of the two packages depend on each other.

mamba_ssm from 2.2.5 on imports causal_conv1d.cpp_functions, which exists from 1.5.1 on;
where it is missing, all four of its functions are None: "'NoneType' object has no
attribute 'causal_conv1d_fwd'", "causal_conv1d_cuda is not available". That file needs
torch 2.4. The compiled module does not matter here: mambarun's takes every argument
list that any version's callers use ("incompatible function arguments" is gone).""",
            """\
这两个包的版本互相依赖。

mamba_ssm 2.2.5 起要导入 causal_conv1d.cpp_functions，而后者从 1.5.1 起才有；缺少时四个
函数都是 None，于是报 “'NoneType' object has no attribute 'causal_conv1d_fwd'” 或
“causal_conv1d_cuda is not available”。该文件又要求 torch 2.4。编译模块在这里无关紧要：
mambarun 的模块接受各个版本的调用者用过的所有参数形式，不会再出现 “incompatible function
arguments”。""",
        ),
    ),
    "MR403": Text(
        "packages",
        ("whose mamba_ssm it is", "mamba_ssm 是谁的版本"),
        {
            "stock": Case(("mamba_ssm is the original", "mamba_ssm 是原版")),
            "fork": Case(
                ("mamba_ssm is the fork of {fork}", "mamba_ssm 是 {fork} 的修改版")
            ),
            "none": Case(("there is no mamba_ssm", "没有 mamba_ssm")),
        },
        (
            """\
Several projects bring a mamba_ssm of their own, and it is not the one that pip has.

"Mamba.__init__() got an unexpected keyword argument 'bimamba_type'" (or 'bimamba',
'nslices', 'scan_type') means that the original is installed where a fork is wanted.
As mambarun supplies the kernels, put the fork's folder on PYTHONPATH; nothing has to be
built, and nothing copied over site-packages.""",
            """\
好几个项目自带修改过的 mamba_ssm，与 pip 上的不同。

“Mamba.__init__() got an unexpected keyword argument 'bimamba_type'”（或 'bimamba'、
'nslices'、'scan_type'）说明该用修改版的地方装了原版。内核由 mambarun 提供，只要把修改版
的目录加到 PYTHONPATH 即可，不必编译，更不要覆盖 site-packages。""",
        ),
    ),
    "MR404": Text(
        "packages",
        (
            "mamba_ssm and transformers go together",
            "mamba_ssm 与 transformers 版本匹配",
        ),
        {
            "fits": Case(
                (
                    "mamba-ssm {mamba} goes with transformers {transformers}",
                    "mamba-ssm {mamba} 与 transformers {transformers} 匹配",
                )
            ),
            "clash": Case(
                (
                    "mamba-ssm {mamba} does not import with transformers "
                    "{transformers}: GreedySearchDecoderOnlyOutput is gone",
                    "mamba-ssm {mamba} 在 transformers {transformers} 下无法导入："
                    "GreedySearchDecoderOnlyOutput 已被移除",
                ),
                'pip install "transformers<5"',
            ),
            "none": Case(("not both are installed", "没有同时安装")),
        },
        (
            """\
transformers 5 removed a class that mamba_ssm before 2.3.0 imports.

"cannot import name 'GreedySearchDecoderOnlyOutput' from 'transformers.generation'".

What to do

- Keep transformers below 5, or take mamba-ssm 2.3.0 or 2.3.1 (MR401).""",
            """\
transformers 5 移除了 mamba_ssm 2.3.0 以前要导入的一个类。

报错是 “cannot import name 'GreedySearchDecoderOnlyOutput' from
'transformers.generation'”。

怎么办

- transformers 保持在 5 以下，或者换用 mamba-ssm 2.3.0 或 2.3.1（MR401）。""",
        ),
    ),
    "MR405": Text(
        "packages",
        (
            "what mamba_ssm 2.3.2 also imports is there",
            "mamba_ssm 2.3.2 额外导入的包齐全",
        ),
        {
            "fits": Case(
                (
                    "mamba-ssm {mamba} finds what it imports",
                    "mamba-ssm {mamba} 要导入的包齐全",
                )
            ),
            "missing": Case(
                (
                    "mamba-ssm {mamba} also imports Mamba-3, which needs {missing}",
                    "mamba-ssm {mamba} 还会导入 Mamba-3，需要 {missing}",
                ),
                EXPLAIN_PURE,
            ),
            "ffi": Case(
                (
                    "apache-tvm-ffi {ffi} breaks tilelang 0.1.8, and with it the "
                    "import of mamba-ssm {mamba}",
                    "apache-tvm-ffi {ffi} 与 tilelang 0.1.8 不兼容，"
                    "mamba-ssm {mamba} 因此无法导入",
                ),
                'pip install "apache-tvm-ffi==0.1.9"',
            ),
            "none": Case(
                ("mamba-ssm is older, or not there", "mamba-ssm 较旧或没有安装")
            ),
        },
        (
            """\
mamba_ssm from 2.3.2 on imports Mamba-3, and with it tilelang, tvm_ffi and quack.

One of these missing or too new ends the import of everything: "attribute '__dict__' of
'type' objects is not writable". For Mamba-1 and Mamba-2, 2.3.0 and 2.3.1 have all that
is needed and import none of them (MR401).""",
            """\
mamba_ssm 2.3.2 起会导入 Mamba-3，连带 tilelang、tvm_ffi 和 quack。

其中一个缺失或太新，整个导入就会失败：“attribute '__dict__' of 'type' objects is not
writable”。只用 Mamba-1 和 Mamba-2 时，2.3.0 和 2.3.1 功能齐全，也不导入这些包
（MR401）。""",
        ),
    ),
    "MR406": Text(
        "packages",
        ("numpy, triton and einops", "numpy、triton 和 einops"),
        {
            "fits": Case(
                (
                    "numpy, triton and einops are in order",
                    "numpy、triton 和 einops 没有问题",
                )
            ),
            "numpy": Case(
                (
                    "torch {torch} was built for NumPy 1; here is {numpy}",
                    "torch {torch} 是为 NumPy 1 构建的；当前是 {numpy}",
                ),
                'pip install "numpy<2"',
            ),
            "missing": Case(
                (
                    "mamba_ssm imports {package}, which is missing",
                    "mamba_ssm 要导入 {package}，但没有安装",
                ),
                "pip install {package}",
            ),
        },
        (
            """\
Packages that mamba_ssm and older versions of torch need beside them.

"A module that was compiled using NumPy 1.x cannot be run in NumPy 2" is about torch
before 2.3. mamba_ssm imports einops, and triton for its layer norm. mambarun itself
needs none of them.""",
            """\
mamba_ssm 和较旧的 torch 另外需要的包。

“A module that was compiled using NumPy 1.x cannot be run in NumPy 2” 说的是 2.3 以前的
torch。mamba_ssm 要导入 einops，层归一化还要用 triton。mambarun 自己都不需要。""",
        ),
    ),
    "MR410": Text(
        "packages",
        ("the fast path of transformers is on", "transformers 的快速路径可用"),
        {
            "here": Case(
                (
                    "transformers {transformers} finds mamba_ssm and causal_conv1d; "
                    "not there: {also}",
                    "transformers {transformers} 能找到 mamba_ssm 和 causal_conv1d；"
                    "没有安装：{also}",
                )
            ),
            "missing": Case(
                (
                    "transformers {transformers} takes its slow path: it does not see "
                    "{missing}",
                    "transformers {transformers} 会走慢速路径：看不到 {missing}",
                ),
                EXPLAIN_PURE,
            ),
            "none": Case(("transformers is not installed", "没有安装 transformers")),
        },
        (
            """\
"The fast path is not available because one of (...) is None."

transformers looks for the packages mamba_ssm and causal_conv1d (some models also for
flash-linear-attention, `fla`), not for the compiled modules; up to version 4 it also
wants them to be installed by pip, so a folder on PYTHONPATH does not count. One missing
package turns all of it off. MR401 says how to get them without a compiler; the package
`kernels` is no substitute, as it downloads while the program runs.""",
            """\
“The fast path is not available because one of (...) is None.”

transformers 查找的是 mamba_ssm 和 causal_conv1d 这两个包（有些模型还要
flash-linear-attention，即 `fla`），而不是编译的模块；4.x 还要求它们由 pip 安装，
PYTHONPATH 上的目录不算。少一个，整个快速路径就关闭。不用编译器的安装方法见 MR401；
`kernels` 包不能代替，它要在程序运行时联网下载。""",
        ),
    ),
}
