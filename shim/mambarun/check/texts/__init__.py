# SPDX-License-Identifier: Apache-2.0
"""texts - every sentence of mambarun-check, by code, in English and Chinese. The
report, --explain and docs/checks.md are made from these. A code is never used again
for something else.
"""

from __future__ import annotations

from . import driver, environment, host, modules, packages, pytorch, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .form import Pair, Text

_GROUPS = (host, driver, pytorch, modules, packages, environment, run)

TEXTS: dict[str, Text] = {
    code: text
    for code, text in sorted(
        (item for group in _GROUPS for item in group.TEXTS.items()),
        key=lambda item: item[0],
    )
}
HEADLINES: dict[str, dict[str, Pair]] = {
    section: cases for group in _GROUPS for section, cases in group.HEADLINES.items()
}

# The lines of the report, in order, as they are called there.
SECTIONS = {
    "mambarun": "mambarun",
    "driver": ("driver", "驱动"),
    "gpu": "gpu",
    "python": "python",
    "torch": "torch",
    "modules": ("modules", "模块"),
    "packages": ("packages", "软件包"),
    "env": ("env", "环境"),
    "run": ("run", "运行"),
}
