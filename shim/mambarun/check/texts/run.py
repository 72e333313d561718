# SPDX-License-Identifier: Apache-2.0
"""run.py - the texts of MR601 to MR603. Data only."""

from .form import Case, Text

NOT_RUN = ("not run: see --run", "未运行（加 --run 可运行）")
NO_TORCH = ("not run: there is no torch that imports", "未运行：没有能导入的 torch")

HEADLINES = {
    "run": {
        "match": (
            "fwd and bwd of {count} modules on {device} ({variant}) match "
            "{reference}; largest errors {errors}",
            "{device}（{variant}）上 {count} 个模块的前向和反向与 {reference} 一致；"
            "最大误差 {errors}",
        ),
        "not_run": NOT_RUN,
        "fails": ("not everything works", "有项目未通过"),
    }
}

TEXTS = {
    "MR601": Text(
        "run",
        ("every module computes what it should", "每个模块的计算结果正确"),
        {
            "match": Case(
                (
                    "{calls} calls of {count} modules on {device} ({variant}) match "
                    "{reference}: largest errors {errors}; slowest {milliseconds} ms",
                    "{device}（{variant}）上 {count} 个模块的 {calls} 次调用与 "
                    "{reference} 一致：最大误差 {errors}；最慢 {milliseconds} ms",
                )
            ),
            "loads": Case(
                (
                    "the kernels of {variant} were ready on {device} after {seconds} s "
                    "(cubins are loaded, PTX is compiled)",
                    "{variant} 的内核在 {device} 上用 {seconds} 秒就绪"
                    "（cubin 直接加载，PTX 需要编译）",
                )
            ),
            "module": Case(
                (
                    "{module} on {devices}: {cases}; {times}",
                    "{module}（{devices}）：{cases}；{times}",
                )
            ),
            "copy": Case(
                (
                    "times for {case}; a copy moves {speed} GB/s, read and written",
                    "以下为 {case} 的耗时；拷贝速度 {speed} GB/s（读写合计）",
                )
            ),
            "bench": Case(
                (
                    "{module} {call}: {milliseconds} ms, {share}% of copy speed",
                    "{module} {call}：{milliseconds} ms，达到拷贝速度的 {share}%",
                )
            ),
            "differs": Case(
                (
                    "{module} {call} on {device}, {case}: off by {error} of the "
                    "largest value, {allowed} is allowed",
                    "{module} {call}（{device}，{case}）：误差是最大值的 {error}，"
                    "允许 {allowed}",
                ),
                "mambarun-check --run --report FILE",
            ),
            "raises": Case(
                (
                    "{module} on {device}, {case}, raises {error}",
                    "{module}（{device}，{case}）抛出异常：{error}",
                ),
                "mambarun-check --run --report FILE",
            ),
            "no_reference": Case(
                (
                    "{module} {call}, {case}: the CPU gave nothing to compare with",
                    "{module} {call}，{case}：CPU 没有给出可比较的结果",
                ),
                "mambarun-check --run --report FILE",
            ),
            "dies": Case(
                (
                    "the process that runs the modules ended ({how}) at: {stage}",
                    "运行模块的进程在 {stage} 这一步结束了（{how}）",
                ),
                "mambarun-check --run --report FILE",
            ),
            "other": Case(
                (
                    "{module} is another package's and was not run",
                    "{module} 由别的包提供，没有运行",
                ),
                "export MAMBARUN_PREFER=ours",
            ),
            "not_asked": Case(NOT_RUN),
            "no_torch": Case(NO_TORCH),
        },
        (
            """\
Each module is called forward and backward, and the numbers are compared.

In a process of its own, with small tensors of an odd length: float32, float16,
bfloat16; strided ones; on a GPU also on a stream of its own and on the second GPU. On a
GPU the results are compared with the CPU variant's, on a machine without one with those
of cpu_scalar. An error is the largest difference as a share of the largest value.

If this fails on a GPU where torch itself works, it is a fault of mambarun: please
report it with the file that --report writes.""",
            """\
逐个调用每个模块的前向和反向，并比较数值。

在单独的进程里进行，使用长度为奇数的小张量：float32、float16、bfloat16，以及非连续的张
量；GPU 上还会使用单独的流和第二块 GPU。GPU 的结果与 CPU 变体比较；没有 GPU 的机器上与
cpu_scalar 比较。误差是最大差值与最大值之比。

如果 torch 自身在这块 GPU 上正常而这里失败，就是 mambarun 的缺陷，请附上 --report 写出的
文件报告给我们。""",
        ),
    ),
    "MR602": Text(
        "run",
        ("the device works in a forked process", "fork 出的子进程能使用设备"),
        {
            "works": Case(
                (
                    "imported here, used in a forked process: works",
                    "在父进程导入、在 fork 出的子进程使用：正常",
                )
            ),
            "fails": Case(
                (
                    "imported here, used in a forked process: fails",
                    "在父进程导入、在 fork 出的子进程使用：失败",
                ),
                "mambarun-check --explain MR119",
            ),
            "not_reached": Case(NOT_RUN),
            "not_asked": Case(NOT_RUN),
            "no_torch": Case(NO_TORCH),
        },
        (
            """\
Importing must not initialise CUDA, or worker processes could not use it.

A DataLoader forks. Here the modules are imported, the process forks, and the child uses
the device. If that fails, something that was imported has used CUDA: see MR119.""",
            """\
导入模块时不能初始化 CUDA，否则子进程就用不了。

DataLoader 会 fork。这里先导入模块，再 fork，由子进程使用设备。如果失败，说明导入的某个
东西已经用过 CUDA：参见 MR119。""",
        ),
    ),
    "MR603": Text(
        "run",
        ("torch and the modules import", "torch 和各模块能导入"),
        {
            "imports": Case(
                (
                    "torch {torch} and every module import",
                    "torch {torch} 和各模块都能导入",
                )
            ),
            "torch": Case(
                ("torch does not import: {error}", "torch 无法导入：{error}"),
                "pip install --force-reinstall torch",
            ),
            "module": Case(
                ("{name} does not import: {error}", "{name} 无法导入：{error}"),
                "mambarun-check --explain MR301",
            ),
            "dies": Case(
                (
                    "the process that imports torch ended ({how}) at: {stage}",
                    "导入 torch 的进程在 {stage} 这一步结束了（{how}）",
                ),
                "python -c 'import torch'",
            ),
            "not_asked": Case(NOT_RUN),
            "no_torch": Case(NO_TORCH),
        },
        (
            """\
torch and the promised modules are imported as a program does it.

If that fails, the report shows the end of Python's own traceback. A torch that does not
import has a reason of its own, which often is another copy of its libraries (MR504) or
an upgrade that was cut short (MR203).""",
            """\
像普通程序那样导入 torch 和 mambarun 负责提供的各个模块。

失败时，报告会显示 Python 的 Traceback 末尾。torch 自己导入不了，原因往往是它的库有另一
份副本（MR504），或者升级没有完成（MR203）。""",
        ),
    ),
}
