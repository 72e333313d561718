# SPDX-License-Identifier: Apache-2.0
"""finding.py - what a check says: a code, how bad it is, which of the code's sentences,
and what to put into it. The sentences are in texts/.
"""

from __future__ import annotations

from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OK, INFO, WARN, ERROR, SKIP = STATUSES = ("ok", "info", "warn", "error", "skip")


class Finding(NamedTuple):
    """case: which sentence of the code. evidence: paths, versions and a library's own
    words, in no language but their own; paths as the machine has them."""

    code: str
    status: str
    case: str
    values: dict[str, Any]
    evidence: tuple[str, ...] = ()

    def what(self, lang: str = "en") -> str:
        return fill(self._case().what, self.values, lang)

    def fix(self, lang: str = "en") -> str:
        """One command, or one thing to do; "" where nothing has to be done."""
        return fill(self._case().fix, self.values, lang)

    def _case(self) -> Any:
        from .texts import TEXTS

        return TEXTS[self.code].cases[self.case]


class Headline(NamedTuple):
    """The one line of a section of the short report."""

    section: str
    case: str
    values: dict[str, Any]
    status: str = OK  # its mark where nothing in the section warns

    def what(self, lang: str = "en") -> str:
        from .texts import HEADLINES

        return fill(HEADLINES[self.section][self.case], self.values, lang)


def fill(text: Any, values: dict[str, Any], lang: str) -> str:
    """text: (English, Chinese), or one string for both."""
    chosen = text if isinstance(text, str) else text[lang == "zh"]
    return chosen.format(**values)
