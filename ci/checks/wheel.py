# SPDX-License-Identifier: Apache-2.0
"""wheel.py FILE [--cuda] - the wheel holds what it should, and works in a clean
environment.

One wheel for every Python, with the library, the CPU variants of the manifest that fit
this processor family, with --cuda every CUDA variant, and nothing of the tests; it is
small enough to be carried to a machine without a network (64 MiB). Then it is installed
with nothing beside it, no torch either, and asked who supplies each module; its own
mambarun-check must find its files and its import hook in order.
"""

from __future__ import annotations

import json
import pathlib
import platform
import re
import subprocess
import sys
import tempfile
import venv
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]

ASK = """
import sys, mambarun
info = mambarun.info()
for module in info["modules"]:
    __import__(module["name"])
    assert module["supplier"] == "mambarun", module
assert "torch" not in sys.modules
mambarun.preload("cpu")
print(info["version"], mambarun.info()["cpu_variant"])
"""


MOST_BYTES = 64 << 20


def wanted(cuda: bool) -> set[str]:
    """Files that must be in the wheel, beside the package's own modules."""
    manifest = (ROOT / "libmambarun/manifest.def").read_text()
    rows = re.findall(r"^MBR_CPU_VARIANT\((\w+),\s*(\w+)\)", manifest, re.M)
    baseline_only = platform.machine() not in ("x86_64", "AMD64")
    files = {"mambarun.pth", "mambarun.start", "mambarun/py.typed"}
    files.add("mambarun/_lib/libmambarun.so")
    for name, isa in rows:
        if isa == "SCALAR" or not baseline_only:
            files.add(f"mambarun/_lib/libmambarun_{name}.so")
    for name in (
        re.findall(r"^MBR_CUDA_VARIANT\((\w+),", manifest, re.M) if cuda else ()
    ):
        files.add(f"mambarun/_lib/libmambarun_{name}.so")
    for standin in (ROOT / "shim/standins").iterdir():
        files |= {f"{standin.name}/__init__.py", f"{standin.name}/__init__.pyi"}
    for module in (ROOT / "shim/mambarun").rglob("*.py"):
        files.add(str(module.relative_to(ROOT / "shim")))
    return files | conformance()


def conformance() -> set[str]:
    """The command that judges, with the reference; nothing of what tests that."""
    folder = ROOT / "conformance"
    files = {"libmambarun_reference.so", "ops.def", "page.css", "mustpass.txt"}
    for module in folder.rglob("*.py"):
        inside = module.relative_to(folder)
        if not re.match(r"test_|conftest|mutate|faults|plain", module.name):
            if inside.parts[0] not in ("fakes", "results"):
                files.add(str(inside))
    return {f"mambarun/conformance/{file}" for file in files}


def contents(wheel: pathlib.Path, expected: set[str]) -> list[str]:
    names = set(zipfile.ZipFile(wheel).namelist())
    found = {name for name in names if ".dist-info/" not in name}
    wrong = [f"{wheel.name}: lacks {name}" for name in sorted(expected - found)]
    wrong += [f"{wheel.name}: has {name}" for name in sorted(found - expected)]
    if not re.fullmatch(r"mambarun-[\d.]+-py3-none-\w+\.whl", wheel.name):
        wrong.append(f"{wheel.name}: is not for every Python 3 on one platform")
    if wheel.stat().st_size >= MOST_BYTES:
        wrong.append(f"{wheel.name}: {wheel.stat().st_size} bytes, too large to carry")
    return wrong


def clean_install(wheel: pathlib.Path) -> str:
    """What a new environment with nothing but this wheel answers."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(pathlib.Path(folder, "bin/python"))
        quiet = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*quiet, "--no-index", str(wheel)], check=True)
        answer = subprocess.run(
            [python, "-c", ASK], cwd=folder, check=True, capture_output=True, text=True
        )
        check = [str(pathlib.Path(folder, "bin/mambarun-check")), "--json", "--strict"]
        done = subprocess.run(
            [*check, "--only", "MR001,MR021,MR301"],
            cwd=folder, check=True, capture_output=True, text=True,
        )  # fmt: skip
    states = [(c["id"], c["status"]) for c in json.loads(done.stdout)["checks"]]
    assert ("MR001", "ok") in states and ("MR021", "ok") in states, states
    return answer.stdout.strip()


def main(file: str, option: str = "") -> int:
    wheel = pathlib.Path(file).resolve()
    wrong = contents(wheel, wanted(option == "--cuda"))
    for line in wrong:
        print(line)
    if wrong:
        return 1
    for member in zipfile.ZipFile(wheel).infolist():
        if member.filename.endswith(".so"):
            name = pathlib.PurePath(member.filename).name
            print(
                f"{name:36}{member.file_size:12} bytes,{member.compress_size:12} packed"
            )
    size = wheel.stat().st_size >> 10
    print(f"OK: {wheel.name}, {size} KiB; installed alone: {clean_install(wheel)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
