# SPDX-License-Identifier: Apache-2.0
"""test_foreign.py - foreign.sh, without a GPU or the originals: torch, mambarun and
the suite are stubs, and the archives hold a line each."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

STUBS = {
    "torch/__init__.py": """
import os
class cuda:
    is_available = staticmethod(lambda: "gpu" not in os.environ["LACKS"])
""",
    "torch/utils/__init__.py": "",
    "torch/utils/cpp_extension.py": """
import os, pathlib
CUDA_HOME = None if "nvcc" in os.environ["LACKS"] else "/usr/local/cuda"
is_ninja_available = lambda: "ninja" not in os.environ["LACKS"]
def load(name, sources, build_directory, is_python_module, **flags):
    text = "".join(pathlib.Path(source).read_text() for source in sorted(sources))
    if "error" in text: raise RuntimeError("ninja: build stopped")
    arch = os.environ["TORCH_CUDA_ARCH_LIST"]
    pathlib.Path(build_directory, name + ".so").write_text(f"{arch}: {text}")
""",
    "mambarun.py": """
import os
def install(): pass  # an installed mambarun's start-up file asks for it
def info(device):
    usable = "sm_90" not in os.environ["LACKS"]
    row = {"name": "cuda12_sm90", "reason": "needs sm_90, device is sm_80"}
    return {"variants": [{**row, "usable": usable}]}
""",
}
SUITE = "import sys; print(*sys.argv[1:], sep='\\n'); sys.exit(1)"


class Machine:
    def __init__(self, folder: Path) -> None:
        self.folder, self.tree, self.out = folder, folder / "tree", folder / "out"
        (self.tree / "ci").mkdir(parents=True)
        shutil.copy(ROOT / "ci/foreign.sh", self.tree / "ci")
        for file, text in STUBS.items():
            path = folder / "stubs" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (self.tree / "conformance").mkdir()
        (self.tree / "conformance/__init__.py").touch()
        (self.tree / "conformance/__main__.py").write_text(SUITE)
        self.pack("scan-2.3.1", {"csrc/selective_scan/a.cpp": "c10::optional a\n"})
        self.pack("conv-1.6.1", {"csrc/b.cpp": "b\n", "csrc/c.cu": "c\n"})

    def pack(self, name: str, files: dict[str, str]) -> None:
        for file, text in files.items():
            path = self.folder / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        with tarfile.open(self.folder / f"{name}.tar.gz", "w:gz") as archive:
            archive.add(self.folder / name, name)
        shutil.rmtree(self.folder / name)

    def run(self, *arguments: str, lacks: str = "", **settings: str):
        done = subprocess.run(
            ["bash", "tree/ci/foreign.sh", *arguments],
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHON": sys.executable,
                "PYTHONPATH": str(self.folder / "stubs"),
                "LACKS": lacks,
                **settings,
            },
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout.splitlines(), done.stderr


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def test_both_are_compiled_and_judged_beside_the_variant(machine):
    status, lines, errors = machine.run("out", "scan-2.3.1.tar.gz", "conv-1.6.1.tar.gz")
    assert (status, errors) == (1, "")  # the suite's
    modules = [
        machine.out / "scan-2.3.1/build/selective_scan_cuda.so",
        machine.out / "conv-1.6.1/build/causal_conv1d_cuda.so",
    ]
    assert lines[:2] == [
        "compiling selective_scan_cuda of scan-2.3.1 for 9.0",
        "compiling causal_conv1d_cuda of conv-1.6.1 for 9.0",
    ]
    assert " ".join(lines[2:]) == (
        f"--provider mambarun:cuda12_sm90 --provider file:{modules[0]} "
        f"--provider file:{modules[1]} --device cuda --report {machine.out}/report"
    )
    assert modules[0].read_text() == "9.0: std::optional a\n"
    assert modules[1].read_text() == "9.0: b\nc\n"
    assert sorted(os.listdir(machine.tree)) == [
        "ci",
        "conformance",
    ]  # nothing enters it


def test_one_archive_will_do_and_may_lie_anywhere(machine):
    status, lines, _ = machine.run(
        str(machine.out), str(machine.folder / "conv-1.6.1.tar.gz"),
        TORCH_CUDA_ARCH_LIST="8.0", VARIANT="cuda12_sm90",
    )  # fmt: skip
    assert status == 1
    assert lines[0] == "compiling causal_conv1d_cuda of conv-1.6.1 for 8.0"
    assert sum("file:" in line for line in lines) == 1


def test_a_second_run_keeps_what_is_unpacked(machine):
    machine.run("out", "conv-1.6.1.tar.gz")
    source = machine.out / "conv-1.6.1/csrc/b.cpp"
    before = source.stat()
    (machine.out / "conv-1.6.1.part").mkdir()  # of a run that was ended
    assert machine.run("out", "conv-1.6.1.tar.gz")[0] == 1
    assert source.stat() == before


def test_two_versions_do_not_meet(machine):
    machine.pack("conv-1.5.0", {"csrc/b.cpp": "old\n"})
    machine.run("out", "conv-1.5.0.tar.gz")
    _, lines, _ = machine.run("out", "conv-1.6.1.tar.gz")
    (module,) = (x for x in lines if x.startswith("file:"))
    assert Path(module[len("file:") :]).read_text() == "9.0: b\nc\n"


def test_what_does_not_compile_shows_the_end_of_its_log(machine):
    machine.pack("conv-9", {"csrc/b.cpp": "an error\n"})
    status, lines, _ = machine.run("out", "conv-9.tar.gz")
    assert status == 1 and lines[-1] == "RuntimeError: ninja: build stopped"


@pytest.mark.parametrize(
    "lacks, said",
    [
        ("gpu", "a GPU that torch can use"),
        ("nvcc ninja", "nvcc, on PATH or below CUDA_HOME; ninja"),
        ("sm_90", "mambarun's cuda12_sm90: needs sm_90, device is sm_80"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_compiled(machine, lacks, said):
    status, lines, errors = machine.run("out", "conv-1.6.1.tar.gz", lacks=lacks)
    assert (status, lines) == (3, [])
    assert errors == f"NotSupported: this needs {said}\n"
    assert not machine.out.exists()


def test_refusals(machine):
    status, _, errors = machine.run("tree/here", "conv-1.6.1.tar.gz")
    assert status == 2 and errors == f"{machine.tree}/here lies in this repository\n"
    assert not (machine.tree / "here").exists()
    status, _, errors = machine.run("out", "scan.tar.gz")
    assert (status, errors) == (2, "there is no scan.tar.gz\n")
    machine.pack("other-1", {"README": "nothing\n"})
    status, _, errors = machine.run("out", "other-1.tar.gz")
    assert status == 2 and "other-1.tar.gz has neither" in errors
    status, lines, _ = machine.run("out")
    assert status == 2 and "ci/foreign.sh FOLDER" in "".join(lines)
