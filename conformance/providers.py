# SPDX-License-Identifier: Apache-2.0
"""Who computes: the double-precision reference, through the entry function that every
variant has, and libmambarun, through its public functions. Knows no op by name: entry
points come from ops.def, params structs from the field rows of the shim."""

from __future__ import annotations

import ctypes
import importlib
import os
import re
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from .arrays import DTYPES, GUARD, POISON, Array

HERE = Path(__file__).resolve().parent
SHARE_BOUND = 1 << 31  # CONFORMANCE_BOUND of number.h
DETERMINISTIC = 1  # MBR_DETERMINISTIC
CPU, CUDA = 1, 2  # mbr_call.device_type
TABLE_HEAD = 4  # members of mbr_table before its functions
OPS_DEF = HERE.parent / "libmambarun" / "ops" / "ops.def"


@dataclass
class Call:
    """One call of one entry point. Outputs that are absent from the struct are simply
    missing here; an output that starts with a meaning (in and out) is filled."""

    entry: str
    inputs: dict[str, Array]
    outputs: dict[str, Array]
    scalars: dict[str, int] = field(default_factory=dict)

    def arrays(self) -> dict[str, Array]:
        return {**self.inputs, **self.outputs}


@dataclass
class Plain:
    """Arguments for a function of a module that are no Call: too many, by name, of a
    wrong type. They can only be refused. Arrays among them arrive as tensors."""

    module: str
    function: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Way:
    """How a call may be run. same_bits: the complaint if the bits are not those of the
    way before; empty where they may be others, which are then judged too."""

    threads: int = 1
    flags: int = 0
    same_bits: str = ""


class Refused(Exception):
    """A provider answered with a status other than MBR_OK."""

    def __init__(self, status: str, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status, self.text = status, text


def rooms() -> list[str]:
    return sorted(path.parent.name for path in HERE.glob("ops/*/cases.py"))


def rows_of(entry: str) -> tuple[tuple[str, Any], ...]:
    """The field rows of an entry point's params struct."""
    for room in rooms():
        if entry.startswith(room):
            module = importlib.import_module("mambarun.ops." + room)
            return next(p.rows for p in module.PARAMS if p.op == entry)
    raise LookupError(entry)


def packed(rows: tuple[tuple[str, Any], ...], values: dict[str, Any]) -> bytes:
    """The bytes of a C struct whose absent members are zero."""
    out = b""
    for name, code in rows:
        value = values.get(name)
        if not isinstance(code, str):
            out += packed(code, value or {})
        elif len(code) > 1:
            out += struct.pack("=" + code, *(value or [0] * int(code[:-1])))
        else:
            out += struct.pack("=" + code, value or 0)
    return out


def tensor_fields(array: Array) -> dict[str, Any]:
    code, bits, _ = DTYPES[array.dtype]
    rest = 4 - len(array.shape)
    return {
        "data": array.data_ptr(),
        "shape": list(array.shape) + [0] * rest,
        "stride": list(array.strides) + [0] * rest,
        "ndim": len(array.shape),
        "dtype_code": code,
        "dtype_bits": bits,
    }


class Lost(Exception):
    """A kernel failed after its launch: the driver refuses this process from now on."""


def params(call: Call, way: Way, workspace: dict[str, int], **where: int) -> Any:
    rows = rows_of(call.entry)
    unknown = {*call.arrays(), *call.scalars} - {name for name, _ in rows}
    assert not unknown, f"{call.entry} has no {sorted(unknown)}"
    values: dict[str, Any] = {n: tensor_fields(a) for n, a in call.arrays().items()}
    values.update(call.scalars, workspace=workspace)
    size = len(packed(rows, {}))
    values["call"] = {
        "struct_size": size,
        "device_type": CPU,
        "flags": way.flags,
        "threads": way.threads,
        **where,
    }
    return ctypes.create_string_buffer(packed(rows, values), size)


class Library:
    """libmambarun's public functions, with whatever variant MAMBARUN_VARIANT names, for
    tensors on the CPU."""

    WAYS = (
        Way(),
        Way(same_bits="a second run gives other bits"),
        Way(threads=2, same_bits="two threads give other bits than one"),
    )
    device = "cpu"

    def __init__(self, path: Path) -> None:
        self.lib = ctypes.CDLL(str(path))
        self.lib.mbr_last_error.restype = ctypes.c_char_p
        self.lib.mbr_status_name.restype = ctypes.c_char_p
        self.lib.mbr_variant_in_use.restype = ctypes.c_char_p

    def where(self) -> dict[str, int]:
        """What mbr_call says about the device."""
        return {"device_type": CPU}

    def run(self, call: Call, way: Way = Way()) -> None:
        scratch = self.workspace(call, way)
        lent = {}
        if scratch is not None:
            start = scratch.data_ptr() + GUARD
            lent = {"data": start, "size": scratch.numel() - 2 * GUARD}
        function = getattr(self.lib, "mbr_" + call.entry)
        status = function(params(call, way, lent, **self.where()))
        if status != 0:
            name = self.lib.mbr_status_name(status).decode()
            raise Refused(name, self.lib.mbr_last_error().decode())
        self.wait()
        if scratch is not None:
            for part in (scratch[:GUARD], scratch[-GUARD:]):
                assert (part == POISON).all(), "wrote outside its workspace"

    def wait(self) -> None:
        """Until what was called is done."""

    def workspace(self, call: Call, way: Way) -> Any:
        try:
            ask = getattr(self.lib, "mbr_" + call.entry + "_workspace")
        except AttributeError:
            return None
        ask.restype = ctypes.c_size_t
        size = ask(params(call, way, {}, **self.where())) + 2 * GUARD
        return torch.full((size,), POISON, dtype=torch.uint8, device=self.device)

    def variants(self) -> dict[str, tuple[str, bool, str]]:
        """Name -> (mode, usable on a device of its kind, why or why not)."""
        found = {}
        for i in range(self.lib.mbr_variant_count()):
            info = VariantInfo(struct_size=ctypes.sizeof(VariantInfo))
            self.lib.mbr_variant_at(i, CPU, 0, ctypes.byref(info))
            mode = info.mode.decode()
            if mode != "cpu":
                self.lib.mbr_variant_at(i, CUDA, 0, ctypes.byref(info))
            found[info.name.decode()] = (mode, bool(info.usable), info.reason.decode())
        return found

    def facts(self) -> HostFacts:
        facts = HostFacts(struct_size=ctypes.sizeof(HostFacts))
        self.lib.mbr_probe_host(ctypes.byref(facts))
        return facts

    def in_use(self) -> str:
        device_type = self.where()["device_type"]
        return (self.lib.mbr_variant_in_use(device_type, 0) or b"none yet").decode()


class OnGpu(Library):
    """The same for tensors on cuda:0: each buffer of a call, with its guards, is copied
    there and afterwards back. Runs on torch's current stream.

    tight: without the guard behind each array, so that compute-sanitizer sees a read
    past it (PYTORCH_NO_CUDA_MEMORY_CACHING=1 gives each its own memory)."""

    WAYS = (
        Way(flags=DETERMINISTIC),
        Way(flags=DETERMINISTIC, same_bits="MBR_DETERMINISTIC gives other bits again"),
        Way(),
    )
    device = "cuda:0"

    def __init__(self, path: Path, tight: bool = False) -> None:
        super().__init__(path)
        self.tight = tight

    def where(self) -> dict[str, int]:
        stream = torch.cuda.current_stream(self.device).cuda_stream
        return {"device_type": CUDA, "device_id": 0, "stream": stream}

    def run(self, call: Call, way: Way = Way()) -> None:
        pairs = {}  # arrays may share a buffer: address here -> (here, there)
        for array in call.arrays().values():
            here = array.buffer
            if self.tight:
                here = here[: here.numel() - GUARD * array.flat().element_size()]
            pairs.setdefault(here.data_ptr(), (here, here.to(self.device)))

        def there(arrays: dict[str, Array]) -> dict[str, Array]:
            return {
                name: array.in_copy(pairs[array.buffer.data_ptr()][1])
                for name, array in arrays.items()
            }

        super().run(
            replace(call, inputs=there(call.inputs), outputs=there(call.outputs)), way
        )
        for here, copied in pairs.values():
            here.copy_(copied)

    def wait(self) -> None:
        try:
            torch.cuda.synchronize(self.device)
        except RuntimeError as error:
            raise Lost(str(error).partition("\n")[0]) from None


class Reference:
    """The variant "reference": built, never chosen, opened here by name."""

    def __init__(self, path: Path, stamp: str) -> None:
        self.lib = ctypes.CDLL(str(path))
        members = re.findall(r"^MBR_(OP|WORKSPACE)\((\w+)\)", OPS_DEF.read_text(), re.M)
        names = [
            n + ("_workspace" if kind == "WORKSPACE" else "") for kind, n in members
        ]
        table = (ctypes.c_void_p * (TABLE_HEAD + len(names)))()
        answer = self.lib.mbr_variant_entry(
            stamp.encode(), ctypes.sizeof(table), None, ctypes.byref(table)
        )
        assert answer == 0, f"{path} answers {answer} to the handshake"
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
        self.functions = {
            name: kind(table[TABLE_HEAD + i]) for i, name in enumerate(names)
        }

    WAYS = (Way(), Way(same_bits="a second run gives other bits"))

    def run(self, call: Call, way: Way = Way()) -> None:
        status = self.functions[call.entry](params(call, way, {}))
        assert status == 0, f"the reference returned status {status}"

    def answer(self, call: Call, bound: bool = False) -> dict[str, torch.Tensor]:
        """Every output in double precision; with bound, how far fp32 may be off."""
        twin = Call(
            call.entry,
            call.inputs,
            {name: array.for_reference() for name, array in call.outputs.items()},
            call.scalars,
        )
        self.run(twin, Way(flags=SHARE_BOUND if bound else 0))
        return {name: array.values() for name, array in twin.outputs.items()}


class VariantInfo(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("usable", ctypes.c_int32),
        ("name", ctypes.c_char_p),
        ("path", ctypes.c_char_p),
        ("mode", ctypes.c_char_p),
        ("reason", ctypes.c_char * 256),
    ]


class HostFacts(ctypes.Structure):
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


def library_folder() -> Path:
    """Where libmambarun.so, its variants and the reference lie: MAMBARUN_PATH, or what
    `cmake --preset test` builds."""
    named = os.environ.get("MAMBARUN_PATH")
    return Path(named) if named else HERE.parent / "build" / "test" / "lib"
