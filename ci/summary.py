# SPDX-License-Identifier: Apache-2.0
"""summary.py FOLDER - what gpu.sh left in FOLDER, to be read: the machines, each part's
verdict and counts, every case by its outcome, and what was measured. FOLDER may hold
parts of several runs, on machines of different kinds.

Printed as Markdown. The exit status is 1, and the last line says which, unless every
part that was run ended well."""

from __future__ import annotations

import collections
import json
import pathlib
import re
import sys
from typing import Iterator, NamedTuple

import times
from results import Case, cases

VERDICT = re.compile(r"^(ok|FAILED) (\S+) \((\S+), (\d+) s\)$")
#: lines worth reading in what a part says, beside its cases
WORDS = re.compile(
    r"ERROR SUMMARY|RACECHECK SUMMARY|all kernels loaded|differ from the plain loop"
    r"|conforms: |does NOT conform: |is not judged: |selective scan by|test accuracy"
    r"|held-out text|steps against the pass|^ +FAILED |WRONG: |NotSupported: "
)
SAID = "docs/results/gpu"
MANIFEST = pathlib.Path(__file__).resolve().parents[1] / "libmambarun/manifest.def"
ROW = re.compile(r"^MBR_CUDA_(TEST_)?VARIANT\((\w+), *(\w+), *(\w+), *(\w+),", re.M)


class Part(NamedTuple):
    name: str
    verdict: str
    variant: str
    seconds: str
    words: list[str]
    cases: list[Case]
    machine: tuple[str, ...]
    date: str


def read_part(said: pathlib.Path, raw: pathlib.Path) -> Part | None:
    """None: a text of another kind, such as the sanitizer's words."""
    lines = said.read_text(errors="replace").splitlines()
    ended = VERDICT.match(lines[-1]) if lines else None
    if ended is None:
        return None
    report, machine = (raw / (said.stem + suffix) for suffix in (".xml", ".machine"))
    return Part(
        ended[2],
        ended[1],
        ended[3],
        ended[4],
        [line.strip("= ") for line in lines[:-1] if WORDS.search(line)],
        cases(report) if report.exists() else [],
        *read_machine(machine),
    )


def read_machine(file: pathlib.Path) -> tuple[tuple[str, ...], str]:
    """What of it tells machines apart, and when it was."""
    lines = file.read_text().splitlines()
    dates = [line for line in lines if line.startswith("date: ")]
    return tuple(line for line in lines if line not in dates), dates[0][len("date: ") :]


def describe(parts: list[Part]) -> Iterator[str]:
    """Each machine, and a table of the parts that names theirs."""
    machines = list(dict.fromkeys(part.machine for part in parts))
    for number, machine in enumerate(machines, 1):
        yield f"\nMachine {number}:\n"
        yield from (f"- {line}" for line in machine)
    titles = "part", "variant", "verdict", "cases", "seconds", "machine", "date"
    yield from times.head(titles)
    for part in parts:
        counted = counts(part) if part.cases else ""
        number = machines.index(part.machine) + 1
        cells = part.name, part.variant, part.verdict, counted, part.seconds
        yield times.line([*cells, number, part.date])


def counts(part: Part) -> str:
    found = collections.Counter(case.outcome for case in part.cases)
    return ", ".join(f"{found[o]} {o}" for o in ("passed", "failed", "skipped"))


def one_part(part: Part) -> Iterator[str]:
    """Names of cases that passed, side by side; the others with their reason."""
    yield f"\n## {part.name}\n"
    yield from (f"- {line}" for line in part.words)
    passed = [c.name.rpartition("::")[2] for c in part.cases if c.outcome == "passed"]
    for case in part.cases:
        if case.outcome != "passed":
            yield f"- {case.outcome} {case.name.rpartition('::')[2]}: {case.text}"
    if passed:
        yield f"\n{len(passed)} passed: " + ", ".join(f"`{name}`" for name in passed)


def rows_of_the_manifest(parts: list[Part]) -> Iterator[str]:
    """What ran of each, and what is still to be tried, with what it takes."""
    yield from times.head(("row", "what ran"))
    for test, name, toolkit, kind, arch in ROW.findall(MANIFEST.read_text()):
        tried = [(part.verdict, part.name) for part in parts if part.variant == name]
        said = "; ".join(
            f"{word}: {', '.join(n for v, n in tried if v == verdict)}"
            for verdict, word in (("ok", "ran"), ("FAILED", "FAILED"))
            if verdict in dict(tried)
        )
        said = said or f"not run: needs a GPU for its sm_{arch} {kind}"
        only = ", built for tests only" if test else ""
        yield times.line((name, f"by NVRTC {toolkit}{only}; {said}"))
    yield "\nSize, registers and spills of each, and how long building took: build.txt."


def measured(folder: pathlib.Path) -> Iterator[str]:
    files = sorted(map(str, (folder / SAID).glob("bench*.json")))
    if files:
        yield "\n## Times and errors\n"
        yield from times.tables(files)
    for report in sorted(folder.glob("conformance/results/*.json")):
        found = json.loads(report.read_text()).get("outcomes", {})
        said = ", ".join(f"{n} {outcome}" for outcome, n in found.items())
        yield f"\n{report.name}: {said}; every case and figure stands there."


def main(folder: pathlib.Path) -> int:
    texts = sorted((folder / SAID).glob("*.txt"))
    parts = [p for p in (read_part(text, folder / "raw") for text in texts) if p]
    bad = [part.name for part in parts if part.verdict != "ok"]
    print("# What a GPU proved")
    for line in (*describe(parts), *rows_of_the_manifest(parts), *measured(folder)):
        print(line)
    for part in parts:
        if part.cases or part.words:
            print("\n".join(one_part(part)))
    verdict = (
        "FAILED: " + ", ".join(bad) if bad or not parts else "every part ended well"
    )
    print(f"\n{verdict}")
    print(verdict, file=sys.stderr)
    return int(verdict.startswith("FAILED"))


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
