# SPDX-License-Identifier: Apache-2.0
"""matrix.py - runs the check on the fabricated machines and writes what it says:

python shim/tests/machines/matrix.py > docs/results/machines.md
"""

import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    here = Path(__file__).resolve()
    sys.path[:0] = [str(here.parents[2]), str(here.parents[1])]

from machines.builder import build
from machines.parts import ROOT  # noqa: F401 - for the tests
from machines.rows import PLAIN, ROWS

BADNESS = ("info", "warn", "error")
# What the plain machine has, too: the list of its GPUs, and which of upstream's Python
# packages are absent.
COMMON = {"MR110": "info", "MR401": "info"}
HEAD = """\
# What mambarun-check says of fabricated machines

Written by `shim/tests/machines/matrix.py`; `shim/tests/test_machines.py` holds each row
and this file. Machines are file trees with an environment and a driver's answers, the
parts of `shim/tests/machines/rows.py`. Codes are those that are neither ok nor skipped,
without those of the second machine, on which all is well. Every row is the same in
English and in Chinese.

| machine | error | warn | info | exit |
|---|---|---|---|---|
"""


def diagnose(row, folder):
    from mambarun.check import diagnose

    return diagnose(build(folder, *row.parts).machine(), run=False)


def said(report):
    """{code: worst status} of what is neither ok nor skipped, without COMMON."""
    worst = {}
    for finding in report.findings:
        if finding.status in BADNESS:
            known = worst.get(finding.code, BADNESS[0])
            worst[finding.code] = max(known, finding.status, key=BADNESS.index)
    return {c: s for c, s in worst.items() if COMMON.get(c) != s}


def line(name, says, status):
    """One row of the table."""
    cells = (
        " ".join(sorted(c for c, s in says.items() if s == wanted))
        for wanted in reversed(BADNESS)
    )
    return f"| {name} | {' | '.join(cells)} | {status} |"


def expected():
    """The whole file, as the rows have it."""
    return HEAD + "".join(line(r.name, r.says, r.exit) + "\n" for r in ROWS)


def main():
    print(HEAD, end="")
    for row in ROWS:
        with tempfile.TemporaryDirectory() as folder:
            report = diagnose(row, folder)
            print(line(row.name, said(report), report.exit))


if __name__ == "__main__":
    assert ROWS[1] is PLAIN
    main()
