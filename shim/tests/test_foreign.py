# SPDX-License-Identifier: Apache-2.0
"""test_foreign.py - a real C++ extension of torch, compiled against the torch that runs
this and met by another one: the check says of its file what the loader says of it.
"""

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
import torch
from mambarun.check import diagnose
from mambarun.check.machine import Machine

NAME = "selective_scan_cuda"
ROOT = Path(__file__).resolve().parents[2]
HERE = Path(torch.__file__).parent
# Calls as such extensions have them: an operator, a check with a text, a warning.
SOURCE = f"""
#include <Python.h>
#include <ATen/ATen.h>

extern "C" PyObject *PyInit_{NAME}(void) {{
    at::Tensor x = at::zeros_like(at::empty({{2}}));
    TORCH_CHECK(x.dim() == 1, "x has ", x.dim(), " dimensions");
    TORCH_WARN("built for ", std::string("one torch"));
    return nullptr;
}}
"""
# The C++ that torch's headers are written in, from which torch on.
STANDARDS = (((2, 10), 20), ((2, 1), 17), ((1, 5), 14))
LOAD = "import sys, torch, ctypes; ctypes.CDLL(sys.argv[1])"


@pytest.fixture(scope="module")
def extension(tmp_path_factory):
    """The file, named as this Python wants it."""
    compiler = shutil.which("g++")
    python = sysconfig.get_paths()["include"]
    if compiler is None or not os.path.isfile(f"{python}/Python.h"):
        pytest.skip("NotSupported: there is no g++ here, or no Python.h")
    folder = tmp_path_factory.mktemp("extension")
    source = folder / "extension.cpp"
    source.write_text(SOURCE)
    out = folder / (NAME + EXTENSION_SUFFIXES[0])
    number = tuple(int(n) for n in torch.__version__.split(".")[:2])
    standard = next(year for since, year in STANDARDS if number >= since)
    abi = int(torch._C._GLIBCXX_USE_CXX11_ABI)
    flags = [f"-std=c++{standard}", "-O0", "-w", "-shared", "-fPIC"]
    flags += [f"-D_GLIBCXX_USE_CXX11_ABI={abi}", f"-I{HERE}/include", f"-I{python}"]
    libraries = [f"-L{HERE}/lib", "-lc10", "-ltorch_cpu", "-ltorch"]
    command = [compiler, *flags, str(source), "-o", str(out), *libraries]
    subprocess.run(command, check=True)
    return out


@pytest.fixture(scope="module")
def other(pytestconfig):
    """The folder of another torch: of the furthest from this one, since neighbours may
    well have each other's symbols."""
    asked = pytestconfig.getoption("other_torch")
    patterns = (".venv/lib/*/site-packages/torch", ".venvs/*/lib/*/site-packages/torch")
    found = [Path(asked)] if asked else [f for p in patterns for f in ROOT.glob(p)]
    others = [f for f in found if version(f) not in (None, torch.__version__)]
    if not others:
        pytest.skip("NotSupported: no torch but this one in .venv and .venvs")
    here = release(torch.__version__)
    return max(others, key=lambda f: abs(release(version(f)) - here))


def release(version):
    """Of 2.13.0+cpu: 2.13, as a number that grows with it."""
    major, minor = version.split(".")[:2]
    return 1000 * int(major) + int(minor)


def version(folder):
    """What its version.py says, without importing it."""
    names = {}
    try:
        exec((folder / "version.py").read_text(), names)
    except OSError:
        return None
    return str(names["__version__"])


def findings(extension, torch_folder):
    """Of the extension, on a machine where an import finds it and that torch."""
    machine = Machine(
        sys_path=[str(extension.parent), str(torch_folder.parent)],
        environ={"PATH": os.environ["PATH"]},
        executable=sys.executable,
        suffixes=tuple(EXTENSION_SUFFIXES),
        libc=platform.libc_ver(),
        arch=platform.machine(),
        hook=None,
    )
    report = diagnose(machine, run=False)
    assert not report.failures
    return [f for f in report.findings if f.code == "MR302" and f.status != "ok"]


def loads(extension, python):
    """The loader's own words, "" if it loads."""
    command = [str(python), "-c", LOAD, str(extension)]
    done = subprocess.run(command, capture_output=True)
    return done.stderr.decode().strip().splitlines()[-1] if done.returncode else ""


def test_its_own_torch_has_all_it_needs(extension):
    assert loads(extension, sys.executable) == ""
    assert findings(extension, HERE) == []


def test_another_torch_has_not(extension, other):
    python = other.parents[3] / "bin" / "python"
    assert "undefined symbol" in loads(extension, python)
    (finding,) = findings(extension, other)
    assert finding.status == "error"
    assert extension.name in finding.what("en") and extension.name in finding.what("zh")
    assert str(extension) in finding.evidence


def test_the_reason_is_the_abi_where_that_differs(extension, other):
    (finding,) = findings(extension, other)
    mine = str(torch._C._GLIBCXX_USE_CXX11_ABI).upper()
    python = other.parents[3] / "bin" / "python"
    ask = "import torch; print(str(torch._C._GLIBCXX_USE_CXX11_ABI).upper())"
    theirs = subprocess.run(
        [str(python), "-c", ask], stdout=subprocess.PIPE, check=True
    )
    theirs = theirs.stdout.decode().strip()
    if mine == theirs:
        pytest.skip("NotSupported: both torches have the same C++ ABI")
    assert f"cxx11abi={mine}" in finding.what("en")
    assert theirs in finding.what("en")
