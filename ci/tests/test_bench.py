# SPDX-License-Identifier: Apache-2.0
"""test_bench.py - bench/gpu.py on a CPU, with small rows and a clock that stands still:
its float64 is right, and it finds a module that is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
ROOT = Path(__file__).resolve().parents[2]
LIB = ROOT / "build/test/lib"
pytestmark = pytest.mark.skipif(
    not LIB.is_dir(), reason="build/test/lib is not built: cmake --build --preset test"
)

# ours, theirs: by how much the modules' results are multiplied.
SCRIPT = """
import importlib, sys
from dataclasses import replace

ours, theirs, file, *options = sys.argv[1:]
sys.argv[1:] = ["--json", file, "--upstream", ".", *options]
import gpu, mambarun, torch

class Module:
    def __init__(self, real, factor):
        self.real, self.factor = real, float(factor)
    def __getattr__(self, name):
        if name.startswith("__"): raise AttributeError(name)
        def call(*arguments):
            found = getattr(self.real, name)(*arguments)
            for tensor in found or [arguments[5]]:
                if tensor is not None: tensor.mul_(self.factor)
            return found
        return call

gpu.DEVICE, gpu.FLUSH_BYTES = "cpu", 8
scan, conv = gpu.SCANS, gpu.CONVS
gpu.SCANS = (
    replace(scan[0], batch=2, dim=12, length=100, states=4),
    replace(scan[0], batch=2, dim=12, length=100, states=4, groups=3, z=False),
    replace(scan[5], batch=2, dim=12, length=70, states=3),
    replace(scan[-1], batch=2, dim=12, length=49),
)
gpu.CONVS = tuple(replace(c, batch=2, dim=16, length=64) for c in (conv[0], conv[1]))
names = {row.module for row in (*gpu.SCANS, *gpu.CONVS)}
real = {name: importlib.import_module(name) for name in names}
sys.modules.update({name: Module(real[name], ours) for name in names})
first = gpu.SCANS[0].module
gpu.load_upstream = lambda folder: {first: Module(real[first], theirs)}
gpu.driver, gpu.copy_rate = (lambda: "580"), (lambda: 3.0)
gpu.median_ms = lambda runs, flush, repeats: [1.0 for run in runs if run() or True]
torch.cuda.is_available = lambda: True
torch.cuda.get_device_name = lambda number: "a GPU"
info = mambarun.info
mambarun.preload, mambarun.info = (lambda device: None), (lambda *device: info())
sys.exit(gpu.main())
"""


def bench(folder: Path, ours: float, theirs: float, *options: str):
    """(exit status, rows, what is said)."""
    file = folder / "bench.json"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(ours), str(theirs), str(file), *options],
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}/bench:{ROOT}/shim:{ROOT}/shim/standins",
            "MAMBARUN_PATH": str(LIB),
            "MAMBARUN_TRACE": "0",
        },
        capture_output=True,
        text=True,
    )
    rows = json.loads(file.read_text())["rows"] if file.exists() else []
    return done.returncode, rows, done.stdout + done.stderr


def test_what_is_right_is_timed_with_its_errors(tmp_path):
    status, rows, said = bench(tmp_path, 1, 1)
    assert status == 0, said
    assert len(rows) == 6 and said.count(", right") == 6
    for row in rows:
        assert row["errors"] and row["forward"]["ms"] == row["backward"]["ms"] == 1
        assert all(0 <= error < 4e-3 for error in row["errors"].values())
    for row in rows[:3]:
        assert row["upstream_errors"] == row["errors"]
        assert row["forward"]["upstream_over_ours"] == 1
    assert "upstream_errors" not in rows[3] and "upstream_h200_errors" not in rows[5]


def test_what_is_wrong_is_not_timed(tmp_path):
    status, rows, said = bench(tmp_path, 1.01, 1)
    assert status == 1 and said.count("WRONG: beyond rounding: ") == 6
    assert all("forward" not in row for row in rows)


def test_what_is_wrong_of_upstreams_is_shown_and_no_fault(tmp_path):
    status, rows, _ = bench(tmp_path, 1, 1.01)
    assert status == 0
    for row in rows[:3]:
        assert row["upstream_errors"]["du"] > 9e-3 > 4 * row["errors"]["du"] > 0


def test_rows_are_chosen_by_name_or_module(tmp_path):
    _, rows, _ = bench(tmp_path, 1, 1, "--only", "channel-last")
    assert [row["row"] for row in rows] == ["Mamba-130M B8, channel-last"]
    _, rows, _ = bench(tmp_path, 1, 1, "--only", rows[0]["op"])
    assert len(rows) == 2
    status, rows, said = bench(tmp_path / "none", 1, 1, "--only", "nothing")
    assert status == 1 and "no row's name or module has nothing" in said
