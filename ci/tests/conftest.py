# SPDX-License-Identifier: Apache-2.0
"""conftest.py - a copy of what the build needs of this tree, for a test to break."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def nvrtc(tmp_path_factory) -> Path:
    """The fake NVRTC's library."""
    library = tmp_path_factory.mktemp("nvrtc") / "libnvrtc.so.12"
    source = ROOT / "ci/tests/nvrtc.c"
    subprocess.run(
        ["cc", "-std=gnu11", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", library]
        + [source],
        check=True,
    )
    return library


class Tree:
    """kernels.py with a room of two kernels, of two sources, beside the fake NVRTC."""

    INSTANCES = "MBR_KERNEL(toy_one, one.cu, IN=f32)\nMBR_KERNEL(toy_two, two.cu, )\n"

    def __init__(self, folder: Path, nvrtc: Path) -> None:
        self.folder, self.nvrtc = folder, nvrtc
        self.room, self.out = folder / "ops/toy", folder / "out"
        self.cache, self.log = self.out / "cache", folder / "nvrtc.log"
        (folder / "variant").mkdir()
        self.room.mkdir(parents=True)
        shutil.copy(ROOT / "libmambarun/variant/kernels.py", folder / "variant")
        (self.room / "instances.def").write_text(self.INSTANCES)
        (self.room / "one.cu").write_text('#include "toy.cuh"\n')
        (self.room / "two.cu").write_text('#include "variant/device.cuh"\n')
        (self.room / "toy.cuh").write_text('#include "variant/device.cuh"\n')
        (folder / "variant/device.cuh").write_text("// nothing\n")

    def run(self, *options: str, arch: int = 90) -> subprocess.CompletedProcess:
        command = [sys.executable, self.folder / "variant/kernels.py", *options]
        command += ["--arch", str(arch), "--nvrtc", self.nvrtc, "--out", self.out]
        self.log.write_text("")
        return subprocess.run(
            [str(word) for word in command],
            env={**os.environ, "FAKE_NVRTC_LOG": str(self.log)},
            capture_output=True,
            text=True,
        )

    def compiles(self, *options: str, **how: int) -> list[str]:
        """Runs; the kernels that NVRTC was asked for."""
        done = self.run(*options, **how)
        assert done.returncode == 0, done.stderr
        return sorted(line.split()[0] for line in self.log.read_text().splitlines())

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.folder / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))


@pytest.fixture
def tree(tmp_path, nvrtc) -> Tree:
    return Tree(tmp_path, nvrtc)
