# SPDX-License-Identifier: Apache-2.0
"""codes.py - docs/checks.md and docs/checks.zh.md are what mambarun-check's own texts
say, and every code that a message or the library names has a text. With --write it
writes the two files.
"""

from __future__ import annotations

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "shim"))

from mambarun.check import layout  # noqa: E402
from mambarun.check.texts import TEXTS  # noqa: E402

FILES = {"en": ROOT / "docs/checks.md", "zh": ROOT / "docs/checks.zh.md"}
HEAD = """\
<!-- Written by ci/checks/codes.py --write from shim/mambarun/check/texts. -->
"""
INTRODUCTION = {
    "en": """\
# Codes of mambarun-check

Error messages of mambarun and findings of `mambarun-check` carry a code. A code keeps
its meaning for ever. `mambarun-check --explain CODE` prints the same text; `--lang zh`
in Chinese, which is also in [checks.zh.md](checks.zh.md). Words in *italics* are filled
in; after an arrow stands what to do.

`mambarun-check --json` prints one object, in English: `schema` (1), `mambarun` (its
version), `verdict` (`ok`; `degraded`: on the CPU only; `unusable`; `unknown`: the check
did not finish), `sentence`, `exit`, `selected` {`gpu`, `variant`, `mode`: `cubin`,
`ptx` or `cpu`}, `machine` {`system`, `arch`, `libc`, `python`, `torch`, `driver`,
`driver_api`, `gpus`, `libraries`}, `tables` (the date of what is known of versions),
`variants` [{`id`, `accepted`, `reason`}], `modules`
[{`name`, `provider`, `file`, `shadowed`}], `checks` [{`id`, `status`: `ok`, `info`,
`warn`, `error` or `skip`, `summary`, `evidence`, `fix`}] and `failures` (checks that
broke). Keys are added, never taken away, while `schema` is 1.
""",
    "zh": """\
# mambarun-check 的编号

mambarun 的报错信息和 `mambarun-check` 的检查结果都带有编号，编号的含义永不改变。
`mambarun-check --explain 编号 --lang zh` 输出同样的说明；英文版见
[checks.md](checks.md)，其中还有 `--json` 各字段的说明。*斜体*处由实际内容代替；
箭头后面是解决办法。
""",
}
SAYS = {"en": "It can say:", "zh": "可能的结果："}
NAMED = {"en": "Only error messages name it.", "zh": "仅出现在报错信息中。"}


def page(lang: str) -> str:
    parts = [HEAD, INTRODUCTION[lang]]
    parts += [section(code, lang) for code in TEXTS]
    return "\n".join(parts)


def section(code: str, lang: str) -> str:
    text = TEXTS[code]
    whole = text.explanation if isinstance(text.explanation, str) else None
    explanation = whole or text.explanation[lang == "zh"]
    lines = [f"## {code}: {italic(pick(text.title, lang))}", ""]
    lines += list(body(explanation))
    if text.cases:
        lines += [SAYS[lang], ""]
        lines += [item(case, lang) for case in text.cases.values()]
    else:
        lines.append(NAMED[lang])
    return "\n".join(lines) + "\n"


def body(explanation: str):
    """An explanation, whose form is Markdown already, with its paragraphs joined."""
    for block in explanation.split("\n\n"):
        yield from layout.items(block)
        yield ""


def item(case, lang: str) -> str:
    what, fix = italic(pick(case.what, lang)), pick(case.fix, lang)
    if not fix:
        return f"- {what}"
    command = isinstance(case.fix, str)
    return f"- {what} → " + (f"`{fix}`" if command else italic(fix))


def pick(pair, lang: str) -> str:
    return pair if isinstance(pair, str) else pair[lang == "zh"]


def italic(text: str) -> str:
    return re.sub(r"`?\{(\w+)\}`?", r"*\1*", text)


def named() -> dict[str, str]:
    """Code -> a file that names it."""
    sources = [
        *(ROOT / "libmambarun").rglob("*.[ch]"),
        *(ROOT / "libmambarun").rglob("*.def"),
        *(ROOT / "shim/mambarun").rglob("*.py"),
    ]
    found = {}
    for source in sources:
        for code in re.findall(r"\bMR\d\d\d\b", source.read_text()):
            found.setdefault(code, str(source.relative_to(ROOT)))
    return found


def faults() -> list[str]:
    wrong = [
        f"{file}: names {code}, which has no text"
        for code, file in named().items()
        if code not in TEXTS
    ]
    for lang, file in FILES.items():
        if not file.is_file() or file.read_text() != page(lang):
            wrong.append(
                f"{file.relative_to(ROOT)}: is not what the texts say; run "
                "ci/checks/codes.py --write"
            )
    return wrong


def main(arguments: list[str]) -> int:
    if arguments == ["--write"]:
        for lang, file in FILES.items():
            file.write_text(page(lang))
            print(f"wrote {file.relative_to(ROOT)}")
        return 0
    if arguments:
        print("usage: codes.py [--write]")
        return 2
    wrong = faults()
    for line in wrong:
        print(line)
    if not wrong:
        cases = sum(len(text.cases) for text in TEXTS.values())
        print(f"OK: {len(TEXTS)} codes, {cases} sentences, each in two languages")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
