# SPDX-License-Identifier: Apache-2.0
"""fake_tool.py - under the name of each program that gpu.sh calls, does what that needs
of it. The environment says what goes wrong: FAKE_FAILS, FAKE_DIES and
FAKE_SLEEPS hold the names of what is run, such as test_large.py; FAKE_TAKES is how many
seconds each takes, of which the begin and the end are appended to FAKE_LOG."""

import json
import os
import pathlib
import runpy
import shutil
import sys
import time

program, words = pathlib.Path(sys.argv[0]), sys.argv[1:]
asked = " ".join(words)


def told(variable, name):
    return name in os.environ.get(variable, "").split()


def value(option):
    """What follows it, or behind its equals sign."""
    for i, word in enumerate(words):
        if word == option:
            return words[i + 1]
        if word.startswith(option + "="):
            return word[len(option) + 1 :]
    return ""


def note(what, name):
    with open(os.environ["FAKE_LOG"], "a") as log:
        log.write(f"{what} {name}\n")


def play(name, write, status=1):
    """A run of that name, which writes something; never comes back."""
    note("begin", name)
    takes = float(os.environ.get("FAKE_TAKES", 0))
    time.sleep(60 if told("FAKE_SLEEPS", name) else takes)
    note("end", name)
    if told("FAKE_DIES", name):
        sys.exit(139)
    write()
    sys.exit(status if told("FAKE_FAILS", name) else 0)


def write_tests(name):
    says = 'message="as the fake says"'
    bad = f"<failure {says}/>" if told("FAKE_FAILS", name) else ""
    inside = [bad, "", "", f"<skipped {says}/>"]
    cases = [
        f'<testcase name="case_{i}">{x}</testcase>' for i, x in enumerate(inside, 1)
    ]
    pathlib.Path(value("--junitxml")).write_text(f"<x>{''.join(cases)}</x>")
    print("case_1 in", os.getcwd())


def write_conformance():
    folder = pathlib.Path(value("--report"))
    folder.mkdir(parents=True)
    name = value("--provider").replace(":", "-")
    (folder / f"{name}.json").write_text('{"outcomes": {"passed": 7}}')
    (folder / f"{name}.md").write_text(os.getcwd())
    print(f"{value('--provider')} conforms: 7 passed")


def write_bench():
    folder = value("--upstream")
    rows, wrong = [], {"wrong": "beyond rounding"} if "FAKE_WRONG" in os.environ else {}
    for op in ("scan", "scan_oflex", "conv"):
        if value("--only") not in op:
            continue
        row = {"op": op, "row": "tiny", "dtype": "bfloat16", "errors": {"out": 1.7e-3}}
        times = {"ms": 0.5, "upstream_h200_ms": 0.9}
        row["upstream_h200_errors"] = {"out": 1.9e-3}
        if folder and pathlib.Path(folder, f"{op}_cuda.so").exists():
            poor = "FAKE_POOR" in os.environ
            row["upstream_errors"] = {"out": 1.5e-3 if poor else 1.8e-3}
            times["upstream_ms"] = 0.4 if poor else 1.0
            times["upstream_over_ours"] = times["upstream_ms"] / times["ms"]
        rows.append({**row, **(wrong or {"forward": times, "backward": times})})
    about = {"gpu": os.environ["FAKE_GPU"], "driver": "580", "rows": rows}
    pathlib.Path(value("--json")).write_text(json.dumps(about))
    sys.exit(1 if wrong else 0)


def make_venv(folder):
    (folder / "bin").mkdir(parents=True)
    for library in ("_lib/libmambarun.so", "conformance/libmambarun_reference.so"):
        (folder / library).parent.mkdir()
        (folder / library).touch()
    for name in ("python", "mambarun-check"):
        shutil.copy(program, folder / "bin" / name)
    note("venv", folder.name)


if program.name == "nvidia-smi":
    print("\n".join([os.environ["FAKE_GPU"]] * int(os.environ.get("FAKE_GPUS", 1))))
elif program.name == "compute-sanitizer":

    def write():
        pathlib.Path(value("--log-file")).write_text("ERROR SUMMARY: 0 errors\n")
        write_tests(program.name)

    play(program.name, write)
elif program.name == "cc":
    path = pathlib.Path(value("-o"))
    path.write_text("#!/bin/sh\nfor i in 1 2; do echo 0 of 12 differ from it; done\n")
    path.chmod(0o755)
elif program.name == "mambarun-check":
    report = value("--report")
    play(program.name, lambda: report and pathlib.Path(report).write_text("fine\n"))
elif "-m venv" in asked:
    make_venv(pathlib.Path(words[-1]))
elif words[:1] == ["-"]:
    sys.stdin.read()
elif "mambarun._lib" in asked:
    print(program.parent.parent / "_lib")
elif "is_available" in asked:
    sys.exit("NotSupported: torch finds no GPU" if "FAKE_NO_GPU" in os.environ else 0)
elif "print(mambarun.preload(0))" in asked:
    if "FAKE_NO_VARIANT" in os.environ:
        sys.exit("NoVariantError: as the fake says")
    print("cuda12_sm90")
elif "torch.__version__" in asked:
    print("python: 3.12.3, torch 2.11.0")
elif "-m pytest" in asked:
    test = next(word for word in words if word.endswith(".py")).rpartition("/")[2]
    play(test, lambda: write_tests(test))
elif "mambarun.conformance" in asked:
    play("mambarun.conformance", write_conformance)
elif "bench/gpu.py" in asked:
    play("bench/gpu.py", write_bench)
elif "ci/summary.py" in asked:
    sys.argv = words
    sys.path[0] = str(pathlib.Path(words[0]).parent)
    runpy.run_path(words[0], run_name="__main__")
