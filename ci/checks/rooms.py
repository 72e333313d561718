# SPDX-License-Identifier: Apache-2.0
"""rooms.py - every row of ops.def has its three rooms, and no other file names the op.

An op is named in its room of libmambarun, of the shim and of conformance; whoever wants
to know it all reads these, whoever deletes it deletes these. See docs/CONTRIBUTING.md.
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]

# What an op consists of; the same names in every room.
ROOM = [
    "libmambarun/ops/{op}/README.md",
    "libmambarun/ops/{op}/{op}.h",
    "libmambarun/ops/{op}/{op}.c",
    "libmambarun/ops/{op}/cpu*.c",
    "libmambarun/ops/{op}/check_test.c",
    "shim/mambarun/ops/{op}.py",
    "conformance/ops/{op}/cases.py",
    "conformance/ops/{op}/reference.c",
]

# Who else may name an op, and why.
EXEMPT = [
    (r"^libmambarun/ops/ops\.def$", "the rows"),
    (r"^libmambarun/mambarun\.h$", "includes the rooms' headers"),
    (r"^libmambarun/abi\.txt$", "written by ci/checks/abi.py"),
    (
        r"_test\.c$|^shim/tests/|/test_(upstream|large|repeats|suite|transformers|mutate)\.py$",
        "tests call what users call",
    ),
    (r"^shim/standins/|^bench/|^examples/", "users of the ops"),
    (r"^ci/(tests/test_)?foreign\.", "compiles the originals"),
    (r"^shim/mambarun/check/", "runs what users run, and knows packages of that name"),
    (r"\.md$|\.txt$|^docs/|/results/", "prose and recorded results"),
]


def rows() -> dict[str, list[str]]:
    """Op -> its entry points, from ops.def: row X_fwd belongs to op X."""
    text = (ROOT / "libmambarun/ops/ops.def").read_text()
    ops: dict[str, list[str]] = {}
    for entry in re.findall(r"^MBR_OP\((\w+)\)", text, re.M):
        ops.setdefault(entry.rpartition("_")[0], []).append(entry)
    return ops


def tracked_files() -> list[str]:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return sorted(f for f in listing.stdout.splitlines() if (ROOT / f).is_file())


def missing_rooms(ops: dict[str, list[str]]) -> list[str]:
    wrong = [
        f"{path.format(op=op)}: missing, ops.def has rows of {op}"
        for op in ops
        for path in ROOM
        if not list(ROOT.glob(path.format(op=op)))
    ]
    header = (ROOT / "libmambarun/mambarun.h").read_text()
    for op, entries in ops.items():
        if f'#include "ops/{op}/{op}.h"' not in header:
            wrong.append(f"libmambarun/mambarun.h: does not include ops/{op}/{op}.h")
        source = ROOT / f"libmambarun/ops/{op}/{op}.c"
        text = source.read_text() if source.is_file() else ""
        wrong += [
            f"libmambarun/ops/{op}/{op}.c: no function mbr_{entry}"
            for entry in entries
            if not re.search(rf"^mbr_status mbr_{entry}\(", text, re.M)
        ]
    for room in (ROOT / "libmambarun/ops").iterdir():
        if room.is_dir() and room.name not in ops:
            wrong.append(
                f"libmambarun/ops/{room.name}: a room without a row in ops.def"
            )
    return wrong


def named_elsewhere(ops: dict[str, list[str]]) -> list[str]:
    """An upstream module such as NAME_cuda carries an op's name but is not the op."""
    wrong = []
    for path in tracked_files():
        if any(re.search(pattern, path) for pattern, _ in EXEMPT):
            continue
        parts = pathlib.PurePath(path).with_suffix("").parts
        try:
            lines = (ROOT / path).read_text().splitlines()
        except UnicodeDecodeError:
            continue
        for op in ops:
            if op in parts:
                continue
            name = re.compile(rf"(?<![a-z]){op}(?!_cuda)")
            wrong += [
                f"{path}:{number}: names {op}: {line.strip()}"
                for number, line in enumerate(lines, 1)
                if name.search(line)
            ]
    return wrong


def main() -> int:
    ops = rows()
    wrong = missing_rooms(ops) + named_elsewhere(ops)
    if not ops:
        wrong.append("libmambarun/ops/ops.def: no row")
    for line in wrong:
        print(line)
    if not wrong:
        print(f"OK: {', '.join(ops)}: {len(ROOM)} files each, named nowhere else")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
