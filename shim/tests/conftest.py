# SPDX-License-Identifier: Apache-2.0
"""conftest.py - lets the tests find mambarun: installed, or else in this tree with the
library that was built last. Holds the fixtures that several files use.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def use_tree():
    """As an installation would: the package, its stand-ins and a library."""
    folders = [str(ROOT / "shim"), str(ROOT / "shim" / "standins")]
    sys.path[:0] = folders
    kept = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    os.environ["PYTHONPATH"] = os.pathsep.join(folders + kept)
    built = sorted(ROOT.glob("build/*/lib/libmambarun.so"), key=os.path.getmtime)
    if built:
        os.environ.setdefault("MAMBARUN_PATH", str(built[-1].parent))


if importlib.util.find_spec("mambarun") is None:
    use_tree()


def library_folder():
    from mambarun import _lib

    return Path(_lib.find()).parent


try:
    from torch import __version__ as torch_version
except ImportError:  # what needs none runs all the same
    torch_version = None
NEED_TORCH = (
    "arguments compile conv fake_gpu foreign outputs params processes refusals scan"
)
collect_ignore = [
    f"test_{name}.py" for name in NEED_TORCH.split() if torch_version is None
]


def pytest_addoption(parser):
    parser.addoption(
        "--other-torch",
        metavar="FOLDER",
        help="another torch for test_foreign.py; else one of this tree's .venvs",
    )


def pytest_report_header():
    import mambarun

    facts = mambarun.info()
    return [
        f"mambarun {facts['version']} {mambarun.__file__} {facts['library']}",
        f"torch {torch_version}, cpu {facts['cpu']['name']}",
        *(f"skipped, as there is no torch: {file}" for file in collect_ignore),
    ]


@pytest.fixture
def run():
    """run(code, *flags, python=..., **environment): a fresh interpreter's output; the
    environment is this one without MAMBARUN_*, and with what is given; None removes."""

    def run_(code, *flags, python=sys.executable, check=True, cwd=None, **environment):
        env = {k: v for k, v in os.environ.items() if not k.startswith("MAMBARUN_")}
        if "MAMBARUN_PATH" in os.environ:
            env["MAMBARUN_PATH"] = os.environ["MAMBARUN_PATH"]
        env.update(environment)
        env = {k: str(v) for k, v in env.items() if v is not None}
        done = subprocess.run(
            [str(python), *flags, "-c", code],
            env=env,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if check:
            assert done.returncode == 0, done.stderr
        return done

    return run_


class Site:
    """A virtual environment without torch, with mambarun laid out as pip does it."""

    def __init__(self, folder, with_mambarun):
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True
        )
        self.python = folder / "bin" / "python"
        version = "python{}.{}".format(*sys.version_info)
        self.packages = folder / "lib" / version / "site-packages"
        if with_mambarun:
            self._install()
        subprocess.run([str(self.python), "-m", "compileall", "-q", str(folder)])

    def _install(self):
        import mambarun
        from mambarun import _hook

        package = Path(mambarun.__file__).parent
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(str(package), str(self.packages / "mambarun"), ignore=ignored)
        for name in mambarun.PROMISED:
            standin = Path(_hook._standin(name).origin).parent
            shutil.copytree(str(standin), str(self.packages / name), ignore=ignored)
        (self.packages / "mambarun" / "_lib").mkdir(exist_ok=True)
        for library in library_folder().glob("libmambarun*.so"):
            shutil.copy(str(library), str(self.packages / "mambarun" / "_lib"))
        for file in (ROOT / "shim" / "startup").iterdir():
            shutil.copy(str(file), str(self.packages))


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """Installed as a user has it: tests may add files only outside of it."""
    return Site(tmp_path_factory.mktemp("site") / "venv", with_mambarun=True)


@pytest.fixture(scope="session")
def bare_site(tmp_path_factory):
    """The same without mambarun."""
    return Site(tmp_path_factory.mktemp("bare") / "venv", with_mambarun=False)
