# SPDX-License-Identifier: Apache-2.0
"""Small faults, derived mechanically from C or CUDA sources in the house's format: text
in, places and replacements out. Builds nothing, runs nothing, knows no op."""

from __future__ import annotations

import random
import re
from bisect import bisect_right
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, Iterator, Sequence

#: what an index or an argument may be called that says where in a tensor to look
PLACES = "b d g n t c i u v r row slice chunk part time group start at step lane"

OPPOSITES = {
    "+": "-",
    "-": "+",
    "*": "+",
    "/": "*",
    "%": "/",
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
    "==": "!=",
    "!=": "==",
    "&&": "||",
    "||": "&&",
    "<<": ">>",
    ">>": "<<",
    "&": "|",
    "|": "&",
    "+=": "-=",
    "-=": "+=",
    "*=": "+=",
}


@dataclass(frozen=True)
class Fault:
    """kind  of KINDS
    file  below the root, function  in which
    start, end, after  characters start..end of the file become after"""

    kind: str
    file: str
    function: str
    line: int
    start: int
    end: int
    before: str
    after: str
    kernel: str = ""  # into which alone it is put

    def of_kernel(self, name: str) -> Fault:
        return replace(self, kernel=name)

    def apply(self, text: str) -> str:
        return text[: self.start] + self.after + text[self.end :]

    def source(self, text: str) -> tuple[str, str]:
        """The line, or lines, as they are and as they become."""
        first = text.rfind("\n", 0, self.start) + 1
        last = text.find("\n", self.end)
        lines = text[first:last]
        changed = lines[: self.start - first] + self.after + lines[self.end - first :]
        return " ".join(lines.split()), " ".join(changed.split())


class Source:
    """One file. code is its text with comments, strings and preprocessor lines blank,
    character for character; functions are the spans of their bodies in it."""

    def __init__(self, file: str, text: str) -> None:
        self.file, self.text, self.code = file, text, blanked(text)
        self.lines = [m.start() for m in re.finditer(r"^", text, re.M)]
        self.functions = list(function_bodies(self.code))

    def fault(self, kind: str, start: int, before: str, after: str) -> Fault:
        inside = [name for name, a, b in self.functions if a <= start < b]
        line = bisect_right(self.lines, start)
        end = start + len(before)
        name = "".join(inside)
        return Fault(kind, self.file, name, line, start, end, before, after)

    def faults(self, kinds: Sequence[str]) -> Iterator[Fault]:
        for _, start, end in self.functions:
            for kind in kinds:
                for at, stop, after in KINDS[kind](self.code, start, end):
                    yield self.fault(kind, at, self.text[at:stop], after)


def blanked(text: str) -> str:
    patterns = (
        r"/\*.*?\*/",
        r"//[^\n]*",
        r'"(?:\\.|[^"\\\n])*"',
        r"'(?:\\.|[^'\\\n])+'",
        r"^[ \t]*#(?:\\\n|[^\n])*",
    )
    return re.sub(
        "|".join(patterns),
        lambda m: re.sub(r"[^\n]", " ", m[0]),
        text,
        flags=re.S | re.M,
    )


def function_bodies(code: str) -> Iterator[tuple[str, int, int]]:
    """(name, start, end) of what stands between the braces of each function."""
    heads = re.compile(r"(?<=[\s*])(\w+)\((?:[^(){};]|\([^()]*\))*\)\s*\{")
    position = 0
    while head := heads.search(code, position):
        position = closing(code, head.end() - 1)
        yield head[1], head.end(), position


def closing(code: str, opening: int) -> int:
    """Where the bracket at opening closes."""
    depth = 0
    for i in range(opening, len(code)):
        depth += (code[i] in "([{") - (code[i] in ")]}")
        if depth == 0:
            return i
    raise ValueError("a bracket that stays open")


# ---- kinds: (code, start, end) -> (start, end, replacement) ------------------------

Found = Iterator["tuple[int, int, str]"]


def operators(code: str, start: int, end: int) -> Found:
    binary = "|".join(map(re.escape, sorted(OPPOSITES, key=len, reverse=True)))
    for m in re.compile(rf"(?<=[\w)\]] )({binary})(?=\s)").finditer(code, start, end):
        yield m.start(1), m.end(1), OPPOSITES[m[1]]


def signs(code: str, start: int, end: int) -> Found:
    """A minus that is gone, or a minus before what is assigned or returned."""
    for m in re.compile(r"(?<=[(,=?:] )-(?=[\w(])|(?<=\()-(?=[\w(])").finditer(
        code, start, end
    ):
        yield m.start(), m.end(), ""
    for m in re.compile(r"(?:[\w\])] [-+]?= |return )([^;{}?]+);").finditer(
        code, start, end
    ):
        if not m[1].startswith(("-", "0;", "NULL")) and "=" not in m[1]:
            yield m.start(1), m.end(1), f"-({code[m.start(1) : m.end(1)]})"


def indices(code: str, start: int, end: int) -> Found:
    """The element after; not in declarations, whose extents are constants."""
    for m in re.compile(r"(?<=[\w\]])\[").finditer(code, start, end):
        stop = closing(code, m.start())
        inside = code[m.end() : stop]
        if inside and not re.fullmatch(
            r"[A-Z_0-9 +*()]*[A-Z_]+[A-Z_0-9 +*()]*", inside
        ):
            yield stop, stop, " + 1"


def constants(code: str, start: int, end: int) -> Found:
    """An integer one off, a float one in a hundred off."""
    number = re.compile(
        r"(?<![\w.])(0x[\da-f.]+(?:p[-+]?\d+f?|u)?|\d+(?:\.\d+)?(?:e[-+]?\d+)?[fu]?)(?![\w.])"
    )
    for m in number.finditer(code, start, end):
        text = m[1]
        whole = re.fullmatch(r"(0x[\da-f]+|\d+)u?", text)
        if whole:
            value = int(whole[1], 0)
            yield m.start(), m.end(), str(1 - value if value < 2 else value + 1)
        else:
            yield m.start(), m.end(), f"({text} * 1.01f)"


def _term_end(code: str, at: int, stops: str) -> int:
    """The end of the term that begins at at: before one of the stops, at this depth."""
    while at < len(code):
        if code[at] in "([":
            at = closing(code, at)
        elif code[at] in ")];,{}" or re.match(stops, code[at:]):
            return at
        at += 1
    return at


def terms(code: str, start: int, end: int) -> Found:
    """A summand or a factor left out."""
    sums = r" (?:[-+]|[<>]=?|[=!]=|&&|\|\||\?|:|<<|>>|&|\|) "
    products = r" (?:[-+*/%]|[<>]=?|[=!]=|&&|\|\||\?|:|<<|>>|&|\|) "
    for m in re.compile(r"(?<=[\w)\]]) ([-+*])\s+").finditer(code, start, end):
        stops = products if m[1] == "*" else sums
        yield m.start(), _term_end(code, m.end(), stops), ""


def statements(code: str, start: int, end: int) -> Found:
    """A whole statement left out: nothing carried, cleared, added, stored."""
    line = re.compile(
        r"^ +(?=\S)(?!(?:V_UNROLL|return|break|continue|const|case|goto|else|do)\b)"
        r"((?:[\w.>*&\[\]() +%/-]|->)+?(?: [-+*/]?= |\()[^;{}]*;)",
        re.M,
    )
    for m in line.finditer(code, start, end):
        if not re.match(r"\w+ \**\w+(?:\[.*?\])* =|(?:if|for|while|switch)\b", m[1]):
            yield m.start(1), m.end(1), ";"


def places(code: str, start: int, end: int) -> Found:
    """The first batch entry, group, row, chunk, tile ... in place of the one meant: an
    argument of a call, or a term of an index."""
    names = "|".join(PLACES.split())
    argument = rf"(?<=[(,] )(?:\w+(?:->|\.))?\b(?:{names})\b(?=[,)])"
    index = rf"(?<=[\[(])\b(?:{names})\b(?= [-+*/%]|\])"
    for m in re.compile(f"{argument}|{index}").finditer(code, start, end):
        yield m.start(), m.end(), "0"


def conditions(code: str, start: int, end: int) -> Found:
    """A condition turned round."""
    for m in re.compile(r"\b(?:if|while) \(").finditer(code, start, end):
        stop = closing(code, m.end() - 1)
        yield m.end(), stop, f"!({code[m.end() : stop]})"
    choice = re.compile(r"(?:[^=!<>]= |[(,]\s*|return )([\w.>&|!=< -]+?) \? ")
    for m in choice.finditer(code, start, end):
        yield m.start(1), m.end(1), f"!({m[1]})"


def loops(code: str, start: int, end: int) -> Found:
    """A loop that misses its last or its first turn."""
    for m in re.compile(r"\bfor \(").finditer(code, start, end):
        head = code[m.end() : closing(code, m.end() - 1)]
        parts = head.split(";")
        if len(parts) != 3 or " < " not in parts[1]:
            continue
        stop = m.end() + len(parts[0]) + 1 + len(parts[1])
        yield stop, stop, " - 1"
        first = re.search(r"= (\w+)", parts[0])
        if first:
            yield m.end() + first.end(), m.end() + first.end(), " + 1"


KINDS: dict[str, Callable[[str, int, int], Found]] = {
    "operator": operators,
    "sign": signs,
    "index": indices,
    "constant": constants,
    "term left out": terms,
    "statement left out": statements,
    "wrong place": places,
    "condition": conditions,
    "loop": loops,
}


def drawn(root: Path, files: Sequence[str], seed: int) -> Iterator[Fault]:
    """Faults without end or until there are none, kind after kind, file after file, the
    place by chance."""
    chance = random.Random(seed)
    sources = [Source(file, (root / file).read_text()) for file in files]
    left = {
        (kind, source.file): list(source.faults([kind]))
        for kind in KINDS
        for source in sources
    }
    for faults in left.values():
        chance.shuffle(faults)
    while any(left.values()):
        order = list(left)
        chance.shuffle(order)
        order.sort(key=lambda key: list(KINDS).index(key[0]))
        rounds = [[k for k in order if k[0] == kind] for kind in KINDS]
        for turn in range(len(sources)):
            for keys in rounds:
                if left[keys[turn]]:
                    yield left[keys[turn]].pop()


#: see mutate.harmless
HARMLESS: list[tuple[str, str, str, str, str]] = [
    (
        "variant/cpu.h",
        "v_first",
        "for (int i = 0; i < VW; i++)",
        "i = 0 + 1;",
        "lane 0 is not set then, and the compiler takes 0 for it",
    ),
]
