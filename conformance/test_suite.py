# SPDX-License-Identifier: Apache-2.0
"""The command itself: modules that are wrong on purpose are caught, by name, and the
cases after them are judged all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from . import session
from .cases import Maker
from .examine import all_cases
from .modules import Known, known
from .providers import Call, open_reference, rooms

ROOT = Path(__file__).resolve().parent.parent
CONFORMS, DOES_NOT, USAGE, BROKEN = range(4)

#: mambarun's scan, with one fault in what it answers for one shape or for all
FAKE = """
import ctypes, os, time
import torch
from mambarun.ops import selective_scan as sound

def broken(results, u, out):
    {fault}
    return results

def fwd(*args):
    results = sound.fwd(*args)
    return broken(results, args[0], results[0])

bwd = sound.bwd
"""

CRASH = "ctypes.string_at(0) if u.shape[2] == 2 else None"
HANG = "time.sleep(60) if u.shape[2] == 2 else None"
EXIT = "os._exit(7) if u.shape[2] == 2 else None"

#: what is done wrong -> what the report says of it
FAULTS = {
    CRASH: "died of SIGSEGV",
    HANG: "no answer within 15 s",
    EXIT: "exited with status 7",
    "print('hello')": "wrote to stdout or stderr: hello",
    "os.write(2, b'oops')": "wrote to stdout or stderr: oops",
    "results[0] = out[:, :-1]": "not torch.float32 of shape",
    "results[0] = out.double()": "out is torch.float64",
    "results[0] = out.mT.contiguous().mT": "out has strides",
    "results.append(None)": "not a list of",
    "results = tuple(results)[:1]": "returned a tuple of 1, not a list of 2",
    "results[0] = None": "out is None, not a tensor",
    "out.view(-1)[-1] *= 1 + 1e-5": "1 of ",
    "out.view(-1)[0] = float('nan')": "nan, reference",
    "u.view(-1)[0] = 0": "u was written to",
    "ctypes.memmove(u.data_ptr() - 4, b'over', 4)": "u was written to",
    "out.add_(torch.rand(()) * 1e-3)": "gives other bits",
    "raise ValueError('no')": "refused: ValueError: no",
}


def fake(folder: Path, fault: str) -> str:
    """The provider whose fwd does that."""
    path = folder / "selective_scan_cuda.py"
    path.write_text(FAKE.format(fault=fault))
    return f"file:{path}"


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "conformance", "--limit", "15", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=900,
    )


def judged(*arguments: str) -> tuple[int, list[dict[str, dict[str, Any]]]]:
    """Exit status, and for each provider the answers by case."""
    said = command("--json", "--jobs", "1", *arguments)
    assert said.stdout, said.stderr
    reports = json.loads(said.stdout)
    return said.returncode, [
        {case["case"]: case for case in report["cases"]} for report in reports
    ]


WITHOUT_Z = "selective_scan/fp32-L2-fwd"
WITH_Z = "selective_scan/fp32-L3-fwd"
BACKWARD = "selective_scan/fp32-L2-bwd"


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """By fault, what is said of each case: one run, for a run begins with torch."""
    arguments = []
    for fault in FAULTS:
        provider = fake(tmp_path_factory.mktemp("fault"), fault)
        arguments += ["--provider", provider]
    for name in (WITHOUT_Z, WITH_Z, BACKWARD):
        arguments += ["--only", name]
    status, found = judged(*arguments)
    assert status == DOES_NOT
    return dict(zip(FAULTS, found))


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_named(fault: str, answers: dict[str, Any]) -> None:
    found = answers[fault]
    assert found[WITHOUT_Z]["outcome"] == "failed"
    assert FAULTS[fault] in found[WITHOUT_Z]["text"]
    assert f"--only {WITHOUT_Z}" in found[WITHOUT_Z]["repeat"]
    assert "one more than a vector" in found[WITHOUT_Z]["why"]
    assert found[BACKWARD]["outcome"] == "passed", "judged all the same"
    ended = fault in (CRASH, HANG, EXIT)
    assert (found[WITH_Z]["outcome"] == "passed") == ended


def test_what_is_known_of_others_is_no_failure(tmp_path: Path) -> None:
    """Errors such as --use_fast_math makes: within upstream's own tolerance; and one
    beyond it. mambarun itself is forgiven neither."""
    others = FAKE.replace("bwd = sound.bwd", "bwd = lambda *args: sound.bwd(*args)")
    for factor, outcome in ((1 + 1e-5, "known"), (1 + 1e-1, "failed")):
        path = tmp_path / "selective_scan_cuda.py"
        path.write_text(others.format(fault=f"out.mul_({factor})"))
        _, (found,) = judged("--provider", f"file:{path}", "--only", WITHOUT_Z)
        assert found[WITHOUT_Z]["outcome"] == outcome
    assert "out at" in found[WITHOUT_Z]["text"]


def test_what_is_known_can_be_asked_of_every_case() -> None:
    """A row that raises would be a failure of whoever is judged."""
    reference, asked = open_reference(), 0
    for _, case in all_cases(0).values():
        if case.quick or case.family in ("empty", "refusals"):
            call = case.make(Maker(reference, case.id, 0))
            if isinstance(call, Call):
                asked += sum(applies(row, call) for row in known())
    assert asked > 1000


def applies(row: Known, call: Call) -> bool:
    """Of the same op, as far as the names of modules tell."""
    room = call.entry.rpartition("_")[0]
    return row.modules[0].startswith(room) and row.when(call)


def test_wrong_exception_and_wrong_words(tmp_path: Path) -> None:
    refusal = "selective_scan/refused-A-float64-module-fwd"
    for raised, text in (
        ("KeyError('dim')", "refused by Exception, not RuntimeError"),
        ("RuntimeError('no')", "refused with 'no', not"),
    ):
        path = tmp_path / "selective_scan_cuda.py"
        path.write_text(f"def fwd(*args): raise {raised}\nbwd = fwd\n")
        _, (found,) = judged("--provider", f"file:{path}", "--only", refusal)
        assert found[refusal]["outcome"] == "failed" and text in found[refusal]["text"]


def test_what_is_sound_conforms(tmp_path: Path) -> None:
    status, (found,) = judged(
        "--provider", fake(tmp_path, "pass"), "--only", "selective_scan/fp32-L1?-*"
    )
    assert status == CONFORMS
    assert {case["outcome"] for case in found.values()} == {"passed"}


def test_a_module_that_does_not_load_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "selective_scan_cuda.py"
    path.write_text("import a_library_of_another_torch\n")
    said = command("--provider", f"file:{path}", "--only", WITHOUT_Z)
    assert said.returncode == BROKEN
    assert "a_library_of_another_torch" in said.stdout + said.stderr
    path.write_text("1 / 0\n")
    said = command("--provider", f"file:{path}", "--only", WITHOUT_Z)
    assert said.returncode == BROKEN and "ZeroDivisionError" in said.stderr
    assert "Traceback" not in said.stderr


def test_a_provider_that_does_not_load_is_in_every_report(tmp_path: Path) -> None:
    broken, folder = tmp_path / "selective_scan_cuda.py", tmp_path / "report"
    broken.write_text("1 / 0\n")
    arguments = ("--provider", f"file:{broken}", "--provider", "mambarun:cpu_scalar")
    arguments += ("--only", WITHOUT_Z, "--json", "--report", str(folder))
    said = command(*arguments)
    assert said.returncode == BROKEN
    first, second = json.loads(said.stdout)
    assert "ZeroDivisionError" in first["broken"] and not first["conforms"]
    assert not second["broken"] and second["conforms"]
    assert command(*arguments, "--require").returncode == DOES_NOT
    texts = [file.read_text() for file in folder.glob("*.md")]
    assert sum("is broken: " in text for text in texts) == 2, "its own, and that of all"
    assert "is broken</span>: " in (folder / "report.html").read_text()


def test_a_provider_without_a_case_is_no_pass(tmp_path: Path) -> None:
    """Nor does it spoil what others do."""
    arguments = ("--only", "causal_conv1d/W2-L1-fwd", "--provider")
    said = command(*arguments, fake(tmp_path, "pass"))
    assert said.returncode == BROKEN and "not about it" in said.stdout
    also = ("--provider", "mambarun:cpu_scalar")
    assert command(*arguments, fake(tmp_path, "pass"), *also).returncode == CONFORMS


def test_it_is_said_whose_a_module_is_and_why(tmp_path: Path) -> None:
    arguments = ("--only", WITHOUT_Z, "--json", "--provider")
    said = command(*arguments, "module:selective_scan_cuda", MAMBARUN_PREFER="ours")
    (report,) = json.loads(said.stdout)
    assert "(from mambarun: MAMBARUN_PREFER or" in report["facts"]["module"]
    others = FAKE.replace("bwd = sound.bwd", "bwd = lambda *args: sound.bwd(*args)")
    path = tmp_path / "selective_scan_cuda.py"
    path.write_text(others.format(fault="pass"))
    (report,) = json.loads(command(*arguments, f"file:{path}").stdout)
    assert "(from another project)" in report["facts"]["module"]


def test_a_provider_that_can_do_no_case_is_not_judged() -> None:
    said = command(
        *("--provider", "module:selective_scan_cuda_oflex"),
        *("--only", "selective_scan/complex-constantB-constantC-G1-fp16-bwd"),
    )
    assert said.returncode == BROKEN and "is not judged: " in said.stdout


def test_a_module_that_crashes_at_once_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "selective_scan_cuda.py"
    path.write_text("import os\nos.abort()\n")
    said = command("--provider", f"file:{path}", "--only", WITHOUT_Z)
    assert said.returncode == BROKEN and "SIGABRT" in said.stderr


def test_a_missing_gpu_is_no_pass() -> None:
    arguments = ("--provider", "mambarun:cuda12_sm90", "--only", WITHOUT_Z)
    hidden = {"CUDA_VISIBLE_DEVICES": ""}
    said = command(*arguments, **hidden)
    assert said.returncode == BROKEN and "NotSupported: " in said.stdout
    assert command(*arguments, "--require", **hidden).returncode == DOES_NOT


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--provider", "mambarun:cpu_avx3"), "cpu_avx3 is none of cpu_"),
        (("--provider", "nobody"), "mambarun:VARIANT"),
        (("--provider", "module:my_scan"), "module:my_scan=selective_scan_cuda"),
        (("--only", "nothing/like-this"), "no case is called nothing/like-this"),
        (("--device", "tpu"), "cpu, cuda or cuda:N"),
        (("--provider", "file:/no/scan.so"), "there is no file /no/scan.so"),
        (("--report", "/dev/null"), "--report /dev/null: "),
        (("--jobs", "0"), "a whole number, 1 or more"),
    ],
)
def test_usage(arguments: tuple[str, ...], words: str) -> None:
    said = command(*arguments)
    assert said.returncode == USAGE and words in said.stderr


def test_report_holds_everything_and_needs_no_network(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="NotSupported: pages need matplotlib")
    folder = tmp_path / "report"
    said = command(
        *("--provider", "mambarun:cpu_scalar", "--only", "selective_scan/fp32-L1*"),
        *("--provider", fake(tmp_path, CRASH.replace("2 else", "17 else"))),
        *("--report", str(folder)),
    )
    assert said.returncode == DOES_NOT
    page = (folder / "report.html").read_text()
    assert page.count("<svg") == 4 and len(list(folder.glob("*.png"))) == 4
    for word in ("<link", "<script", 'src="', "@import", "url(http"):
        assert word not in page
    for words in (
        "mambarun:cpu_scalar",
        "does not conform",
        "selective_scan/fp32-L17-fwd",
        "died of SIGSEGV",
        "python -m conformance --provider",
        "selective_scan/lengths",
    ):
        assert words in page, words
    data = json.loads((folder / "mambarun-cpu_scalar.json").read_text())
    assert data["outcomes"] == {"passed": len(data["cases"])}


def page(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "conformance.page", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_one_page_from_files_of_several_runs(tmp_path: Path) -> None:
    """Also from what --json has printed, and from files that say less than today's."""
    files = []
    for provider in ("mambarun:cpu_scalar", fake(tmp_path, "pass")):
        said = command("--provider", provider, "--only", WITHOUT_Z, "--json")
        assert said.returncode == CONFORMS
        (report,) = json.loads(said.stdout)
        files.append(tmp_path / f"{len(files)}.json")
        files[-1].write_text(json.dumps(report if len(files) == 1 else [report]))
        del report["conforms"], report["broken"]
    (tmp_path / "old.json").write_text(json.dumps(report))
    said = page(tmp_path / "made/here", *files, tmp_path / "old.json")
    assert said.returncode == 0, said.stderr
    drawn = (tmp_path / "made/here/report.html").read_text()
    assert drawn.count("conforms</span>") == 3
    assert drawn.index("mambarun:cpu_scalar") < drawn.index("file:")
    told = (tmp_path / "made/here/report.md").read_text().splitlines()
    (out,) = (
        line for line in told if line.startswith("| selective_scan_fwd out float")
    )
    cells = out.strip("| ").split(" | ")[1:]
    assert len(cells) == 9 and cells[3:6] == cells[6:], "the second's, and as old"


def test_page_says_what_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"facts": {}}')
    (tmp_path / "torn.json").write_text('[{"facts"')
    for files, words in (
        (["other.json"], "other.json is no report of this suite: no unavailable"),
        (["torn.json"], "torn.json is no JSON: "),
        (["none.json"], "none.json: No such file"),
    ):
        said = page(tmp_path / "made", *(tmp_path / name for name in files))
        assert said.returncode == USAGE and words in said.stderr
        assert "Traceback" not in said.stderr
    assert "holds no JSON file" in page(tmp_path / "made").stderr
    assert "into DIR, from these" in page().stderr


def test_a_page_without_matplotlib_says_so(tmp_path: Path) -> None:
    said = command(
        *("--provider", "mambarun:cpu_scalar", "--only", WITHOUT_Z),
        *("--report", str(tmp_path / "report")),
    )
    assert said.returncode == CONFORMS
    (tmp_path / "matplotlib.py").write_text("raise ImportError('none here')\n")
    said = page(
        tmp_path / "made",
        tmp_path / "report/mambarun-cpu_scalar.json",
        PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]),
    )
    assert said.returncode == 0 and "mambarun[conformance]" in said.stderr
    assert said.stderr.count("\n") == 1
    drawn = (tmp_path / "made/report.html").read_text()
    assert "none here" in drawn and "<svg" not in drawn
    assert "conforms</span>" in drawn and "selective_scan_fwd out float32" in drawn


def test_what_must_pass_are_all_cases_but_the_random_and_those_of_a_gpu() -> None:
    wanted = {
        name
        for name, (_, case) in all_cases(0).items()
        if case.family != "random" and case.how not in ("stream", "graph", "device1")
    }
    missing, gone = wanted - session.mustpass(), session.mustpass() - wanted
    assert not missing and not gone, "conformance/mustpass.txt"
    for room in rooms():
        assert any(name.startswith(room + "/") for name in session.mustpass())


def test_other_seeds_make_other_random_cases() -> None:
    first, second = ({n for n in all_cases(s) if "/random-" in n} for s in (0, 10_000))
    assert len(first) == len(second) and not first & second
