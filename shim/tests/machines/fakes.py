# SPDX-License-Identifier: Apache-2.0
"""fakes.py - parts with a driver that really is loaded: the fake one of libmambarun's
own tests, compiled here, asked by the check's real child process.
"""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from functools import lru_cache

import mambarun
from mambarun import _lib
from mambarun.check import child

from .parts import ROOT

SOURCES = ROOT / "libmambarun"


def compiler():
    """The path of a C compiler, or None."""
    return shutil.which("cc")


@lru_cache(maxsize=None)
def folder(source, library, below="", absent=()):
    """A folder with that library, compiled without these functions. below: the name of
    the folder in a fresh one."""
    fresh = tempfile.mkdtemp(prefix="mambarun-fakes-")
    atexit.register(shutil.rmtree, fresh, ignore_errors=True)
    out = os.path.join(fresh, below)
    os.makedirs(out, exist_ok=True)
    flags = ["-std=gnu11", "-shared", "-fPIC", "-w", f"-I{SOURCES}"]
    flags += [f"-D{symbol}=absent_{symbol}" for symbol in absent]
    command = [compiler(), *flags, "-o", os.path.join(out, library)]
    subprocess.run([*command, str(SOURCES / "fakes" / source)], check=True)
    return out


def text_folder():
    """A folder whose libcuda.so.1 is no library."""
    out = folder("nvml.c", "libnvidia-ml.so.1", "text")
    with open(os.path.join(out, "libcuda.so.1"), "w") as file:
        file.write("not a library\n")
    return out


def fake_driver(absent=(), below="", cuda=True, text=False, limit=10.0, **environment):
    """The child runs this Python and this mambarun; environment: FAKE_* of
    fakes/driver.c and fakes/nvml.c. cuda: whether there is a libcuda.so.1; text:
    whether it is no library."""

    def part(b):
        folders = [folder("nvml.c", "libnvidia-ml.so.1")]
        if text:
            folders = [text_folder()]
        elif cuda:
            folders.append(folder("driver.c", "libcuda.so.1", below, tuple(absent)))
            b.file(folders[-1] + "/libcuda.so")  # as the driver itself has it
        b.environ.update(
            {"FAKE_API": "12020", **environment},
            LD_LIBRARY_PATH=":".join(folders),
            MAMBARUN_PATH=os.path.dirname(_lib.find()),
        )
        b.fields.update(
            probe=child.probe,
            limit=limit,
            executable=sys.executable,
            own=tuple(mambarun.__path__),
        )

    return part
