# SPDX-License-Identifier: Apache-2.0
"""What a report says first: the machine, who computed, and versions."""

from __future__ import annotations

import platform
import subprocess
import time
from pathlib import Path

import torch

from .modules import Modules
from .spec import Opened

ROOT = Path(__file__).resolve().parent.parent


def facts(opened: Opened) -> dict[str, str]:
    import mambarun

    info = mambarun.info()
    known = {"provider": str(opened.spec)}
    if isinstance(opened.main, Modules):
        file = shown(opened.main.module.__file__)
        known["module"] = f"{file} (from {supplier(opened)})"
        known["argument lists"] = ", ".join(f.id for f in opened.main.forms)
    if opened.spec.kind == "mambarun":
        known["variant"] = opened.spec.name
    known["device"] = opened.device
    known["cpu"] = f"{info['cpu']['name']}, {info['cpu']['count']} CPUs"
    if opened.device != "cpu":
        known["gpu"] = gpu(opened.device)
    library = shown(info["library"])
    known["library"] = f"{library}, {info['version']}, stamp {info['stamp']}"
    if commit():
        known["commit"] = commit()
    known["system"] = platform.platform()
    known["torch"] = torch.__version__
    known["python"] = platform.python_version()
    known["date"] = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return known


def supplier(opened: Opened) -> str:
    """Whose module it is; and where mambarun's was found by its name, why."""
    import mambarun

    if not opened.main.ours:
        return "another project"
    name = opened.main.module.__name__
    if opened.spec.kind == "file" or name not in mambarun.PROMISED:
        return "mambarun"
    return f"mambarun: {mambarun.which(name)['reason']}"


def shown(path: str | None) -> str:
    """A path; in a source tree from there on."""
    try:
        return str(Path(path or "").resolve().relative_to(ROOT))
    except ValueError:
        return path or ""


def gpu(device: str) -> str:
    """Name, compute capability and driver of the device."""
    number = torch.device(device).index or 0
    name = torch.cuda.get_device_name(number)
    major, minor = torch.cuda.get_device_capability(number)
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True).stdout.split()
    except OSError:
        said = []
    driver = said[0] if said else "unknown"
    cuda = torch.version.cuda
    return f"{name}, {major}.{minor}, driver {driver}, torch built with CUDA {cuda}"


def commit() -> str:
    """Where a part of the tree was carried elsewhere, commit.txt says what it was.
    Empty where neither is."""
    carried = ROOT / "commit.txt"
    if carried.exists():
        return carried.read_text().strip()
    if not (ROOT / ".git").exists():
        return ""
    described = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
    )
    return described.stdout.strip()
