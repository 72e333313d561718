# SPDX-License-Identifier: Apache-2.0
"""__main__.py - `python -m mambarun`, the command mambarun-check: check/cli.py."""

from __future__ import annotations

import sys

from .check.cli import main

if __name__ == "__main__":
    sys.exit(main())
