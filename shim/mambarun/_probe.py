# SPDX-License-Identifier: Apache-2.0
"""_probe.py - the child process of mambarun-check, which may initialise CUDA. It says
what it learns line by line, so that what it knew survives a crash. Nothing imports this
but its own process.

    python -m mambarun._probe    the same, for eyes
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

_pipe = sys.stdout


def say(**facts: Any) -> None:
    """One line for the parent."""
    print(json.dumps(facts), file=_pipe, flush=True)


def main(task: dict[str, Any]) -> None:
    """Do the task {"name": ...}. The parent's pipe is stdout's; what libraries print
    goes to stderr."""
    global _pipe
    _pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.environ["MAMBARUN_TRACE"] = "0"  # warnings are the parent's business
    if task["name"] == "facts":
        facts()
    else:
        from .check import trial

        trial.main(task)
    os._exit(0)  # a driver's own exit handlers have crashed before


# ---- facts ------------------------------------------------------------------------


def facts() -> None:
    """Says, in this order:

    library: path, version; or path, error. stamp. cpu: name, features, count.
    cpu_variants: as mambarun.info()["variants"]. cpu_variant: the one that opens; or
    cpu_load: error, code. nvml: driver, gpus (names), mig; or
    error. driver: path (None if there is none), why, api (12020 is 12.2, 0 is none).
    cuda: {} if cuInit went well, else error, code (MRnnn). gpus: name, capability (80
    is 8.0), memory in bytes, multiprocessors, integrated, mode (of
    CU_DEVICE_ATTRIBUTE_COMPUTE_MODE), variants; or error, code.
    """
    say(stage="libmambarun")
    if not _library():
        return
    say(stage="libnvidia-ml.so.1")
    say(nvml=_nvml())
    say(stage="libcuda.so.1")
    _driver()
    say(stage="done")


def _library() -> bool:
    from . import _info, _lib

    path = None
    try:
        path = _lib.find()
        say(library={"path": path, "version": _info.version()})
    except ImportError as cause:
        say(library={"path": path, "error": _sentence(cause)})
        return False
    say(cpu_variants=_info.variants("cpu"))
    try:
        say(cpu_variant=_info.preload("cpu"))
    except RuntimeError as cause:
        say(cpu_load={"error": _sentence(cause), "code": _code(cause)})
    say(cpu_variants=_info.variants("cpu"))  # now with the build of the one in use
    return True


def _driver() -> None:
    from . import _info

    host = _info.host_facts()
    say(stamp=host["stamp"], cpu=host["cpu"])
    api = host["cuda_driver_api"]
    path = host["cuda_driver"] if host["cuda_driver"].startswith("/") else None
    say(driver={"path": path, "why": "" if path else host["cuda_driver"], "api": api})
    say(stage="cuInit")
    try:
        first = _info.gpu_facts(0)
    except RuntimeError as cause:
        say(cuda={"error": _sentence(cause), "code": _code(cause)}, gpus=[])
        return
    say(cuda={}, stage="devices")
    gpus = [_gpu(number, path) for number in range(first["device_count"])]
    say(gpus=gpus)


def _gpu(number: int, path: str | None) -> dict[str, Any]:
    from . import _info

    try:
        found = _info.gpu_facts(number)
    except RuntimeError as cause:
        return {"error": _sentence(cause), "code": _code(cause)}
    return {
        **found,
        "integrated": _attribute(path, 18, number) == 1,
        "mode": _attribute(path, 20, number),
        "variants": _info.variants(number),
    }


def _attribute(path: str | None, attribute: int, number: int) -> int:
    """cuDeviceGetAttribute, on the library that is open already."""
    value, device = ctypes.c_int(-1), ctypes.c_int(0)
    try:
        driver = ctypes.CDLL(path)
        driver.cuDeviceGet(ctypes.byref(device), number)
        driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    except (OSError, AttributeError):
        pass
    return value.value


def _nvml() -> dict[str, Any]:
    """What NVIDIA's management library says, which needs no CUDA."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        status = nvml.nvmlInit_v2()
        if status:
            return {"error": f"nvmlInit_v2 fails with {status}"}
        return {"driver": _nvml_text(nvml.nvmlSystemGetDriverVersion), **_boards(nvml)}
    except (OSError, AttributeError) as cause:
        return {"error": str(cause)}


def _boards(nvml: ctypes.CDLL) -> dict[str, Any]:
    count, board = ctypes.c_uint(0), ctypes.c_void_p()
    now, later = ctypes.c_uint(0), ctypes.c_uint(0)
    divided = getattr(nvml, "nvmlDeviceGetMigMode", lambda *_: 1)  # not in old ones
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    names, mig = [], False
    for number in range(count.value):
        if nvml.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(board)):
            continue
        names.append(_nvml_text(nvml.nvmlDeviceGetName, board))
        if not divided(board, ctypes.byref(now), ctypes.byref(later)):
            mig = mig or now.value == 1
    return {"gpus": names, "mig": mig}


def _nvml_text(function: Callable[..., int], *arguments: Any) -> str:
    text = ctypes.create_string_buffer(96)
    failed = function(*arguments, text, 96)
    return "" if failed else text.value.decode("utf-8", "replace")


def _sentence(cause: Exception) -> str:
    """The message without the command that explains it."""
    return str(cause).split("\n  run: ")[0]


def _code(cause: Exception) -> str:
    found = re.search(r"--explain (MR\d{3})", str(cause))
    return found[1] if found else "MR112"


if __name__ == "__main__":
    main({"name": "facts"})
