# SPDX-License-Identifier: Apache-2.0
"""layout.py - the shim's field rows are the C structs, proven by the compiler.

Each struct that the shim packs or reads becomes a list of _Static_asserts: its size,
and the offset and size of every field by its path in C. As the rows leave no gaps, a
field that only C has shows as a wrong offset of the next one.
"""

from __future__ import annotations

import collections
import ctypes
import importlib
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "shim"))


Struct = collections.namedtuple("Struct", "size fields")  # (path, offset, size)...


def params_structs() -> dict[str, Struct]:
    """The params struct of every entry point that the shim has."""
    from mambarun._lib import Params

    found = {}
    for path in sorted((ROOT / "shim/mambarun/ops").glob("[!_]*.py")):
        module = importlib.import_module(f"mambarun.ops.{path.stem}")
        for value in vars(module).values():
            if isinstance(value, Params):
                name = f"mbr_{value.op}_params"
                found[name] = Struct(value.size, list(value.fields()))
    return found


def answer_structs() -> dict[str, Struct]:
    """What the library fills in: VariantInfo is mbr_variant_info, and so on."""
    from mambarun import _info, _locate

    found = {}
    for name, value in {**vars(_info), **vars(_locate)}.items():
        if isinstance(value, type) and issubclass(value, ctypes.Structure):
            fields = [
                (field, getattr(value, field).offset, getattr(value, field).size)
                for field, _ in value._fields_
            ]
            snake = re.sub(r"(?=[A-Z])", "_", name).lower()
            found["mbr" + snake] = Struct(ctypes.sizeof(value), fields)
    return found


def assertions(structs: dict[str, Struct]) -> list[str]:
    lines = []
    for struct, (whole, fields) in structs.items():
        lines.append(
            f"_Static_assert(sizeof({struct}) == {whole}, "
            f'"sizeof({struct}) is not {whole} as in Python");'
        )
        for path, offset, size in fields:
            lines.append(
                f"_Static_assert(offsetof({struct}, {path}) == {offset} && "
                f"sizeof((({struct} *)0)->{path}) == {size}, "
                f'"{struct}.{path} is not {size} bytes at {offset} as in Python");'
            )
    return lines


def compile_errors(lines: list[str]) -> list[str]:
    """What the compiler says of these lines; its own words if they are not ours."""
    source = "\n".join(['#include "mambarun.h"', *lines, ""])
    run = subprocess.run(
        [os.environ.get("CC", "cc"), "-std=c11", "-fsyntax-only", "-I.", "-xc", "-"],
        input=source, cwd=ROOT / "libmambarun", capture_output=True, text=True,
    )  # fmt: skip
    if run.returncode == 0:
        return []
    ours = re.findall(r'static assertion failed[^"]*"([^"]*)"', run.stderr)
    return ours or run.stderr.splitlines()


def main() -> int:
    structs = {**params_structs(), **answer_structs()}
    rows = (ROOT / "libmambarun/ops/ops.def").read_text()
    entries = re.findall(r"^MBR_OP\((\w+)\)", rows, re.M)
    wrong = [
        f"no field rows in Python for {entry}"
        for entry in entries
        if f"mbr_{entry}_params" not in structs
    ]
    lines = assertions(structs)
    wrong += compile_errors(lines)
    for line in wrong:
        print(line)
    if not wrong:
        print(f"OK: {len(structs)} structs, {len(lines)} assertions hold")
    return 1 if wrong or not lines else 0


if __name__ == "__main__":
    sys.exit(main())
