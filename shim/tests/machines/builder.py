# SPDX-License-Identifier: Apache-2.0
"""builder.py - fabricates machines: a file tree that stands for "/", the environment of
one process on it, and what its driver said. parts.py has what they are made of.
"""

import base64
import hashlib
from pathlib import Path

from mambarun.check.machine import Machine


class Builder:
    """A machine that is being made. `root` is where its "/" lies; all other paths are
    those of the machine. A part is a function that adds something to one."""

    def __init__(self, root):
        self.root = Path(root)
        self.home = "/home/ada"
        self.prefix = "/opt/conda/envs/mamba"
        self.version = (3, 10, 13)
        self.environ = {"HOME": self.home, "LANG": "C.UTF-8"}
        self.first_on_path = []  # before the environment's bin
        self.before, self.after = [], []  # entries of sys.path around site-packages
        self.facts = {}
        self.fields = {}  # of Machine, that differ from what machine() makes
        self.folder(self.home)

    @property
    def python(self):
        return "python{}.{}".format(*self.version)

    @property
    def site(self):
        return f"{self.prefix}/lib/{self.python}/site-packages"

    @property
    def suffix(self):
        return ".cpython-{}{}-x86_64-linux-gnu.so".format(*self.version)

    # ---- files --------------------------------------------------------------------

    def at(self, path):
        return self.root / path.lstrip("/")

    def folder(self, path):
        self.at(path).mkdir(parents=True, exist_ok=True)

    def file(self, path, content=""):
        self.folder(path.rpartition("/")[0])
        data = content if isinstance(content, bytes) else content.encode()
        self.at(path).write_bytes(data)

    def program(self, path):
        self.file(path, "#!/bin/sh\n")
        self.at(path).chmod(0o755)

    def link(self, path, target):
        self.folder(path.rpartition("/")[0])
        self.at(path).symlink_to(target)

    def package(self, name, version, files=None, site=None, record=True):
        """A distribution as pip installs it: its files and its dist-info, with RECORD.
        files: {path below the site: content}; None: a package of that name."""
        site = site or self.site
        stem = name.replace("-", "_")
        files = {f"{stem}/__init__.py": ""} if files is None else files
        lines = []
        for path, content in files.items():
            self.file(f"{site}/{path}", content)
            data = content if isinstance(content, bytes) else content.encode()
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest())
            lines.append(f"{path},sha256={digest.rstrip(b'=').decode()},{len(data)}")
        info = f"{site}/{stem}-{version}.dist-info"
        self.file(f"{info}/METADATA", f"Name: {name}\nVersion: {version}\n")
        if record:
            self.file(f"{info}/RECORD", "\n".join(lines) + "\n")

    # ---- the machine --------------------------------------------------------------

    def machine(self):
        bin_ = f"{self.prefix}/bin"
        path = ":".join([*self.first_on_path, bin_, "/usr/local/bin", "/usr/bin"])
        user = f"{self.home}/.local/lib/{self.python}/site-packages"
        library = f"{self.prefix}/lib/{self.python}"
        fields = dict(
            root=str(self.root),
            environ={"PATH": path, **self.environ},
            sys_path=[
                *self.before,
                "/work",
                library,
                library + "/lib-dynload",
                self.site,
                *self.after,
            ],
            home=self.home,
            cwd="/work",
            executable=f"{bin_}/{self.python}",
            prefix=self.prefix,
            base_prefix=self.prefix,
            python=self.version,
            suffixes=(self.suffix, ".abi3.so", ".so"),
            user_site=user,
            own=(f"{self.site}/mambarun",),
            libc=("glibc", "2.36"),
            probe=lambda machine: self.facts,
        )
        fields.update(self.fields)
        return Machine(**fields)


def build(root, *parts):
    builder = Builder(root)
    for part in parts:
        part(builder)
    return builder
