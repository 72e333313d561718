# SPDX-License-Identifier: Apache-2.0
"""Puts one small fault after the other into the CPU kernels of a copy of this tree and
says which case of the suite turns red first. A fault that no case notices is a hole in
the suite, unless HARMLESS knows why it changes nothing.

    python conformance/mutate.py [--count N] [--seed N] [--only WORD] [--table FILE]

Faults are those in ops/<op>/faults.py, written by hand, and others that faults.py
derives from the sources, by chance: without --seed others each time. One that does not
compile, or gives the very same library, counts for nothing and another is drawn. Prints
a line for each; --table writes all as Markdown. The exit status is 1 if a fault
survived that HARMLESS does not explain. Needs CMake, Ninja, CMocka and a C compiler."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import itertools
import mmap
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(ROOT / "shim")]

import torch  # noqa: E402

from conformance.cases import Maker  # noqa: E402
from conformance.faults import KINDS, Fault, Source, drawn  # noqa: E402
from conformance.judge import judge  # noqa: E402
from conformance.providers import Call, Library, Reference, Refused, rooms  # noqa: E402
from conformance.test_ops import room_cases, run_all_ways  # noqa: E402

CASE_SECONDS = 20  # a case that takes longer hangs
MEMORY = 6 << 30  # bytes of address space more than before a fault's cases ran
KERNELS = ("libmambarun/ops/*/cpu*.[ch]", "libmambarun/variant/cpu.h")
BY_HAND = "by hand"


@dataclass
class Expected:
    """A case, its call and what the reference says about it."""

    id: str
    call: Call
    want: dict[str, torch.Tensor]
    bound: dict[str, torch.Tensor]
    tolerances: dict[str, Any]
    kills: int = 0

    def complaint(self, candidate: Any) -> str:
        """What is wrong with a candidate's results; empty if nothing is."""
        try:
            results = run_all_ways(self.call, candidate)
        except (AssertionError, Refused) as error:
            return str(error).partition("\n")[0]
        for got, (name, array) in itertools.product(results, self.call.outputs.items()):
            tolerance = self.tolerances[name]
            verdict = judge(
                got[name],
                self.want[name],
                self.bound[name],
                array.dtype,
                tolerance.share,
                tolerance.upstream[array.dtype],
            )
            if verdict.wrong:
                return f"{name} {verdict.text}"
        return ""


def expectations(reference: Reference, seed: int) -> list[Expected]:
    found = []
    for room in rooms():
        module = room_cases(room)
        for case in module.cases(seed):
            if case.refusal:
                continue
            call = case.make(Maker(reference, case.id, seed))
            want = reference.answer(call)
            bound = reference.answer(call, bound=True)
            id = f"{room}/{case.id}"
            found.append(Expected(id, call, want, bound, module.TOLERANCES))
    return found


def touched_by(file: str, cases: Sequence[Expected]) -> list[Expected]:
    """The cases whose entry point a file takes part in: all of its room, or forwards or
    backwards only if the file's name says so."""
    path = Path(file)
    room = path.parent.name if path.parent.parent.name == "ops" else ""
    found = [case for case in cases if case.call.entry.startswith(room)]
    if path.stem in ("cpu_fwd", "cpu_bwd"):
        back = path.stem == "cpu_bwd"
        found = [c for c in found if c.call.entry.endswith("_bwd") == back]
    return found


def by_hand() -> Iterator[Fault]:
    for path in sorted(HERE.glob("ops/*/faults.py")):
        room = path.parent.name
        module = importlib.import_module(f"conformance.ops.{room}.faults")
        for name, before, after, _ in module.FAULTS:
            file = f"libmambarun/ops/{room}/{name}"
            text = (ROOT / file).read_text()
            if text.count(before) != 1:
                sys.exit(f"{file}: not there exactly once: {before}")
            start = text.index(before)
            source = Source(file, text)
            inside = [f for f, a, b in source.functions if a <= start < b]
            line = text.count("\n", 0, start) + 1
            end = start + len(before)
            yield Fault(BY_HAND, file, "".join(inside), line, start, end, before, after)


def harmless(fault: Fault, line: str) -> str:
    """Why a fault changes nothing, if that is known: the room's HARMLESS, which are
    (file, function, words of the line or of what replaces it, why)."""
    for path in sorted(HERE.glob("ops/*/faults.py")):
        module = importlib.import_module(f"conformance.ops.{path.parent.name}.faults")
        for file, function, words, why in module.HARMLESS:
            if (
                fault.file.endswith(file)
                and function in ("", fault.function)
                and words in line
            ):
                return why
    return ""


# ---- the tree with the fault ---------------------------------------------------------


class Tree:
    """A copy of the sources, and one build of one variant."""

    def __init__(self, folder: Path, variant: str) -> None:
        self.root, self.variant = folder / "tree", variant
        self.lib = self.root / "build/test/lib"
        ignored = shutil.ignore_patterns("build", ".git", ".venv*", "out", "dist")
        shutil.copytree(ROOT, self.root, ignore=ignored)
        only = [f"-DMAMBARUN_ONLY={variant}", "-DMAMBARUN_WERROR=OFF"]
        said = self.run("cmake", "--preset", "test", *only) or self.build(
            "mambarun", "reference", variant
        )
        if said:
            sys.exit(said)
        self.sound = self.hash()

    def run(self, *command: str) -> str:
        """Empty, or what a command said before it failed."""
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True)
        return done.stdout + done.stderr if done.returncode else ""

    def build(self, *targets: str) -> str:
        return self.run("cmake", "--build", "build/test", "--target", *targets)

    def hash(self) -> str:
        library = self.lib / f"libmambarun_{self.variant}.so"
        return hashlib.sha256(library.read_bytes()).hexdigest()

    def with_fault(self, fault: Fault, use: Callable[[Path], str]) -> str:
        """use(folder of libraries), or why that would say nothing."""
        path = self.root / fault.file
        sound = path.read_text()
        try:
            path.write_text(fault.apply(sound))
            if self.build(self.variant):
                return "does not compile"
            return "same code" if self.hash() == self.sound else use(self.lib)
        finally:
            path.write_text(sound)


# ---- one fault, in a process of its own ----------------------------------------------


def first_red(cases: list[Expected], lib: Path, variant: str) -> str:
    """The first case that turns red and how, empty if none does. Cases that have
    noticed a fault before go first, then small ones."""
    cases.sort(
        key=lambda c: (
            -c.kills,
            sum(a.buffer.numel() for a in c.call.arrays().values()),
        )
    )
    at = mmap.mmap(-1, 8)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "lib"
        shutil.copytree(lib, copy)
        words = Path(folder) / "words"
        child = os.fork()
        if child == 0:
            try:
                os.environ.update(MAMBARUN_PATH=str(copy), MAMBARUN_VARIANT=variant)
                words.write_text(_first_red(cases, copy, at))
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        red = cases[int.from_bytes(at[:], "little")]
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            hangs = number == signal.SIGALRM
            said = "hangs" if hangs else f"ends in {signal.Signals(number).name}"
        elif os.WEXITSTATUS(status):
            said = "breaks the process"
        else:
            said = words.read_text()
        if not said:
            return ""
        red.kills += 1
        return f"{red.id}: {said}"


def _first_red(cases: list[Expected], lib: Path, at: mmap.mmap) -> str:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * mmap.PAGESIZE + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    candidate = Library(lib / "libmambarun.so")
    for number, case in enumerate(cases):
        at[:] = number.to_bytes(8, "little")
        signal.alarm(CASE_SECONDS)
        try:
            said = case.complaint(candidate)
        except Exception as error:  # what the fault did to this very process
            said = f"{type(error).__name__}: {error}".partition("\n")[0]
        if said:
            return said
    return ""


# ---- all of them ---------------------------------------------------------------------


@dataclass
class Result:
    fault: Fault
    line: str
    becomes: str
    red: str  # case and complaint; empty: survived
    why: str = ""  # why it may


def faults(options: argparse.Namespace) -> Iterator[Fault]:
    files = sorted(
        str(p.relative_to(ROOT)) for glob in KERNELS for p in ROOT.glob(glob)
    )
    for fault in itertools.chain(by_hand(), drawn(ROOT, files, options.seed)):
        words = f"{fault.kind} {fault.file} {fault.function}"
        if options.only in words:
            yield fault


def judge_faults(
    options: argparse.Namespace, tree: Tree, cases: list[Expected]
) -> tuple[list[Result], Counter[str]]:
    results: list[Result] = []
    idle: Counter[str] = Counter()
    for fault in faults(options):
        if len(results) == options.count:
            break
        red = tree.with_fault(
            fault,
            lambda lib, fault=fault: first_red(  # type: ignore[misc]
                touched_by(fault.file, cases), lib, options.variant
            ),
        )
        if red in ("does not compile", "same code"):
            idle[red] += 1
            continue
        line, becomes = fault.source((ROOT / fault.file).read_text())
        why = "" if red else harmless(fault, line)
        results.append(Result(fault, line, becomes, red, why))
        print(
            f"{len(results):4} {fault.kind}, {fault.file}:{fault.line} "
            f"{fault.function}: {red or 'SURVIVED ' + (why or 'unexplained')}",
            flush=True,
        )
        if not red:
            print(f"       {line}\n    -> {becomes}", flush=True)
    return results, idle


def code(text: str) -> str:
    """As code in a cell of a table."""
    return "`" + text.replace("|", "\\|") + "`"


def as_table(results: list[Result], facts: dict[str, str]) -> str:
    lines = ["# Faults put into the kernels, and who noticed", ""]
    lines += [f"{name}: {value}  " for name, value in facts.items()]
    lines += ["", "Written by `conformance/mutate.py`, which says what this is.", ""]
    lines += ["| kind | faults | noticed | change nothing | unexplained |"]
    lines += ["|---|---|---|---|---|"]
    for kind in [BY_HAND, *KINDS]:
        mine = [r for r in results if r.fault.kind == kind]
        red, why = sum(bool(r.red) for r in mine), sum(bool(r.why) for r in mine)
        lines.append(
            f"| {kind} | {len(mine)} | {red} | {why} | {len(mine) - red - why} |"
        )
    for title, survived in (("Survived", True), ("Noticed", False)):
        lines += ["", f"## {title}", ""]
        last = "why it changes nothing" if survived else "first red case"
        lines += [f"| kind | where | was | became | {last} |", "|---|---|---|---|---|"]
        for r in results:
            if bool(r.red) == survived:
                continue
            f = r.fault
            where = f"{f.file.removeprefix('libmambarun/')}:{f.line} {f.function}"
            said = r.red.replace("|", "\\|") or r.why or "**unexplained**"
            lines.append(
                f"| {f.kind} | {where} | {code(r.line)} | {code(r.becomes)} | {said} |"
            )
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--variant", default="cpu_avx2")
    parser.add_argument("--count", type=int, default=120, help="faults that count")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", default="", help="of kind, file or function")
    parser.add_argument("--table", type=Path, help="write all results there")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    torch.set_num_threads(1)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(Path(folder), options.variant)
        stamp = Library(tree.lib / "libmambarun.so").facts().stamp.decode()
        reference = Reference(tree.lib / "libmambarun_reference.so", stamp)
        cases = expectations(reference, options.seed)
        said = first_red(cases, tree.lib, options.variant)
        if said:
            sys.exit(f"without any fault: {said}")
        results, idle = judge_faults(options, tree, cases)
    survived = [r for r in results if not r.red]
    unexplained = [r for r in survived if not r.why]
    facts = {
        "variant": options.variant,
        "seed": str(options.seed),
        "faults": f"{len(results)}, and {dict(idle)} that count for nothing",
        "noticed": str(len(results) - len(survived)),
        "survived": f"{len(survived)}, of which {len(unexplained)} unexplained",
        "seconds": f"{time.monotonic() - begin:.0f}",
    }
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))
    if options.table:
        options.table.write_text(as_table(results, facts))
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
