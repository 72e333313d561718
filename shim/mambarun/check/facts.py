# SPDX-License-Identifier: Apache-2.0
"""facts.py - what several checks want to know of a machine: the packages that are
installed, the torch that an import would find, and what the child process said. Each is
read once, when it is first asked for.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .machine import Machine


class Dist(NamedTuple):
    """A distribution that is installed: its folder X-1.2.dist-info or .egg-info."""

    name: str  # normalised: mamba-ssm
    version: str
    path: str
    site: str  # the entry of sys.path that it lies in


class Torch(NamedTuple):
    """The torch that an import would find, from its version.py."""

    folder: str
    version: str  # 2.2.0+cu121
    cuda: str  # "12.1", or "" if it was built without
    hip: str
    xpu: str
    site: str

    @property
    def number(self) -> tuple[int, ...]:
        return numbers(self.version)


class Facts:
    """One machine's."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.probe: dict[str, Any] = machine.probe(machine) if machine.probe else {}
        self.dists = list(_dists(machine))
        self.torches = list(_torches(machine))
        self._records: dict[str, frozenset[str]] = {}
        self._libraries: list[dict[str, Any]] | None = None
        self.suppliers: dict[str, Any] = {}  # kept by modules.supplier
        self.torch_elves: list[Any] | None = None  # kept by modules.torch_libraries

    @property
    def torch(self) -> Torch | None:
        return self.torches[0] if self.torches else None

    def dist(self, name: str) -> Dist | None:
        """The distribution of that name that comes first on sys.path."""
        return next((d for d in self.dists if d.name == name), None)

    def owner(self, path: str) -> Dist | None:
        """The distribution that installed a file, by its RECORD."""
        for dist in self.dists:
            inside, name = path.startswith(dist.site + "/"), path[len(dist.site) + 1 :]
            if inside and name in self._record(dist.path):
                return dist
        return None

    def _record(self, path: str) -> frozenset[str]:
        if path not in self._records:
            text = self.machine.text(path + "/RECORD") or ""
            names = (line.split(",")[0] for line in text.splitlines())
            self._records[path] = frozenset(names)
        return self._records[path]

    @property
    def libraries(self) -> list[dict[str, Any]]:
        """Every copy of the CUDA libraries, as _locate.locate lists them."""
        if self._libraries is None:
            self._libraries = self._located()
        return self._libraries

    def _located(self) -> list[dict[str, Any]]:
        machine = self.machine
        if "error" in self.probe.get("library", {"error": ""}):
            return []  # libmambarun lists them
        from .. import _locate

        environ = machine.environ.get
        return _locate.locate(
            root=machine.root,
            torch=self.torch.folder if self.torch else None,
            executable=machine.executable,
            prefix=machine.prefix,
            sys_path=machine.sys_path,
            library_path=environ("LD_LIBRARY_PATH"),
            program_path=environ("PATH"),
            cuda_home=environ("CUDA_HOME") or environ("CUDA_PATH"),
        )

    def libraries_of(self, what: str) -> list[dict[str, Any]]:
        """Copies of one library that are whole, or that torch misses."""
        found = (f for f in self.libraries if f["what"] == what)
        return [f for f in found if f["fits"] or not f["path"]]

    @property
    def gpus(self) -> list[dict[str, Any]]:
        """Those that the driver shows and that answer."""
        return [gpu for gpu in self.probe.get("gpus", ()) if "error" not in gpu]

    @property
    def api(self) -> int:
        """The driver's API version: 12020 is 12.2, 0 is none."""
        return (self.probe.get("driver") or {}).get("api") or 0


def numbers(version: str) -> tuple[int, ...]:
    """(2, 2, 4) of "2.2.4.post1+cu121"."""
    return tuple(int(n) for n in re.match(r"[\d.]*", version)[0].split(".") if n)  # type: ignore[index]


def api_text(api: int) -> str:
    return f"{api // 1000}.{api % 1000 // 10}"


def capability_text(capability: int) -> str:
    return f"{capability // 10}.{capability % 10}"


def _dists(machine: Machine) -> Any:
    for site in machine.site_folders():
        for entry in machine.names(site):
            stem, dot, kind = entry.rpartition(".")
            if not dot or kind not in ("dist-info", "egg-info") or "-" not in stem:
                continue
            if kind == "dist-info":
                name, _, version = stem.rpartition("-")
            else:  # name-version-py3.10
                name, version = stem.split("-")[:2]
            yield Dist(normal(name), version, os.path.join(site, entry), site)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _torches(machine: Machine) -> Any:
    for site in machine.site_folders():
        folder = os.path.join(site, "torch")
        text = machine.text(folder + "/version.py")
        if text is None:
            continue
        yield Torch(
            folder,
            _assigned(text, "__version__") or "?",
            _assigned(text, "cuda"),
            _assigned(text, "hip"),
            _assigned(text, "xpu"),
            site,
        )


def _assigned(text: str, name: str) -> str:
    """The string that a line `name: type = 'string'` assigns, or ""."""
    found = re.search(rf"^{name}\b[^=\n]*=\s*['\"]([^'\"\n]*)['\"]", text, re.M)
    return found[1] if found else ""
