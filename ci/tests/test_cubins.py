# SPDX-License-Identifier: Apache-2.0
"""test_cubins.py - checks/cubins.py finds each kind of wrong library, and a variant
more is one line of manifest.def. The libraries are built as always, from a copy of this
tree, by a fake NVRTC whose kernels are empty and, where a test says so, wrong."""

from __future__ import annotations

import collections
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "libmambarun/variant"))
import kernels  # noqa: E402

SOURCES = collections.Counter(row.source for row in kernels.rows())
ROW = next(row for row in kernels.rows() if SOURCES[row.source] == 1 and not row.spills)
KERNEL, SOURCE = ROW.name, f"libmambarun/{ROW.source}"
INSTANCES = str(Path(SOURCE).with_name("instances.def"))
NEW_ROW = "MBR_CUDA_VARIANT(cuda12_sm89, 12, cubin, 89, 89, 89)\n"


class Build:
    """A copy of the tree with one more row, and what was built of it."""

    ROWS = ("cuda12_sm90", "cuda12_sm80", "cuda12_sm75", "cuda12_sm89")

    def __init__(self, folder: Path, nvrtc: Path) -> None:
        self.tree, self.build = folder / "tree", folder / "build"
        self.environment = {
            **os.environ,
            "FAKE_NVRTC_LOG": str(folder / "nvrtc.log"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        shutil.copytree(ROOT / "libmambarun", self.tree / "libmambarun")
        for folder in ("ci/checks", "shim/mambarun", "examples"):
            shutil.copytree(ROOT / folder, self.tree / folder)
        shutil.copy(ROOT / "CMakeLists.txt", self.tree)
        self.edit("libmambarun/manifest.def", "MBR_CUDA_VARIANT(cuda11_sm80", NEW_ROW)
        self.say(
            "cmake", "-G", "Ninja", "-S", self.tree, "-B", self.build,
            "-DCMAKE_BUILD_TYPE=Debug", "-DMAMBARUN_CUDA=ON",
            f"-DMAMBARUN_NVRTC_12={nvrtc}", f"-DMAMBARUN_ONLY={';'.join(self.ROWS)}",
        )  # fmt: skip
        self.make()

    def edit(self, file: str, before: str, text: str) -> None:
        """Puts text before that, or at the file's beginning."""
        path = self.tree / file
        old = path.read_text()
        assert before in old
        path.write_text(old.replace(before, text + before, 1))

    def say(self, *command: object) -> str:
        done = subprocess.run(
            [str(word) for word in command],
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def make(self) -> None:
        self.say("cmake", "--build", self.build)

    def check(self, *rows: str) -> tuple[int, list[str]]:
        """The exit status of cubins.py and what it finds wrong."""
        command = [sys.executable, self.tree / "ci/checks/cubins.py", self.build, *rows]
        done = subprocess.run(command, capture_output=True, text=True)
        assert not done.stderr, done.stderr
        lines = done.stdout.splitlines()
        return done.returncode, [x for x in lines if ": " in x and x[:2] != "OK"]


@pytest.fixture(scope="module")
def build(tmp_path_factory, nvrtc) -> Build:
    return Build(tmp_path_factory.mktemp("build"), nvrtc)


@pytest.fixture
def changed(build):
    """changed(file, before, text): edits, builds and checks; undone after the test."""
    kept = {}

    def changed_(file: str, before: str, text: str) -> tuple[int, list[str]]:
        kept[file] = (build.tree / file).read_text()
        build.edit(file, before, text)
        build.make()
        return build.check()

    yield changed_
    for file, text in kept.items():
        (build.tree / file).write_text(text)
    build.make()


def test_libraries_that_hold_what_they_should_pass(build):
    assert build.check(*build.ROWS) == (0, [])


def test_a_variant_more_is_one_line_of_the_manifest(build):
    assert build.check("cuda12_sm89") == (0, [])
    code = "import mambarun\nfor v in mambarun.info()['variants']: print(v['name'])"
    names = build.say(
        "env", f"PYTHONPATH={build.tree / 'shim'}",
        f"MAMBARUN_PATH={build.build / 'lib'}", sys.executable, "-c", code,
    ).split()  # fmt: skip
    assert names.index("cuda12_sm89") + 1 == names.index("cuda11_sm80")


@pytest.mark.parametrize("rows", ["cpu_scalar;cuda12_sm91", "cuda12_*"])
def test_a_choice_of_rows_that_are_not_there_is_refused(build, tmp_path, rows):
    """The second needs MAMBARUN_CUDA."""
    done = subprocess.run(
        ["cmake", "-G", "Ninja", "-S", build.tree, "-B", tmp_path]
        + [f"-DMAMBARUN_ONLY={rows}"],
        env=build.environment,
        capture_output=True,
        text=True,
    )
    said = " ".join(done.stderr.split())
    assert done.returncode == 1
    assert f"no row of manifest.def matches {rows.split(';')[-1]} that would be" in said


def test_what_was_not_built_is_missed(build):
    status, wrong = build.check("cuda12_sm100", "cuda99_sm1")
    assert status == 1
    assert wrong == [
        "cuda99_sm1: no row of manifest.def",
        "cuda12_sm100: not built",
        "cuda99_sm1: not built",
    ]


def test_a_kernel_for_another_architecture_is_found_in_the_image(changed):
    status, wrong = changed(SOURCE, "", "// arch 80\n")
    assert status == 1
    assert wrong == [
        f"{row}: {KERNEL}: is for sm_80, not sm_{row[-2:]}"
        for row in ("cuda12_sm90", "cuda12_sm75", "cuda12_sm89")
    ]


def test_a_kernel_of_another_name_is_found_in_the_image(changed):
    status, wrong = changed(SOURCE, "", "// kernel other\n")
    assert status == 1 and len(wrong) == 4
    assert f"cuda12_sm90: {KERNEL}: holds the kernels ['other']" in wrong


def test_a_spill_on_sm_80_or_90_needs_its_reason(changed):
    status, wrong = changed(SOURCE, "", "// spills 16\n")
    assert status == 1
    assert wrong == [
        f"{row}: {KERNEL}: stack 0, spill_stores 16, spill_loads 16, and its row does "
        "not say why"
        for row in ("cuda12_sm90", "cuda12_sm80")
    ]


def test_a_spill_with_its_reason_passes(changed, build):
    rows = build.tree / INSTANCES
    (row,) = (x for x in rows.read_text().splitlines() if f"({KERNEL}," in x)
    changed(INSTANCES, row, "\n")
    rows.write_text(rows.read_text().replace(row, f"{row} /* spills: a test */"))
    assert changed(SOURCE, "", "// spills 16\n") == (0, [])


def test_a_row_that_is_too_large_is_found_and_may_be_excepted(changed, build):
    """The bound is moved: the fake's kernels are small."""
    status, wrong = changed("ci/checks/cubins.py", "# of device code", "// 1000 ")
    assert status == 1 and len(wrong) == 4
    assert all("bytes of device code, at most 3000" in line for line in wrong)
    assert build.check("--except-size") == (0, wrong)


def test_a_room_with_too_many_rows_is_found(changed):
    status, wrong = changed("ci/checks/cubins.py", "# of one op", "// 10 ")
    assert status == 1 and any("rows, fewer than 10 are allowed" in x for x in wrong)


def test_a_library_under_another_name_is_found(build, tmp_path):
    """And one of a row that was not built at all."""
    other = build.build / "lib/libmambarun_cuda12_sm100.so"
    shutil.copy(build.build / "lib/libmambarun_cuda12_sm90.so", other)
    shutil.copytree(
        build.build / "kernels/cuda12_sm90", build.build / "kernels/cuda12_sm100"
    )
    try:
        status, wrong = build.check()
    finally:
        other.unlink()
        shutil.rmtree(build.build / "kernels/cuda12_sm100")
    assert status == 1
    assert "cuda12_sm100: calls itself cuda12_sm90" in wrong
    assert f"cuda12_sm100: {KERNEL}: is for sm_90, not sm_100" in wrong


def test_a_library_of_another_build_is_found(build):
    report = build.build / "kernels/cuda12_sm90/kernels.json"
    kept = report.read_text()
    report.write_text("[]")
    try:
        status, wrong = build.check()
    finally:
        report.write_text(kept)
    assert (status, wrong) == (1, ["cuda12_sm90: kernels.json is of another build"])


def test_kernels_that_instances_def_does_not_have_are_found(build):
    rows = build.tree / INSTANCES
    kept = rows.read_text()
    rows.write_text(kept.replace(f"MBR_KERNEL({KERNEL}", "MBR_KERNEL(renamed"))
    try:
        status, wrong = build.check()
    finally:
        rows.write_text(kept)
    assert status == 1 and len(wrong) == 4
    said = f"has other kernels than instances.def: {sorted(['renamed', KERNEL])}"
    assert f"cuda12_sm90: {said}" in wrong
