# SPDX-License-Identifier: Apache-2.0
"""harness.py - for a benchmark of every variant: opened side by side in one process,
timed in turns, a table and the JSON. Knows no op and checks no numbers.

One-thread times are CPU times of the calling thread, so that a busy machine disturbs
them little; times on several threads are wall times; the best of the repeats counts.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "shim"))

import mambarun  # noqa: E402
import torch  # noqa: E402
from mambarun._lib import Params  # noqa: E402

Work = Callable[[], Any]
TABLE_HEAD = 4  # members of mbr_table before its functions


class Variant:
    """The functions of one variant, by entry point, past the checks of libmambarun."""

    def __init__(self, path: str, stamp: str) -> None:
        rows = (ROOT / "libmambarun" / "ops" / "ops.def").read_text()
        members = re.findall(r"^MBR_(OP|WORKSPACE)\((\w+)\)", rows, re.M)
        table = (ctypes.c_void_p * (TABLE_HEAD + len(members)))()
        entry = ctypes.CDLL(path).mbr_variant_entry
        answer = entry(stamp.encode(), ctypes.sizeof(table), None, ctypes.byref(table))
        if answer != 0:
            sys.exit(f"{path} refuses ({answer}): built from another tree?")
        self._functions = {}
        for (kind, op), address in zip(members, table[TABLE_HEAD:]):
            returns = ctypes.c_size_t if kind == "WORKSPACE" else ctypes.c_int
            name = op + "_workspace" * (kind == "WORKSPACE")
            type_ = ctypes.CFUNCTYPE(returns, ctypes.c_char_p)
            self._functions[name] = type_(address)

    def work(self, params: Params, tensors: dict, *tail: int, threads: int) -> Work:
        """A call, packed and with its workspace, ready to be timed."""
        packed, scratch = params.pack(tensors, *tail, threads=threads), None
        if params.op + "_workspace" in self._functions:
            size = self._functions[params.op + "_workspace"](packed)
            scratch = torch.empty(size + 64, dtype=torch.uint8)
            start = (scratch.data_ptr() + 63) // 64 * 64
            packed = params.pack(
                tensors, *tail, threads=threads, workspace=(start, size)
            )
        function, kept = self._functions[params.op], (tensors, scratch)

        def call() -> Any:
            status = function(packed)
            assert status == 0, f"{params.op}: status {status}"
            return kept

        return call


def variants() -> dict[str, Variant]:
    """Every CPU variant that this machine can run, by name, best first."""
    info = mambarun.info()
    return {
        v["name"]: Variant(v["path"], info["stamp"])
        for v in info["variants"]
        if v["mode"] == "cpu" and v["usable"]
    }


def compile_c(source: Path) -> ctypes.CDLL:
    """The library that `cc -O2` makes of a C file."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "plain.so"
        subprocess.run(
            ["cc", "-O2", "-shared", "-fPIC", "-o", library, source, "-lm"], check=True
        )
        return ctypes.CDLL(str(library))


def address(tensor: Any) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def interleave(
    works: dict[str, Work], repeats: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds of each work, `repeats` times, one after the other in turns; after one
    turn that does not count."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            start = clock()
            work()
            if turn:
                times[name].append(clock() - start)
    return times


def alone(works: dict[str, Work], repeats: int) -> dict[str, list[float]]:
    return interleave(works, repeats, time.thread_time)


def together(works: dict[str, Work], repeats: int) -> dict[str, list[float]]:
    return interleave(works, repeats, time.perf_counter)


def median_ratio(slow: list[float], fast: list[float]) -> float:
    """How many times faster: the median over the turns."""
    return statistics.median(s / f for s, f in zip(slow, fast))


class Report:
    """Rows of a table: a label, milliseconds, a rate, a ratio and what it should be."""

    def __init__(self, title: str) -> None:
        info = mambarun.info()
        self.machine = {"cpu": info["cpu"], "library": info["library"]}
        self.rows: list[dict] = []
        print(title)
        print(f"{info['cpu']['name']}, {info['cpu']['count']} CPUs, {info['library']}")

    def add(
        self,
        label: str,
        seconds: float,
        work: float,
        unit: str,
        ratio: float | None = None,
        target: float | None = None,
    ) -> None:
        row = {"label": label, "ms": seconds * 1e3, "rate": work / seconds / 1e9}
        row.update(unit=unit, ratio=ratio, target=target)
        self.rows.append(row)
        line = f"{label:44} {row['ms']:9.2f} ms {row['rate']:7.2f} {unit}"
        if ratio is not None:
            line += f" {ratio:6.1f}x"
        if target is not None:
            line += f"  target {target}x {'met' if ratio >= target else 'MISSED'}"
        print(line, flush=True)

    def missed(self) -> list[str]:
        return [
            r["label"] for r in self.rows if r["target"] and r["ratio"] < r["target"]
        ]

    def finish(self, options: argparse.Namespace) -> int:
        """Writes the JSON; the exit status."""
        if options.json:
            data = {"machine": self.machine, "rows": self.rows}
            Path(options.json).write_text(json.dumps(data, indent=1) + "\n")
        for label in self.missed():
            print(f"target missed: {label}")
        return int(options.check and bool(self.missed()))


def options(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", metavar="FILE", help="write the rows there too")
    parser.add_argument("--check", action="store_true", help="fail on a missed target")
    parser.add_argument("--repeats", type=int, default=15)
    return parser.parse_args()
