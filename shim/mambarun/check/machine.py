# SPDX-License-Identifier: Apache-2.0
"""machine.py - everything the checks may look at, through one object, so that a test
can hand them another machine. Reads only; judges nothing.

Paths given to a Machine and got from it are those that a program on that machine sees.
`root` is where its "/" lies: a test builds a file tree and names its folder.
"""

from __future__ import annotations

import os
import platform
import site
import struct
import sys
import sysconfig
from dataclasses import dataclass, field
from importlib.machinery import EXTENSION_SUFFIXES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterator

MOST_LINKS = 40  # as Linux: a path with more is a loop
MOST_TEXT = 8 << 20  # of a text file, in bytes: a RECORD has a line for each file


@dataclass
class Machine:
    """One machine, one user, one Python. Defaults are a plain Linux server without
    anything; Machine.here() is the one this runs on."""

    root: str = "/"
    environ: dict[str, str] = field(default_factory=dict, repr=False)
    sys_path: list[str] = field(default_factory=list)  # of a program started in cwd
    home: str = "/home/user"
    cwd: str = "/home/user"
    argv: list[str] = field(default_factory=lambda: ["mambarun-check"])
    # The interpreter
    executable: str = "/usr/bin/python3"
    prefix: str = "/usr"  # differs from base_prefix in a virtual environment
    base_prefix: str = "/usr"
    python: tuple[int, ...] = (3, 10, 13)
    implementation: str = "cpython"
    bits: int = 64
    free_threaded: bool = False
    suffixes: tuple[str, ...] = (  # of extension modules, in the order of import
        ".cpython-310-x86_64-linux-gnu.so",
        ".abi3.so",
        ".so",
    )
    user_site: str = "/home/user/.local/lib/python3.10/site-packages"
    user_site_used: bool = True
    start_files_read: bool = True  # .pth files: False under -S
    hook: int | None = 0  # place of mambarun's finder on sys.meta_path
    own: tuple[str, ...] = ()  # folders of the package mambarun
    imported: dict[str, str] = field(default_factory=dict)  # promised name -> file
    # The system
    system: str = "Linux"
    release: str = "6.1.0"
    arch: str = "x86_64"
    libc: tuple[str, str] = ("glibc", "2.28")  # ("", "") if it is not glibc
    # What libmambarun and the driver say; child.py asks them in another process.
    probe: Callable[[Machine], dict[str, Any]] | None = None
    # Seconds that a child may take to ask the driver: cuInit alone takes several where
    # many GPUs have to wake up first.
    limit: float = 20.0

    @staticmethod
    def here() -> Machine:
        """This machine, this process. Imports nothing of torch and opens no library."""
        import mambarun

        from .child import probe

        uname = platform.uname()
        cwd = _cwd()
        return Machine(
            environ=dict(os.environ),
            sys_path=[cwd, *(os.path.abspath(p) for p in _path_of_programs(cwd))],
            home=os.path.expanduser("~"),
            cwd=cwd,
            argv=list(sys.argv),
            executable=sys.executable or "",
            prefix=sys.prefix,
            base_prefix=sys.base_prefix,
            python=tuple(sys.version_info[:3]),
            implementation=sys.implementation.name,
            bits=8 * struct.calcsize("P"),
            free_threaded=bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
            suffixes=tuple(EXTENSION_SUFFIXES),
            user_site=site.getusersitepackages() if hasattr(site, "USER_SITE") else "",
            user_site_used=bool(site.ENABLE_USER_SITE),
            start_files_read=not sys.flags.no_site,
            hook=next(
                (i for i, f in enumerate(sys.meta_path) if f is mambarun.Finder), None
            ),
            own=tuple(mambarun.__path__),
            imported={
                name: getattr(sys.modules[name], "__file__", None) or ""
                for name in mambarun.PROMISED
                if name in sys.modules
            },
            system=uname.system,
            release=uname.release,
            arch=uname.machine,
            libc=_libc(),
            probe=probe,
        )

    # ---- files --------------------------------------------------------------------

    def file(self, path: str) -> str:
        """Where a path of this machine can be opened from here."""
        if self.root == "/":
            return path
        return os.path.join(self.root, self.real(path).lstrip("/"))

    def real(self, path: str) -> str:
        """The path with every link followed, whether or not its end exists."""
        path = os.path.normpath(os.path.join(self.cwd, path))
        if self.root == "/":
            return os.path.realpath(path)
        done, left, links = "", path.split("/"), 0
        while left:
            part = left.pop(0)
            if part in ("", "."):
                continue
            if part == "..":
                done = os.path.dirname(done)
                continue
            there = self.root.rstrip("/") + done + "/" + part
            if not os.path.islink(there):
                done += "/" + part
                continue
            links += 1
            if links > MOST_LINKS:
                return done + "/" + part
            target = os.readlink(there)
            done = "" if target.startswith("/") else done
            left = target.split("/") + left
        return done or "/"

    def exists(self, path: str) -> bool:
        return os.path.exists(self.file(path))

    def is_file(self, path: str) -> bool:
        return os.path.isfile(self.file(path))

    def is_folder(self, path: str) -> bool:
        return os.path.isdir(self.file(path))

    def is_broken_link(self, path: str) -> bool:
        folder, name = os.path.split(path)
        there = os.path.join(self.file(folder), name)
        return os.path.islink(there) and not self.exists(path)

    def can(self, path: str, mode: int) -> bool:
        """os.access by its mode, such as os.R_OK | os.W_OK."""
        return os.access(self.file(path), mode)

    def size(self, path: str) -> int:
        """In bytes; -1 if it cannot be said."""
        try:
            return os.path.getsize(self.file(path))
        except OSError:
            return -1

    def names(self, folder: str) -> list[str]:
        """What a folder holds, sorted; nothing if it cannot be read."""
        try:
            return sorted(os.listdir(self.file(folder)))
        except OSError:
            return []

    def text(self, path: str) -> str | None:
        """A text file's first MiBs; None if it cannot be read, or is a pipe, say."""
        if not self.is_file(path):
            return None
        try:
            with open(self.file(path), "rb") as file:
                return file.read(MOST_TEXT).decode("utf-8", "replace")
        except (OSError, ValueError):
            return None

    def shown(self, path: str) -> str:
        """The path as it is shown to others: the home folder is ~."""
        home = self.home.rstrip("/")
        if home and (path == home or path.startswith(home + "/")):
            return "~" + path[len(home) :]
        return path

    # ---- lists of folders ----------------------------------------------------------

    def paths_in(self, variable: str) -> list[str]:
        """The folders that an environment variable such as PATH lists."""
        listed = self.environ.get(variable, "").split(os.pathsep)
        return [os.path.normpath(path) for path in listed if path]

    def programs(self, name: str) -> Iterator[str]:
        """Every program of that name on PATH, in order."""
        for folder in self.paths_in("PATH"):
            path = os.path.join(folder, name)
            if self.is_file(path) and self.can(path, os.X_OK):
                yield path

    def site_folders(self) -> list[str]:
        """The entries of sys_path that are folders, each once."""
        return [p for p in dict.fromkeys(self.sys_path) if self.is_folder(p)]


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was deleted under us
        return "/"


def _path_of_programs(cwd: str) -> list[str]:
    """sys.path as another program has it: without a first entry that is the folder of
    what was started, which is the script mambarun-check, or of -m and -c."""
    script = os.path.dirname(os.path.abspath(sys.argv[0])) if sys.argv else ""
    own = sys.path[:1] in ([""], [cwd], [script])
    return sys.path[1:] if own else list(sys.path)


def _libc() -> tuple[str, str]:
    """("glibc", "2.28"), or ("", "") with another C library, such as musl."""
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
    except (ValueError, OSError, AttributeError):
        return "", ""
    return name, version
