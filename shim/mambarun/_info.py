# SPDX-License-Identifier: Apache-2.0
"""_info.py - what libmambarun says about itself and the machine, as plain values.
Nothing here initialises CUDA, except what is asked about a CUDA device.
"""

from __future__ import annotations

import ctypes
import os
import platform

from . import PROMISED, _hook, _lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VARIABLES = (
    "MAMBARUN_VARIANT",
    "MAMBARUN_PATH",
    "MAMBARUN_TRACE",
    "MAMBARUN_DISABLE",
    "MAMBARUN_PREFER",
)
_CPU_FEATURES = {1: "AVX2", 2: "AVX512"}  # mbr_host_facts.cpu


class VariantInfo(ctypes.Structure):
    """mbr_variant_info."""

    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("usable", ctypes.c_int32),
        ("name", ctypes.c_char_p),
        ("path", ctypes.c_char_p),
        ("mode", ctypes.c_char_p),
        ("reason", ctypes.c_char * 256),
        ("build", ctypes.c_char_p),
    ]


class HostFacts(ctypes.Structure):
    """mbr_host_facts."""

    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("cpu_count", ctypes.c_int32),
        ("driver_api", ctypes.c_int32),
        ("cpu_name", ctypes.c_char * 64),
        ("driver", ctypes.c_char * 256),
        ("library", ctypes.c_char_p),
        ("stamp", ctypes.c_char_p),
    ]


class GpuFacts(ctypes.Structure):
    """mbr_gpu_facts."""

    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("device_count", ctypes.c_int32),
        ("compute_capability", ctypes.c_int32),
        ("multiprocessors", ctypes.c_int32),
        ("total_memory", ctypes.c_uint64),
        ("name", ctypes.c_char * 128),
    ]


def version() -> str:
    """major.minor.patch of libmambarun, which is opened for this."""
    number = _lib.library().mbr_version()
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def info(device: Any = "cpu") -> dict[str, Any]:
    """What is installed and what would run, as plain values fit for json.dumps.

    version, library, stamp; python, torch (None if not imported); cpu: name, features,
    count; cuda_driver: path or why there is none, cuda_driver_api: 12020 is 12.2, 0 is
    none; variants: name, mode, usable, reason, path, build (compiler or toolkit and
    flags; None unless in use), in order of preference, judged for `device`, which is
    given as to preload; cpu_variant: the one that has run, or None;
    modules: which() for every promised name; environment: the MAMBARUN_* that are set.
    Opens the library; ImportError if that is missing or damaged.
    """
    torch = _lib.wake()
    return {
        "version": version(),
        "python": platform.python_version(),
        "torch": None if torch is None else torch.__version__,
        **host_facts(),
        "variants": variants(device),
        "cpu_variant": variant_in_use(),
        "modules": [_hook.which(name) for name in PROMISED],
        "environment": {v: os.environ[v] for v in VARIABLES if v in os.environ},
    }


def host_facts() -> dict[str, Any]:
    """What mbr_probe_host says: library, stamp, cpu, cuda_driver, cuda_driver_api."""
    facts = HostFacts(struct_size=ctypes.sizeof(HostFacts))
    _lib.check(_lib.library().mbr_probe_host(ctypes.byref(facts)))
    return {
        "library": _text(facts.library),
        "stamp": _text(facts.stamp),
        "cpu": {
            "name": _text(facts.cpu_name),
            "features": [f for bit, f in _CPU_FEATURES.items() if facts.cpu & bit],
            "count": facts.cpu_count,
        },
        "cuda_driver": _text(facts.driver),
        "cuda_driver_api": facts.driver_api,
    }


def gpu_facts(number: int) -> dict[str, Any]:
    """What the driver says about one GPU: device_count, name, capability (80 is 8.0),
    multiprocessors, memory in bytes. Initialises CUDA; CudaError with the reason."""
    facts = GpuFacts(struct_size=ctypes.sizeof(GpuFacts))
    _lib.check(_lib.library().mbr_probe_gpu(number, ctypes.byref(facts)))
    return {
        "device_count": facts.device_count,
        "name": _text(facts.name),
        "capability": facts.compute_capability,
        "multiprocessors": facts.multiprocessors,
        "memory": facts.total_memory,
    }


def variants(device: Any = "cpu") -> list[dict[str, Any]]:
    """Every variant of the manifest, in order of preference, judged for a device."""
    type_, number = _place(device)
    library = _lib.library()
    library.mbr_variant_count.restype = ctypes.c_size_t
    library.mbr_variant_at.argtypes = [
        ctypes.c_size_t,
        ctypes.c_int32,
        ctypes.c_int32,
        ctypes.c_void_p,
    ]
    listed = []
    for i in range(library.mbr_variant_count()):
        found = VariantInfo(struct_size=ctypes.sizeof(VariantInfo))
        _lib.check(library.mbr_variant_at(i, type_, number, ctypes.byref(found)))
        listed.append(
            {
                "name": _text(found.name),
                "mode": _text(found.mode),
                "usable": bool(found.usable),
                "reason": _text(found.reason),
                "path": _text(found.path),
                "build": _text(found.build) or None,
            }
        )
    return listed


def variant_in_use() -> str | None:
    """Name of the variant that runs CPU calls; None until the first of them."""
    library = _lib.library()
    library.mbr_variant_in_use.restype = ctypes.c_char_p
    name = library.mbr_variant_in_use(_lib.CPU, 0)
    return None if name is None else _text(name)


def preload(device: Any = "cpu") -> str:
    """Choose and open the variant of a device now and load all of its kernels, so that
    no later call does (needed before a CUDA graph is captured). Returns its name.

    device: "cpu", "cuda", "cuda:1", a torch.device, or the number of a CUDA device.
    ValueError for any other. RuntimeError if nothing can run there, or CUDA fails.
    """
    type_, number = _place(device)
    library = _lib.library()
    _lib.check(library.mbr_preload(-1 if type_ == _lib.CPU else number))
    library.mbr_variant_in_use.restype = ctypes.c_char_p
    return _text(library.mbr_variant_in_use(type_, number))


def _place(device: Any) -> tuple[int, int]:
    """DLPack's device type, and the number, of a device in any of preload's forms."""
    kind, _, index = str(device).partition(":")
    if kind.isdigit():
        kind, index = "cuda", kind
    if kind not in ("cpu", "cuda") or not (index or "0").isdigit():
        raise ValueError(f"device must be cpu, cuda or cuda:N: it is {device!r}")
    return (_lib.CPU if kind == "cpu" else _lib.CUDA), int(index or 0)


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")
