# SPDX-License-Identifier: Apache-2.0
"""abi.py - libmambarun/abi.txt says what the public headers promise; nothing that it
says is taken back: a function, a value or a field stays what and where it was, a struct
grows only at its end. With --write it records the headers as they are.

Offsets and values come from the compiler ($CC, else cc), names from the headers.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "libmambarun"
RECORD = LIBRARY / "abi.txt"
HEAD = "# Written by ci/checks/abi.py --write from the public headers.\n"


def public_text() -> str:
    """mambarun.h and the headers it includes, without comments and directives."""
    text = (LIBRARY / "mambarun.h").read_text()
    for name in re.findall(r'^#include "(.*)"', text, re.M):
        text += (LIBRARY / name).read_text()
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    return re.sub(r"^#(.*\\\n)*.*$", "", text, flags=re.M)


def functions(text: str) -> dict[str, str]:
    found = {}
    for declaration in re.findall(r"MBR_API\s+([^;]+);", text):
        declaration = " ".join(declaration.split())
        name = re.search(r"(\w+)\(", declaration)[1]
        found[f"function {name}"] = declaration
    return found


def fields(body: str) -> list[tuple[str, str]]:
    """(name, type as written) of each field of a struct's body."""
    found = []
    for declaration in filter(None, (" ".join(d.split()) for d in body.split(";"))):
        base, first = re.match(r"((?:const )?\w+) (.*)", declaration).groups()
        for declarator in first.split(", "):
            name = re.search(r"\w+", declarator)[0]
            found.append((name, base + declarator.replace(name, "", 1)))
    return found


def questions(text: str) -> list[tuple[str, str, list[str]]]:
    """(key, what is said about it, the C expressions that the compiler puts in)."""
    asked = []
    for body in re.findall(r"enum\s*\w*\s*\{(.*?)\}", text, re.S):
        for name in re.findall(r"\bMBR_\w+", body):
            asked.append((f"value {name}", "{}", [f"(long long){name}"]))
    for struct, body in re.findall(r"typedef struct (\w+) \{(.*?)\} \1;", text, re.S):
        asked.append((f"struct {struct}", "{} bytes", [f"(long long)sizeof({struct})"]))
        for name, kind in fields(body):
            place = f"(long long)offsetof({struct}, {name})"
            size = f"(long long)sizeof((({struct} *)0)->{name})"
            what = f"at {{}}, {{}} bytes, {kind}"
            asked.append((f"field {struct}.{name}", what, [place, size]))
    return asked


def compiled(expressions: list[str]) -> list[str]:
    prints = "\n".join(f'    printf("%lld\\n", {e});' for e in expressions)
    program = (
        f'#include "mambarun.h"\n#include <stdio.h>\nint main(void) {{\n{prints}\n}}\n'
    )
    with tempfile.TemporaryDirectory() as folder:
        source, binary = pathlib.Path(folder, "abi.c"), pathlib.Path(folder, "abi")
        source.write_text(program)
        compiler = os.environ.get("CC", "cc").split()
        subprocess.run(
            [*compiler, "-std=c11", f"-I{LIBRARY}", "-o", binary, source], check=True
        )
        return subprocess.run(
            [binary], check=True, capture_output=True, text=True
        ).stdout.split()


def current() -> dict[str, str]:
    text = public_text()
    asked = questions(text)
    answers = iter(compiled([e for _, _, expressions in asked for e in expressions]))
    found = functions(text)
    for key, what, expressions in asked:
        found[key] = what.format(*[next(answers) for _ in expressions])
    return found


def recorded() -> dict[str, str]:
    if not RECORD.exists():
        return {}
    lines = RECORD.read_text().splitlines()
    return dict(line.split(": ", 1) for line in lines if not line.startswith("#"))


def grew(key: str, old: str, new: str) -> bool:
    return key.startswith("struct ") and int(new.split()[0]) > int(old.split()[0])


def broken(old: dict[str, str], new: dict[str, str]) -> list[str]:
    gone = [f"{key}: is gone, it was '{old[key]}'" for key in old if key not in new]
    moved = [
        f"{key}: is '{new[key]}', it was '{old[key]}'"
        for key in old
        if key in new and new[key] != old[key] and not grew(key, old[key], new[key])
    ]
    return gone + moved


def main(arguments: list[str]) -> int:
    old, new = recorded(), current()
    wrong = broken(old, new)
    if arguments == ["--write"]:
        RECORD.write_text(HEAD + "".join(f"{k}: {v}\n" for k, v in new.items()))
        for line in wrong:
            print(f"no longer promised: {line}")
        print(f"wrote {RECORD.relative_to(ROOT)}: {len(new)} lines")
        return 0
    if arguments:
        print("usage: abi.py [--write]")
        return 2
    wrong += [
        f"{key}: not in abi.txt as it is now; run ci/checks/abi.py --write"
        for key in new
        if key not in old or grew(key, old[key], new[key])
    ]
    for line in wrong:
        print(line)
    if not wrong:
        kinds = [key.split()[0] for key in new]
        counts = [
            f"{kinds.count(k)} {k}s" for k in ("function", "struct", "field", "value")
        ]
        print(f"OK: abi.txt is current: {', '.join(counts)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
