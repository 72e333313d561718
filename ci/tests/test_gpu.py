# SPDX-License-Identifier: Apache-2.0
"""test_gpu.py - gpu.sh and what makes one summary of its results, without a GPU: every
program that it calls is fake_tool.py, which writes what the real one would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
H100, H200 = "NVIDIA H100 80GB HBM3", "NVIDIA H200"
PARTS = """conformance callers shim subset-cuda11_ptx80 transformers memcheck racecheck
    vmamba_digits mamba_text subset-cuda13_sm90 subset-cuda11_sm90 deterministic large
    scan_c check bench""".split()


class Gpu:
    """A machine with this repository's gpu.sh, what carry.sh packs, and fake tools."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tree = folder, folder / "tree"
        shutil.copytree(ROOT / "ci", self.tree / "ci")
        (self.tree / "libmambarun").mkdir()
        shutil.copy(ROOT / "libmambarun/manifest.def", self.tree / "libmambarun")
        for file in ("wheels/mambarun-0.whl", "lib/libmambarun_cuda13_sm90.so"):
            path = self.tree / "out/gpu" / file
            path.parent.mkdir(parents=True)
            path.touch()
        (self.tree / "out/gpu/commit.txt").write_text("abc1234\n")
        self.tools = folder / "tools"
        self.tools.mkdir()
        code = (ROOT / "ci/tests/fake_tool.py").read_text()
        for name in ("python3", "nvidia-smi", "compute-sanitizer", "cc"):
            path = self.tools / name
            path.write_text(f"#!{sys.executable}\n{code}")
            path.chmod(0o755)
        self.log = folder / "log"

    def run(self, *arguments: str, **settings: str) -> tuple[int, list[str], str]:
        """(exit status, lines on stdout, what is on stderr)."""
        self.log.write_text("")
        done = subprocess.run(
            ["bash", "tree/ci/gpu.sh", *arguments],
            cwd=self.folder,
            env={
                **os.environ,
                "PATH": f"{self.tools}:{os.environ['PATH']}",
                "FAKE_LOG": str(self.log),
                "FAKE_GPU": H100,
                **settings,
            },
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stdout.splitlines(), done.stderr

    def said(self, name: str, folder: str = "out") -> str:
        return (self.folder / folder / "docs/results/gpu" / name).read_text()

    def summarize(self, folder: str) -> str:
        command = [sys.executable, self.tree / "ci/summary.py", self.folder / folder]
        return subprocess.run(command, capture_output=True, text=True).stdout


@pytest.fixture
def gpu(tmp_path) -> Gpu:
    return Gpu(tmp_path)


def rows(summary: str, word: str) -> list[list[str]]:
    """The cells of each line of a table that begins with this word."""
    lines = (x for x in summary.splitlines() if x.startswith(f"| {word} |"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


# ---- parts ------------------------------------------------------------------------


def test_all_parts_leave_their_words_and_a_summary(gpu):
    status, lines, errors = gpu.run("out", "all", FAKE_GPUS="2")
    assert (status, errors) == (0, "every part ended well\n")
    assert sorted(x.split()[1] for x in lines if x[:3] == "ok ") == sorted(PARTS)
    summary = gpu.said("summary.md")
    assert summary.endswith("\nevery part ended well\n")
    for part in PARTS:
        assert gpu.said(f"{part}.txt").splitlines()[-1].startswith(f"ok {part} (cuda")
        ((_, _, verdict, *_, machine, date),) = rows(summary, part)
        assert (verdict, machine) == ("ok", "1") and date.endswith("UTC")
    assert "- commit: abc1234\n" in summary and f"\n- gpu: {H100}" * 2 in summary
    assert rows(summary, "cuda11_ptx80")[0][1].endswith("ran: subset-cuda11_ptx80")
    assert "not run: needs a GPU for its sm_100 cubin" in summary
    assert "3 passed, 0 failed, 1 skipped" in summary
    assert "- skipped case_4: as the fake says" in summary
    assert "ERROR SUMMARY: 0 errors" in summary


def test_where_the_checkout_lies_is_in_no_result(gpu):
    gpu.run("out", "callers", "bench")
    files = [f for f in (gpu.folder / "out").rglob("*") if f.is_file()]
    assert files and all(str(gpu.tree) not in f.read_text() for f in files)


def test_a_part_that_fails_stops_no_other_and_is_named_last(gpu):
    status, lines, errors = gpu.run(
        "out", "callers", "large", "shim", FAKE_FAILS="test_large.py"
    )
    assert (status, errors) == (1, "FAILED: large\n")
    assert [x.split()[0] for x in sorted(lines)] == ["FAILED", "ok", "ok"]
    assert "- failed case_1: as the fake says" in gpu.said("summary.md")


def test_a_part_can_be_repeated_alone(gpu):
    gpu.run("out", "callers", "large", "conformance", FAKE_FAILS="test_large.py")
    status, lines, errors = gpu.run("out", "large")
    assert (status, errors) == (0, "every part ended well\n")
    assert any("case_1" in line for line in lines)  # one part: all that it says
    ((_, _, verdict, counts, *_),) = rows(gpu.said("summary.md"), "large")
    assert (verdict, counts) == ("ok", "3 passed, 0 failed, 1 skipped")


def test_nothing_of_an_earlier_run_of_a_part_stays(gpu):
    gpu.run("out", "callers", "bench", "conformance", "memcheck")
    names = "test_upstream.py bench/gpu.py mambarun.conformance compute-sanitizer"
    status, _, errors = gpu.run(
        "out", "callers", "bench", "conformance", "memcheck", FAKE_DIES=names
    )
    assert status == 1
    assert errors == "FAILED: bench, callers, conformance, memcheck\n"
    summary = gpu.said("summary.md")
    assert "passed" not in summary and "Times and errors" not in summary
    assert not list((gpu.folder / "out").rglob("*.json"))


def test_a_part_that_takes_too_long_is_ended(gpu):
    status, _, errors = gpu.run(
        "out", "callers", "large", FAKE_SLEEPS="test_large.py", LIMIT="2"
    )
    assert (status, errors) == (1, "FAILED: large\n")


def test_all_commands_of_a_part_share_its_time(gpu):
    status, _, errors = gpu.run("out", "check", FAKE_TAKES="0.9", LIMIT="2")
    assert (status, errors) == (1, "FAILED: check\n")
    said = (gpu.folder / "out/docs/results/check_gpu.txt").read_text()
    assert said.count("\n# status ") == 5 and "no time is left for " in said


@pytest.mark.parametrize("jobs", [1, 2])
def test_no_more_than_jobs_run_at_a_time_and_what_measures_time_alone(gpu, jobs):
    parts = ["bench", "check", "callers", "large", "shim", "deterministic"]
    assert gpu.run("out", *parts, JOBS=str(jobs), FAKE_TAKES="0.3")[0] == 0
    running, most = set(), 0
    for line in gpu.log.read_text().splitlines():
        what, name = line.split()
        if what == "venv":
            continue
        if what == "begin":
            alone = {name} & {"bench/gpu.py", "mambarun-check"}
            assert not (alone and running), (name, running)
            running.add(name)
            most = max(most, len(running))
        else:
            running.remove(name)
    assert most == jobs


def test_another_row_may_be_proven(gpu):
    status, lines, _ = gpu.run("out", "conformance", VARIANT="cuda12_sm80")
    assert status == 0 and lines[0].startswith("ok conformance (cuda12_sm80, ")
    assert os.listdir(gpu.folder / "out/conformance/results") != []
    assert all(
        file.startswith("cuda12_sm80.")
        for file in os.listdir(gpu.folder / "out/conformance/results")
    )


def test_what_was_carried_anew_is_installed_anew(gpu):
    for wanted, commit in ((1, "abc1234"), (0, "abc1234"), (1, "def5678")):
        (gpu.tree / "out/gpu/commit.txt").write_text(commit + "\n")
        gpu.run("out", "callers")
        assert gpu.log.read_text().count("venv ") == wanted
    assert (gpu.tree / "out/gpu-site/commit.txt").read_text() == "def5678\n"


# ---- results of several runs ------------------------------------------------------


def upstream(gpu: Gpu, *names: str) -> str:
    """A folder with such modules of upstream's, as a path from where gpu.sh is run."""
    folder = gpu.folder / f"upstream-of-{len(names)}"
    folder.mkdir()
    for name in names:
        (folder / f"{name}.so").touch()
    return folder.name


def test_bench_times_what_upstream_is_there(gpu):
    both = upstream(gpu, "scan_cuda", "conv_cuda")
    assert gpu.run("out", "bench", UPSTREAM=both)[0] == 0
    summary = gpu.said("summary.md")
    assert rows(summary, "scan")[0][2:6] == [H100, "0.5", "1.0", "2.0"]
    assert rows(summary, "scan_oflex")[0][3:6] == ["0.5", "", ""]
    assert rows(summary, "conv")[0][3:6] == ["0.5", "1.0", "2.0"]
    assert "PyPI has no archive of VMamba's modules" in summary
    assert "Of 4 times beside upstream's 0 are longer\n" in summary
    assert "Of 2 errors beside upstream's 0 are larger\n" in summary


def test_what_is_slower_or_less_exact_than_upstreams_is_listed(gpu):
    gpu.run("out", "bench", UPSTREAM=upstream(gpu, "scan_cuda"), FAKE_POOR="1")
    said = gpu.said("summary.md")
    assert (
        "Of 2 times beside upstream's 2 are longer\n"
        "- scan, tiny, forward: 0.8\n- scan, tiny, backward: 0.8\n"
    ) in said
    assert (
        "Of 1 errors beside upstream's 1 are larger\n"
        "- scan, bfloat16, out: 1.7e-03, not 1.5e-03\n"
    ) in said


def test_results_of_two_runs_on_two_cards_are_one_summary(gpu):
    scan, conv = upstream(gpu, "scan_cuda"), upstream(gpu, "a", "b")
    (gpu.folder / conv / "conv_cuda.so").touch()
    gpu.run("one", "bench:scan", "callers", UPSTREAM=scan)
    gpu.run("two", "bench:conv", UPSTREAM=conv, FAKE_GPU=H200)
    shutil.copytree(gpu.folder / "one", gpu.folder / "both")
    shutil.copytree(gpu.folder / "two", gpu.folder / "both", dirs_exist_ok=True)
    summary = gpu.summarize("both")
    for part, machine in (
        ("bench-conv", "1"),
        ("bench-scan", "2"),
        ("callers", "2"),
    ):
        assert rows(summary, part)[0][5] == machine
    scans, convs = rows(summary, "scan"), rows(summary, "conv")
    assert scans[0][2:6] == [H100, "0.5", "1.0", "2.0"]
    assert convs[0][2:6] == [H200, "0.5", "1.0", "2.0"]
    # errors: the worst of ours, of upstream's there, of upstream's on an H200
    assert ["bfloat16", "out", "1.7e-03", "1.8e-03", "1.9e-03"] in [
        row[1:] for row in scans
    ]


def test_words_with_spaces_name_a_file_too(gpu):
    status, lines, _ = gpu.run("out", "bench:no such row/1")
    assert status == 0 and lines[-1].startswith("ok bench-no_such_row_1 (cuda12_sm90")
    assert rows(gpu.said("summary.md"), "bench-no_such_row_1")


def test_a_row_that_is_wrong_is_said_and_fails(gpu):
    status, _, errors = gpu.run("out", "bench", FAKE_WRONG="1")
    assert (status, errors) == (1, "FAILED: bench\n")
    assert rows(gpu.said("summary.md"), "conv")[0][3] == "WRONG: beyond rounding"


# ---- refusals ---------------------------------------------------------------------


def test_without_a_part_the_head_is_printed(gpu):
    status, lines, _ = gpu.run("out")
    assert status == 2 and "ci/gpu.sh FOLDER PART..." in lines[3]


@pytest.mark.parametrize(
    "part", ["confromance", "subset", "callers:x", "bench:", "all:"]
)
def test_an_unknown_part_is_refused_before_anything_runs(gpu, part):
    status, lines, _ = gpu.run("out", "callers", part)
    assert status == 2 and lines == [
        f"there is no part {part}: see the head of " + "tree/ci/gpu.sh"
    ]


@pytest.mark.parametrize("jobs", ["0", "-1", "many"])
def test_jobs_is_a_number(gpu, jobs):
    status, lines, _ = gpu.run("out", "callers", JOBS=jobs)
    assert (status, lines) == (2, [f"JOBS is {jobs}: must be 1 or more"])


def test_what_is_missing_is_said_at_once(gpu):
    status, _, errors = gpu.run("out", "bench", UPSTREAM="nowhere")
    assert status == 2 and "nowhere" in errors
    status, lines, _ = gpu.run("out", "callers", FAKE_NO_GPU="1")
    assert status == 1
    status, lines, errors = gpu.run("out", "callers", FAKE_NO_VARIANT="1")
    assert (status, lines, errors) == (1, [], "NoVariantError: as the fake says\n")
    shutil.rmtree(gpu.tree / "out/gpu/wheels")
    status, lines, _ = gpu.run("out", "callers")
    assert status == 1 and lines[0].startswith("no wheel in ")
