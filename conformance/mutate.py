# SPDX-License-Identifier: Apache-2.0
"""Puts one fault after the other into the kernels of a copy of this tree; says which
cases of the suite turn red. A fault that nothing notices is a hole in the suite.

    python conformance/mutate.py [--variant cpu_avx2] [--only WORD]

Prints a Markdown table; the exit status is 1 if a fault survived. Needs CMake and a C
compiler. The faults stand in ops/<op>/faults.py."""

from __future__ import annotations

import argparse
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from pathlib import Path
from typing import Any, Iterator

HERE = Path(__file__).resolve().parent


def faults() -> Iterator[dict[str, Any]]:
    for path in sorted(HERE.glob("ops/*/faults.py")):
        for file, before, after, what in runpy.run_path(str(path))["FAULTS"]:
            room = path.parent.name
            file = f"libmambarun/ops/{room}/{file}"
            if (HERE.parent / file).read_text().count(before) != 1:
                sys.exit(f"{file}: not there exactly once: {before}")
            yield {
                "room": room,
                "file": file,
                "before": before,
                "after": after,
                "what": what,
            }


def build(tree: Path) -> None:
    quiet = {"cwd": tree, "check": True, "stdout": subprocess.DEVNULL}
    subprocess.run(["cmake", "--build", "build/test"], **quiet)


def red(tree: Path, variant: str, room: str) -> list[str]:
    """The ids of the cases that fail."""
    results = tree / "results.xml"
    environment = {**os.environ, "MAMBARUN_PATH": str(tree / "build/test/lib")}
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--tb=no",
            "conformance/test_ops.py",
            "--variant",
            variant,
            "-k",
            room,
            "--junitxml",
            str(results),
        ],
        cwd=tree,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    cases = xml.parse(results).iter("testcase")
    failed = [
        c.get("name", "")
        for c in cases
        if c.find("failure") is not None or c.find("error") is not None
    ]
    return [name.partition("/")[2].rstrip("]") for name in failed]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--variant", default="cpu_avx2")
    parser.add_argument("--only", default="", help="faults whose description has this")
    options = parser.parse_args()
    wanted = [fault for fault in faults() if options.only in fault["what"]]
    survived = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        ignored = shutil.ignore_patterns("build", ".git", ".venv*", "out", "dist")
        shutil.copytree(HERE.parent, tree, ignore=ignored)
        subprocess.run(
            ["cmake", "--preset", "test"],
            cwd=tree,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        print("| fault | file | cases that turn red | of them |")
        print("|---|---|---|---|")
        for fault in wanted:
            path = tree / fault["file"]
            sound = path.read_text()
            path.write_text(sound.replace(fault["before"], fault["after"]))
            build(tree)
            found = red(tree, options.variant, fault["room"])
            path.write_text(sound)
            survived += not found
            print(
                "| {} | {} | {} | {} |".format(
                    fault["what"],
                    fault["file"],
                    len(found),
                    ", ".join(found[:3]) or "none",
                ),
                flush=True,
            )
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
