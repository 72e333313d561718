# SPDX-License-Identifier: Apache-2.0
"""The tree with a fault in it, for mutate.py: a copy of the sources, and a library that
is built from them, with one fault after the other."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable

from .faults import Fault
from .providers import REFERENCE, Reference

ROOT = Path(__file__).resolve().parent.parent
NOT_COMPILED, SAME_CODE = "does not compile", "same code"


def kind_of(variant: str) -> str:
    return "cuda" if variant.startswith("cuda") else "cpu"


def kernels_of(file: str) -> list[str]:
    """The kernels that are made from a file."""
    sys.path.append(str(ROOT / "libmambarun/variant"))
    import kernels  # type: ignore[import-not-found]

    found = []
    for row in kernels.rows():
        seen: dict[Path, str] = {}
        kernels.closure(kernels.ROOT / row.source, seen)
        if (ROOT / file).resolve() in seen:
            found.append(row.name)
    return found


class Tree:
    """A copy of the sources, and one build of one variant."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.root, self.variant = folder / "tree", options.variant
        self.nvrtc, self.cache = options.nvrtc, options.cache
        self.lib = self.root / "build/test/lib"
        self.kernels = self.root / "build/test/kernels" / self.variant
        ignored = shutil.ignore_patterns(
            "build", ".git", ".venv*", ".gpu", "out", "dist"
        )
        shutil.copytree(ROOT, self.root, ignore=ignored)
        given = [f"-DMAMBARUN_ONLY={self.variant}", "-DMAMBARUN_WERROR=OFF"]
        if kind_of(self.variant) == "cuda":
            major = re.findall(r"\d+", self.variant)[0]
            given += ["-DMAMBARUN_CUDA=ON", f"-DMAMBARUN_NVRTC_{major}={self.nvrtc}"]
            given += [f"-DMAMBARUN_KERNEL_CACHE={self.cache}"] if self.cache else []
        said = self.run("cmake", "--preset", "test", *given) or self.build(
            "mambarun", "reference", self.variant
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

    @property
    def library(self) -> Path:
        return self.lib / f"libmambarun_{self.variant}.so"

    @property
    def header(self) -> Path:
        return self.root / "build/test/libmambarun/generated/mbr_stamp.h"

    def hash(self) -> str:
        return hashlib.sha256(self.library.read_bytes()).hexdigest()

    def reference(self) -> Reference:
        return Reference(self.lib / REFERENCE, stamp_in(self.header))

    def with_fault(self, fault: Fault, use: Callable[[], str]) -> str:
        """use(), while the library has the fault; or why that would say nothing."""
        build = self._with_kernel if fault.kernel else self._with_source
        return build(fault, use)

    def _with_source(self, fault: Fault, use: Callable[[], str]) -> str:
        path = self.root / fault.file
        sound = path.read_text()
        try:
            path.write_text(fault.apply(sound))
            if self.build(self.variant):
                return NOT_COMPILED
            return SAME_CODE if self.hash() == self.sound else use()
        finally:
            path.write_text(sound)

    def _with_kernel(self, fault: Fault, use: Callable[[], str]) -> str:
        """Only the one kernel is compiled, and takes the place of the sound one."""
        path, out = self.root / fault.file, self.root / "kernel"
        sound = path.read_text()
        command = ["libmambarun/variant/kernels.py", "--row", fault.kernel]
        command += ["--arch", re.findall(r"\d+", self.variant)[1], "--nvrtc"]
        command += [self.nvrtc, "--out", str(out)]
        command += ["--cache", self.cache] if self.cache else []
        try:
            rewrite(path, fault.apply(sound).encode())
            if self.run(sys.executable, *command):
                return NOT_COMPILED
        finally:
            rewrite(path, sound.encode())
        image = (out / f"{fault.kernel}.cubin").read_bytes()
        table, data = self.kernels / "kernels.c", self.kernels / "kernels.bin"
        text, images = table.read_text(), data.read_bytes()
        row = re.search(rf'"{fault.kernel}", images \+ (\d+), (\d+)', text)
        assert row
        start, length = map(int, row.groups())
        if images[start : start + length] == image:
            return SAME_CODE
        longer = images + bytes(-len(images) % 64)
        changed = f'"{fault.kernel}", images + {len(longer)}, {len(image)}'
        try:
            rewrite(data, longer + image)
            rewrite(table, text.replace(row[0], changed).encode())
            said = self._link_kernels()
            if said:
                sys.exit(said)
            if self.hash() == self.sound:
                sys.exit(f"{fault.kernel} was exchanged, but the library is the same")
            return use()
        finally:
            rewrite(data, images)
            rewrite(table, text.encode())

    def _link_kernels(self) -> str:
        for built in self.root.glob("build/test/**/kernels.c.o"):
            built.unlink()
        return self.build(self.variant)


def rewrite(path: Path, content: bytes) -> None:
    """Without a newer time, for which the build would make the file once more."""
    times = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def stamp_in(header: Path) -> str:
    found = re.search(r'MBR_STAMP "(\w+)"', header.read_text())
    assert found
    return found[1]
