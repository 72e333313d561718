# SPDX-License-Identifier: Apache-2.0
"""layout.py - text for a terminal: columns that a character takes, lines of 80 of them,
marks and colours. Knows nothing of findings.
"""

from __future__ import annotations

import re
import unicodedata

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator, Mapping

WIDTH = 80

# What Python itself puts into LC_CTYPE where the locale is C (PEP 538).
COERCED = ("C", "C.UTF-8", "C.utf8", "UTF-8")

# A word, or one Chinese character, with the punctuation that may not leave it.
_UNIT = re.compile(
    r"[（“]*(?:[^\s\u3000-\u9fff\uff00-\uffef“”]+|\S)[，。；：、）”！？]*"
)
# A word of a shell command: what is quoted is not broken.
_WORD = re.compile(r"""(?:[^\s"']|"[^"]*"|'[^']*')+""")
_COLOURS = {"ok": "32", "info": "36", "warn": "33", "error": "31", "skip": "2"}
_MARKS = {"ok": "✓", "info": "i", "warn": "!", "error": "✗", "skip": "-"}
_ASCII_MARKS = {"ok": "ok", "info": "i", "warn": "!", "error": "X", "skip": "-"}


class Style:
    """What the terminal can show."""

    def __init__(self, colours: bool = False, unicode_: bool = False) -> None:
        self.colours = colours
        self.unicode = unicode_

    @staticmethod
    def of(stream: object, environ: Mapping[str, str]) -> Style:
        """Colours only for a terminal, without NO_COLOR and TERM=dumb; more than ASCII
        only in a UTF-8 locale."""
        terminal = getattr(stream, "isatty", lambda: False)()
        plain = "NO_COLOR" in environ or environ.get("TERM", "dumb") == "dumb"
        encoding = (getattr(stream, "encoding", None) or "").lower().replace("-", "")
        return Style(terminal and not plain, encoding == "utf8" and _utf8(environ))

    def mark(self, status: str) -> str:
        """Five columns: "[ok] " or "✓    "."""
        if self.unicode:
            return self.paint(_MARKS[status], status) + " " * 4
        text = f"[{_ASCII_MARKS[status]}]"
        return self.paint(text, status) + " " * (5 - len(text))

    def paint(self, text: str, status: str) -> str:
        return f"\033[{_COLOURS[status]}m{text}\033[0m" if self.colours else text


def locale(environ: Mapping[str, str], *more: str) -> str:
    """The first that is set of LC_ALL, those in more, and LANG."""
    return next(filter(None, map(environ.get, ("LC_ALL", *more, "LANG"))), "") or ""


def _utf8(environ: Mapping[str, str]) -> bool:
    named = environ.get("LC_ALL") or environ.get("LANG") or "C"
    if named in ("C", "POSIX") and environ.get("LC_CTYPE", "C") in COERCED:
        return False
    return "utf8" in locale(environ, "LC_CTYPE").lower().replace("-", "")


def columns(text: str) -> int:
    """How many a terminal needs: two for a Chinese character."""
    return sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def pad(text: str, width: int) -> str:
    return text + " " * max(0, width - columns(text))


def wrap(text: str, indent: str, first: str | None = None) -> Iterator[str]:
    """Lines of at most WIDTH columns; a word that is longer gets a line of its own.
    first: what begins the first line, instead of indent."""
    line = indent if first is None else first
    empty, at = True, 0
    for unit in _UNIT.finditer(text):
        space = " " if not empty and text[at : unit.start()] else ""
        if not empty and columns(line + space + unit[0]) > WIDTH:
            yield line
            line, space = indent, ""
        line += space + unit[0]
        empty, at = False, unit.end()
    yield line


def wrap_command(text: str, indent: str, first: str) -> Iterator[str]:
    """A shell command over several lines that can be copied: ` \\` ends all but the
    last."""
    line, empty = first, True
    for word in _WORD.findall(text):
        if not empty and columns(f"{line} {word} \\") > WIDTH:
            yield line + " \\"
            line, empty = indent + "    ", True
        line += word if empty else " " + word
        empty = False
    yield line


def paragraphs(text: str) -> Iterator[str]:
    """An explanation (form.py) as lines of at most WIDTH columns."""
    for block in text.split("\n\n"):
        for item in items(block):
            if item.startswith("    "):
                yield item
            elif item.startswith("- "):
                yield from wrap(item[2:], "    ", "  - ")
            else:
                yield from wrap(item, "")
        yield ""


def items(block: str) -> Iterator[str]:
    """A block's points, kept lines, and its running text, each as one."""
    item = ""
    for line in block.split("\n"):
        if line.startswith("    ") or line.startswith("- "):
            if item:
                yield item
            item = line
            if line.startswith("    "):
                yield item
                item = ""
        else:
            item = join(item, line) if item else line
    if item:
        yield item


def join(one: str, other: str) -> str:
    """Two lines of running text: a blank between words, none between Chinese."""
    last, first = one[-1:], other[:1]
    chinese = columns(last) == 2 and columns(first) == 2
    punctuation = last in "，。；：、（" or first in "，。；：、）"
    return one + ("" if chinese or punctuation else " ") + other
