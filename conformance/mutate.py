# SPDX-License-Identifier: Apache-2.0
"""Puts one small fault after the other into the kernels of a copy of this tree and says
which case of the suite turns red first. A fault that no case notices is a hole in the
suite, unless HARMLESS knows why it changes nothing.

    python conformance/mutate.py [--count N] [--seed N] [--only WORD] [--table FILE]

Faults are those in ops/<op>/faults.py, written by hand, and others that faults.py
derives from the sources, by chance: without --seed others each time. One that does not
compile, or gives the very same library, counts for nothing and another is drawn. Prints
a line for each; --table writes all as Markdown. The exit status is 1 if a fault
survived that HARMLESS does not explain. Needs CMake, Ninja, CMocka and a C compiler.

Where the GPU is on another machine, in two steps; a fault is then put into one kernel,
the others stay:

    python conformance/mutate.py --variant cuda12_sm90 --count 12 --prepare FOLDER \\
        --nvrtc WHEEL [--cache DIR]
    python FOLDER/conformance/mutate.py --judge FOLDER --table FILE"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import mmap
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Iterator, Sequence

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(ROOT / "shim"), str(ROOT / "shim/standins")]

import torch  # noqa: E402

from conformance.calling import Unsupported  # noqa: E402
from conformance.cases import Case  # noqa: E402
from conformance.examine import (  # noqa: E402
    SKIPPED,
    Expected,
    all_cases,
    examine,
    expect,
)
from conformance.faults import KINDS, Fault, Source, drawn  # noqa: E402
from conformance.mutate_tree import Tree, kernels_of, kind_of, stamp_in  # noqa: E402
from conformance.providers import REFERENCE, Library, Reference  # noqa: E402

CASE_SECONDS = 20  # a case that takes longer hangs
MEMORY = 6 << 30  # bytes of address space more than before a fault's cases ran
LARGEST = 4_000_000  # bytes of a case's arrays: larger ones are about size alone
JUDGES = 12  # processes at once, in the second step of two
FEW, MANY = 24, 120  # cases that such a process takes, first and later
BY_HAND = "by hand"
UNSUPPORTED = 3  # exit status of a process that could ask nothing
KERNELS = {
    "cpu": ("ops/*/cpu*.[ch]", "variant/cpu.h"),
    "cuda": ("ops/*/*.cu", "ops/*/*.cuh", "variant/device.cuh"),
}


# ---- the cases -----------------------------------------------------------------------


@dataclass
class Question:
    """A case; what the reference says about it is found out when it is first asked."""

    room: str
    case: Case
    reference: Reference
    seed: int
    kills: int = 0

    @cached_property
    def expected(self) -> Expected:
        return expect(self.room, self.case, self.reference, self.seed)

    @property
    def name(self) -> str:
        return f"{self.room}/{self.case.id}"

    @property
    def entry(self) -> str:
        return f"{self.room}_{self.case.id.rpartition('-')[2]}"


def questions(reference: Reference, seed: int) -> list[Question]:
    """The cases that reach a kernel; how its arguments are checked and by what list
    they come is not asked here."""
    return [
        Question(room, case, reference, seed)
        for room, case in all_cases(seed).values()
        if not case.refusal and not case.signature
    ]


def size(question: Question) -> int:
    return sum(a.buffer.numel() for a in question.expected.call.arrays().values())


def touched_by(fault: Fault, asked: Sequence[Question]) -> list[Question]:
    """The cases whose entry point the fault takes part in: that of its kernel, else all
    of its room, forwards or backwards only if the file's name says so."""
    if fault.kernel:
        return [q for q in asked if fault.kernel.startswith(q.entry)]
    path = Path(fault.file)
    room = path.parent.name if path.parent.parent.name == "ops" else ""
    found = [q for q in asked if q.entry.startswith(room)]
    if path.stem in ("cpu_fwd", "cpu_bwd"):
        back = path.stem == "cpu_bwd"
        found = [q for q in found if q.entry.endswith("_bwd") == back]
    return found


# ---- the faults ----------------------------------------------------------------------


def by_hand() -> Iterator[Fault]:
    for path in sorted(HERE.glob("ops/*/faults.py")):
        room = path.parent.name
        module = importlib.import_module(f"conformance.ops.{room}.faults")
        for name, before, after, _ in module.FAULTS:
            file = f"libmambarun/ops/{room}/{name}"
            text = (ROOT / file).read_text()
            if text.count(before) != 1:
                sys.exit(f"{file}: not there exactly once: {before}")
            yield Source(file, text).fault(BY_HAND, text.index(before), before, after)


def faults(options: argparse.Namespace) -> Iterator[Fault]:
    kind = kind_of(options.variant)
    globs = KERNELS[kind]
    found = {p for glob in globs for p in (ROOT / "libmambarun").glob(glob)}
    files = sorted(str(p.relative_to(ROOT)) for p in found)
    first = by_hand() if kind == "cpu" else ()
    for fault in itertools.chain(first, drawn(ROOT, files, options.seed)):
        if options.only in f"{fault.kind} {fault.file} {fault.function}":
            yield fault


def harmless(fault: Fault, line: str, becomes: str) -> str:
    """Why a fault changes nothing, if that is known: from the lists HARMLESS of
    (file, function or kernel, words in the line, words in what it becomes, why); an
    empty string stands for any."""
    for path in sorted([HERE / "faults.py", *HERE.glob("ops/*/faults.py")]):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for file, function, was, now, why in importlib.import_module(name).HARMLESS:
            if (
                fault.file.endswith(file)
                and function in ("", fault.function, fault.kernel)
                and was in line
                and now in becomes
            ):
                return str(why)
    return ""


# ---- one fault, in a process of its own ----------------------------------------------


def first_red(asked: list[Question], lib: Path, variant: str) -> tuple[str, str]:
    """The first case that turns red and how, or two empty strings. Cases that have
    noticed a fault before go first."""
    asked = sorted(asked, key=lambda q: -q.kills)
    at = mmap.mmap(-1, 8)
    with tempfile.TemporaryDirectory() as folder:
        copy, words = Path(folder) / "lib", Path(folder) / "words"
        shutil.copytree(lib, copy)
        child = os.fork()
        if child == 0:
            try:
                os.environ.update(MAMBARUN_PATH=str(copy), MAMBARUN_VARIANT=variant)
                words.write_text(_first_red(asked, copy, kind_of(variant), at))
                os._exit(0)
            except Unsupported as reason:
                words.write_text(f"{variant} cannot run here: {reason}")
                os._exit(UNSUPPORTED)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        red = asked[int.from_bytes(at[:], "little")]
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            hangs = number == signal.SIGALRM
            said = "hangs" if hangs else f"ends in {signal.Signals(number).name}"
        elif os.WEXITSTATUS(status) == UNSUPPORTED:
            sys.exit(words.read_text())
        elif os.WEXITSTATUS(status):
            said = "breaks the process"
        else:
            said = words.read_text()
    if not said:
        return "", ""
    red.kills += 1
    return red.name, said


def _first_red(asked: list[Question], lib: Path, kind: str, at: mmap.mmap) -> str:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if kind == "cpu":  # a GPU's driver takes any amount of addresses
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * mmap.PAGESIZE + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    device = "cpu" if kind == "cpu" else "cuda:0"
    candidate = Library(str(lib / "libmambarun.so"), device)
    for number, question in enumerate(asked):
        at[:] = number.to_bytes(8, "little")
        signal.alarm(0)
        if size(question) > LARGEST:
            continue
        signal.alarm(CASE_SECONDS + (0 if number else CASE_SECONDS))  # the first loads
        try:
            result = examine(question.expected, candidate)
        except Exception as error:  # what the fault did to this very process
            return f"{type(error).__name__}: {error}".partition("\n")[0]
        if result.outcome == SKIPPED and not question.case.how:
            raise Unsupported(result.reason)
        if result.complaints:
            return result.complaints[0]
    return ""


# ---- all of them ---------------------------------------------------------------------


@dataclass
class Result:
    fault: Fault
    line: str
    becomes: str
    case: str = ""  # that turns red first; empty: survived
    said: str = ""
    why: str = ""  # why it may survive

    def settle(self, case: str, said: str) -> None:
        self.case, self.said = case, said.replace("\n", " ")
        self.why = "" if case else harmless(self.fault, self.line, self.becomes)

    def __str__(self) -> str:
        f = self.fault
        verdict = f"{self.case}: {self.said}" if self.case else "SURVIVED " + self.why
        where = f"{f.kind}, {f.file}:{f.line} {f.function} {f.kernel}".rstrip()
        text = f"{where}: {verdict}"
        return (
            text if self.case else f"{text}\n       {self.line}\n    -> {self.becomes}"
        )


@dataclass
class Outcome:
    variant: str
    seed: int
    results: list[Result] = field(default_factory=list)
    idle: dict[str, int] = field(default_factory=dict)  # what counts for nothing
    commit: str = field(default_factory=lambda: commit())  # when it began
    notes: dict[str, str] = field(default_factory=dict)

    def finish(self, options: argparse.Namespace, begin: float) -> int:
        survived = [r for r in self.results if not r.case]
        unexplained = [r for r in survived if not r.why]
        idle = ", ".join(f"{n} {what}" for what, n in self.idle.items()) or "none"
        facts = {
            "variant": self.variant,
            "commit": self.commit,
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "seed": str(self.seed),
            "faults": f"{len(self.results)}; that count for nothing: {idle}",
            "noticed": str(len(self.results) - len(survived)),
            "survived": f"{len(survived)}, of which {len(unexplained)} unexplained",
            "seconds": f"{time.monotonic() - begin:.0f}",
            **self.notes,
        }
        print("\n".join(f"{name}: {value}" for name, value in facts.items()))
        if options.table:
            options.table.write_text(as_table(self.results, facts))
        return 1 if unexplained else 0


def commit() -> str:
    """Where the tree was carried elsewhere, commit.txt says what it was."""
    carried = ROOT / "commit.txt"
    if carried.exists():
        return carried.read_text().strip()
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    said = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return said or "unknown"


def judge_here(options: argparse.Namespace) -> int:
    begin = time.monotonic()
    outcome = Outcome(options.variant, options.seed)
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(Path(folder), options)
        asked = sorted(questions(tree.reference(), options.seed), key=size)
        case, said = first_red(asked, tree.lib, options.variant)
        if case:
            sys.exit(f"without any fault: {case}: {said}")
        for fault in faults(options):
            if len(outcome.results) == options.count:
                break
            red: list[str] = []

            def use(fault: Fault = fault, red: list[str] = red) -> str:
                red += first_red(touched_by(fault, asked), tree.lib, options.variant)
                return ""

            nothing = tree.with_fault(fault, use)
            if nothing:
                outcome.idle[nothing] = outcome.idle.get(nothing, 0) + 1
                continue
            result = Result(fault, *fault.source((tree.root / fault.file).read_text()))
            result.settle(*red)
            outcome.results.append(result)
            print(f"{len(outcome.results):4} {result}", flush=True)
    return outcome.finish(options, begin)


# ---- in two steps, on two machines ---------------------------------------------------


def prepare(options: argparse.Namespace) -> int:
    """FOLDER: what is needed to judge, and in libs.tar.xz a library for each fault,
    which hardly takes more room than one."""
    chance = random.Random(options.seed)
    options.prepare.mkdir(parents=True)
    outcome = Outcome(options.variant, options.seed)
    with tempfile.TemporaryDirectory() as folder:
        tree, libs = Tree(Path(folder), options), Path(folder) / "libs"
        shutil.copytree(tree.lib, libs / "sound")
        for fault in faults(options):
            if len(outcome.results) == options.count:
                break
            if kind_of(options.variant) == "cuda":
                fault = fault.of_kernel(chance.choice(kernels_of(fault.file)))
            number = len(outcome.results)

            def use(number: int = number) -> str:
                (libs / str(number)).mkdir()
                shutil.copy(tree.library, libs / str(number))
                return ""

            nothing = tree.with_fault(fault, use)
            if nothing:
                outcome.idle[nothing] = outcome.idle.get(nothing, 0) + 1
                continue
            result = Result(fault, *fault.source((tree.root / fault.file).read_text()))
            outcome.results.append(result)
            print(f"{number + 1:4} {fault.kind}, {fault.file}:{fault.line}", flush=True)
        carry(tree, libs, outcome, options.prepare)
    return 0


def carry(tree: Tree, libs: Path, outcome: Outcome, folder: Path) -> None:
    with tarfile.open(folder / "libs.tar.xz", "w:xz", preset=9) as archive:
        archive.add(libs, "libs")
    ignored = shutil.ignore_patterns("__pycache__", "results", "*.c", "*.html", "*.png")
    for name in ("conformance", "shim"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    (folder / "libmambarun/ops").mkdir(parents=True)
    shutil.copy(ROOT / "libmambarun/ops/ops.def", folder / "libmambarun/ops")
    (folder / "commit.txt").write_text(commit() + "\n")
    shutil.copy(tree.header, folder)
    (folder / "faults.json").write_text(json.dumps(asdict(outcome), indent=1) + "\n")


def judge_there(options: argparse.Namespace) -> int:
    begin = time.monotonic()
    told = json.loads((options.judge / "faults.json").read_text())
    results = [Result(**{**r, "fault": Fault(**r["fault"])}) for r in told["results"]]
    outcome = Outcome(told["variant"], told["seed"], results, told["idle"])
    spoilt: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        court = Court(options.judge, Path(folder) / "libs", outcome)
        with ProcessPoolExecutor(
            JUDGES, multiprocessing.get_context("fork"), sit_down, (court,)
        ) as pool:
            for number, red, names in pool.map(judge_slice, court.slices()):
                spoilt.update(names)
                if red[0] and not results[number].case:
                    results[number].settle(*red)
                    print(f"{number + 1:4} {results[number]}", flush=True)
    for number, result in enumerate(results):
        if not result.case:
            result.settle("", "")
            print(f"{number + 1:4} {result}")
    if spoilt:
        outcome.notes["red without any fault"] = ", ".join(sorted(spoilt))
    return outcome.finish(options, begin)


Judged = tuple[int, tuple[str, str], list[str]]  # fault, red case, red without it


class Court:
    """What a process knows that judges faults of a folder.

    libs     a folder for each fault, and one that is sound
    noticed  a byte for each fault, seen by all processes: whether a case was red"""

    def __init__(self, folder: Path, libs: Path, outcome: Outcome) -> None:
        self.libs, self.variant = libs, outcome.variant
        self.faults = [result.fault for result in outcome.results]
        self.noticed = mmap.mmap(-1, len(self.faults))
        with tarfile.open(folder / "libs.tar.xz") as archive:
            archive.extractall(libs.parent)
        for number in range(len(self.faults)):
            whole = libs / f"{number}-whole"
            shutil.copytree(libs / "sound", whole)
            shutil.copytree(libs / str(number), whole, dirs_exist_ok=True)
        stamp = stamp_in(folder / "mbr_stamp.h")
        reference = Reference(libs / "sound" / REFERENCE, stamp)
        self.asked = questions(reference, outcome.seed)
        self.asked.sort(key=lambda q: (not q.case.quick, q.case.family != "random"))

    def slices(self) -> list[tuple[int, int, int]]:
        """(fault, first, end) of the cases it takes part in: a few for each fault, then
        the rest in pieces, so that all share the work that a survivor makes."""
        found = []
        for number, fault in enumerate(self.faults):
            count = len(touched_by(fault, self.asked))
            starts = [0, *range(FEW, count, MANY), count]
            for turn, (start, end) in enumerate(zip(starts, starts[1:])):
                found.append((turn, number, start, end))
        return [(number, start, end) for _, number, start, end in sorted(found)]

    def judge(self, number: int, start: int, end: int) -> Judged:
        mine = touched_by(self.faults[number], self.asked)[start:end]
        spoilt = []
        while not self.noticed[number]:
            red = first_red(mine, self.libs / f"{number}-whole", self.variant)
            same = [q for q in mine if q.name == red[0]]
            if not same or not any(first_red(same, self.libs / "sound", self.variant)):
                self.noticed[number] = bool(same)
                return number, red, spoilt
            spoilt.append(red[0])
            mine.remove(same[0])
        return number, ("", ""), spoilt


_court: Court


def sit_down(court: Court) -> None:
    """Once in each process."""
    global _court
    _court = court


def judge_slice(task: tuple[int, int, int]) -> Judged:
    return _court.judge(*task)


# ---- what is written -----------------------------------------------------------------


def as_code(text: str) -> str:
    """In a cell of a table."""
    return "`" + text.replace("|", "\\|") + "`"


def as_table(results: list[Result], facts: dict[str, str]) -> str:
    lines = ["# Faults put into the kernels, and who noticed", ""]
    lines += [f"{name}: {value}  " for name, value in facts.items()]
    lines += ["", "Written by `conformance/mutate.py`, which says what this is.", ""]
    lines += ["| kind | faults | noticed | change nothing | unexplained |"]
    lines += ["|---|---|---|---|---|"]
    for kind in [BY_HAND, *KINDS]:
        mine = [r for r in results if r.fault.kind == kind]
        red, why = sum(bool(r.case) for r in mine), sum(bool(r.why) for r in mine)
        counts = f"{len(mine)} | {red} | {why} | {len(mine) - red - why}"
        lines += [f"| {kind} | {counts} |"] if mine else []
    for title, survived in (("Survived", True), ("Noticed", False)):
        mine = [r for r in results if bool(r.case) != survived]
        last = "why it changes nothing" if survived else "first red case"
        lines += ["", f"## {title}", ""] if mine else []
        lines += [f"| kind | where | was | became | {last} |"] if mine else []
        lines += ["|---|---|---|---|---|"] if mine else []
        for r in mine:
            f = r.fault
            file = f.file.removeprefix("libmambarun/")
            where = f"{file}:{f.line} {f.function} {f.kernel}".rstrip()
            red = f"{r.case}: {r.said}".replace("|", "\\|")
            said = red if r.case else r.why or "**unexplained**"
            cells = [f.kind, where, as_code(r.line), as_code(r.becomes), said]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    add = parser.add_argument
    add("--variant", default="cpu_avx2")
    add("--count", type=int, default=120, help="faults that count")
    add("--seed", type=int, default=int(time.time()))
    add("--only", default="", help="of kind, file or function")
    add("--table", type=Path, metavar="FILE", help="write all results there")
    add("--prepare", type=Path, metavar="FOLDER", help="build only, to judge elsewhere")
    add("--judge", type=Path, metavar="FOLDER", help="what --prepare has left")
    add("--nvrtc", default="", help="the compiler of CUDA kernels, as for kernels.py")
    add("--cache", default="", help="of compiled kernels")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.judge:
        return judge_there(options)
    print(f"seed {options.seed}", flush=True)
    return prepare(options) if options.prepare else judge_here(options)


if __name__ == "__main__":
    sys.exit(main())
