# SPDX-License-Identifier: Apache-2.0
"""_locate.py - where the CUDA libraries lie that other packages load, and which copies
torch would take. Asks libmambarun, which reads folders and file headers; nothing that
is found is opened.
"""

from __future__ import annotations

import ctypes

from . import _lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Sequence


class Surroundings(ctypes.Structure):
    """mbr_surroundings."""

    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("root", ctypes.c_char_p),
        ("torch", ctypes.c_char_p),
        ("executable", ctypes.c_char_p),
        ("prefix", ctypes.c_char_p),
        ("sys_path", ctypes.c_char_p),
        ("library_path", ctypes.c_char_p),
        ("program_path", ctypes.c_char_p),
        ("cuda_home", ctypes.c_char_p),
    ]


class Found(ctypes.Structure):
    """mbr_found."""

    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("fits", ctypes.c_int32),
        ("used", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("what", ctypes.c_char_p),
        ("how", ctypes.c_char_p),
        ("by", ctypes.c_char_p),
        ("name", ctypes.c_char * 256),
        ("version", ctypes.c_char * 32),
        ("path", ctypes.c_char * 4096),
    ]


def locate(
    what: str | None = None,
    *,
    root: str | None = None,
    torch: str | None = None,
    executable: str | None = None,
    prefix: str | None = None,
    sys_path: Sequence[str] = (),
    library_path: str | None = None,
    program_path: str | None = None,
    cuda_home: str | None = None,
) -> list[dict[str, Any]]:
    """Every copy of a library, or every toolkit, in the order of the search.

    what: "cudart", "cudnn", "nvrtc", "cusparse", "nvjitlink", "libcuda", "nvml",
    "ptxjitcompiler", "toolkit"; None: all. The others: mbr_surroundings in mambarun.h.
    Each find: what, name, version, path, how, by, and fits and used as bool; mbr_found
    in mambarun.h says what they mean. ArgumentError for another `what`; ImportError if
    libmambarun is missing or damaged.
    """
    where = Surroundings(
        ctypes.sizeof(Surroundings),
        0,
        *map(_bytes, (root, torch, executable, prefix, ":".join(sys_path))),
        *map(_bytes, (library_path, program_path, cuda_home)),
    )
    room = 64
    while True:
        finds = (Found * room)()
        finds[0].struct_size = ctypes.sizeof(Found)
        count = ctypes.c_size_t()
        _lib.check(
            _lib.library().mbr_locate(
                ctypes.byref(where),
                _bytes(what),
                finds,
                ctypes.c_size_t(room),
                ctypes.byref(count),
            )
        )
        if count.value <= room:
            return [_plain(found) for found in finds[: count.value]]
        room = count.value


def _plain(found: Found) -> dict[str, Any]:
    texts = ("what", "name", "version", "path", "how", "by")
    plain: dict[str, Any] = {
        name: getattr(found, name).decode("utf-8", "surrogateescape") for name in texts
    }
    return {**plain, "fits": bool(found.fits), "used": bool(found.used)}


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode("utf-8", "surrogateescape")
