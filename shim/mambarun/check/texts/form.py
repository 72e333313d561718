# SPDX-License-Identifier: Apache-2.0
"""form.py - the form of the texts: every one of them in English and in Chinese.

A pair is (English, Chinese); a string alone, such as a command, serves for both. What
stands in braces is filled from a finding's values. In an explanation a blank line ends
a paragraph, `- ` begins a point and four spaces a line that is kept as it is.
"""

from __future__ import annotations

from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Tuple, Union

    Pair = Union[str, Tuple[str, str]]


class Case(NamedTuple):
    """One sentence a code can say, and the one thing to do about it."""

    what: Pair
    fix: Pair = ""


class Text(NamedTuple):
    """All of a code. section: the line of the report that it belongs to. title: what it
    asks. cases: empty for a code that only error messages name."""

    section: str
    title: Pair
    cases: dict[str, Case]
    explanation: Pair
