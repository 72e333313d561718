# SPDX-License-Identifier: Apache-2.0
"""_say.py - what mambarun says unasked: a warning once per cause and process, and
trace lines. MAMBARUN_TRACE: unset warns, 0 says nothing, 1 also traces on stderr.
"""

from __future__ import annotations

import os
import sys

_said: set[str] = set()


def warn(text: str) -> None:
    """Warn with this text, unless it was said before or MAMBARUN_TRACE is 0."""
    if text in _said or os.environ.get("MAMBARUN_TRACE") == "0":
        return
    _said.add(text)
    import warnings

    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals["__name__"].startswith("mambarun."):
        level, frame = level + 1, frame.f_back
    warnings.warn("mambarun: " + text, RuntimeWarning, stacklevel=level)


def trace(text: str) -> None:
    """One line on stderr if MAMBARUN_TRACE is 1, else nothing."""
    if os.environ.get("MAMBARUN_TRACE") == "1":
        sys.stderr.write(f"mambarun: {text}\n")
