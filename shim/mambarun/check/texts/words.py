# SPDX-License-Identifier: Apache-2.0
"""words.py - the words around the findings: verdicts, last line, labels. Data only."""

VERDICTS = {
    "gpu": (
        "selective scan: GPU kernels, variant {variant} ({mode}) on {gpu}",
        "选择性扫描：GPU 内核，变体 {variant}（{mode}），{gpu}",
    ),
    "cpu": (
        "selective scan: CPU only, variant {variant} ({reason})",
        "选择性扫描：仅 CPU，变体 {variant}（{reason}）",
    ),
    "disabled": (
        "selective scan: disabled by MAMBARUN_DISABLE",
        "选择性扫描：已被 MAMBARUN_DISABLE 关闭",
    ),
    "unusable": ("unusable: {code} {what}", "不可用：{code} {what}"),
    "unknown": ("no verdict: {code} {what}", "无法下结论：{code} {what}"),
    "failed": ("no verdict: the check itself failed", "无法下结论：检查程序自身出错"),
}

REASONS = {  # why only the CPU
    "driver": ("no usable NVIDIA driver", "没有可用的 NVIDIA 驱动"),
    "gpu": ("no visible GPU", "没有可见的 GPU"),
    "torch": ("torch without CUDA", "torch 不带 CUDA"),
}

LAST = {
    "usable": ("Usable.", "可用。"),
    "warning": ("Usable, with 1 warning.", "可用，有 1 个警告。"),
    "warnings": ("Usable, with {count} warnings.", "可用，有 {count} 个警告。"),
    "error": ("Not usable: 1 error.", "不可用：1 个错误。"),
    "errors": ("Not usable: {count} errors.", "不可用：{count} 个错误。"),
    "strict": (
        "Not usable under --strict: warnings count as errors.",
        "在 --strict 下不可用：警告按错误计。",
    ),
    "unknown": (
        "No verdict: the check itself did not finish.",
        "无法下结论：检查没有完成。",
    ),
}

LABELS = {
    "exit": ("exit", "退出码"),
    "fix": ("fix: ", "解决："),
    "explain": (
        "more on a code: mambarun-check --explain {code}",
        "详细说明：mambarun-check --explain {code} --lang zh",
    ),
    "variants": ("variants, in order of preference", "各变体，按优先顺序"),
    "tables": (
        "what is known of versions is of {date}",
        "版本对应关系的资料截至 {date}",
    ),
    "running": (
        "importing torch and running the modules; --no-run leaves this out",
        "正在导入 torch 并运行各模块；加 --no-run 可以跳过",
    ),
    "failed": ("the check itself failed in {group}:", "检查程序自身出错（{group}）："),
    "only_messages": (" (named by error messages)", "（仅出现在报错信息中）"),
}
