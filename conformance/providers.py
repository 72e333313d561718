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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .arrays import DTYPES, GUARD, POISON, Array

HERE = Path(__file__).resolve().parent
SHARE_BOUND = 1 << 31  # CONFORMANCE_BOUND of number.h
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


def params(call: Call, flags: int, threads: int, workspace: dict[str, int]) -> Any:
    rows = rows_of(call.entry)
    unknown = {*call.arrays(), *call.scalars} - {name for name, _ in rows}
    assert not unknown, f"{call.entry} has no {sorted(unknown)}"
    values: dict[str, Any] = {n: tensor_fields(a) for n, a in call.arrays().items()}
    values.update(call.scalars, workspace=workspace)
    size = len(packed(rows, {}))
    values["call"] = {
        "struct_size": size,
        "device_type": 1,
        "flags": flags,
        "threads": threads,
    }
    return ctypes.create_string_buffer(packed(rows, values), size)


class Library:
    """libmambarun's public functions, with whatever variant MAMBARUN_VARIANT names."""

    def __init__(self, path: Path) -> None:
        self.lib = ctypes.CDLL(str(path))
        self.lib.mbr_last_error.restype = ctypes.c_char_p
        self.lib.mbr_status_name.restype = ctypes.c_char_p

    def run(self, call: Call, threads: int = 1) -> None:
        scratch = self.workspace(call, threads)
        lent = {}
        if scratch is not None:
            start = scratch.data_ptr() + GUARD
            lent = {"data": start, "size": scratch.numel() - 2 * GUARD}
        function = getattr(self.lib, "mbr_" + call.entry)
        status = function(params(call, 0, threads, lent))
        if status != 0:
            name = self.lib.mbr_status_name(status).decode()
            raise Refused(name, self.lib.mbr_last_error().decode())
        if scratch is not None:
            for part in (scratch[:GUARD], scratch[-GUARD:]):
                assert (part == POISON).all(), "wrote outside its workspace"

    def workspace(self, call: Call, threads: int) -> Any:
        try:
            ask = getattr(self.lib, "mbr_" + call.entry + "_workspace")
        except AttributeError:
            return None
        ask.restype = ctypes.c_size_t
        size = ask(params(call, 0, threads, {}))
        return torch.full((size + 2 * GUARD,), POISON, dtype=torch.uint8)

    def variants(self) -> dict[str, tuple[bool, str]]:
        """Name -> (usable on the CPU, why or why not)."""
        found = {}
        for i in range(self.lib.mbr_variant_count()):
            info = VariantInfo(struct_size=ctypes.sizeof(VariantInfo))
            self.lib.mbr_variant_at(i, 1, 0, ctypes.byref(info))
            found[info.name.decode()] = (bool(info.usable), info.reason.decode())
        return found

    def facts(self) -> HostFacts:
        facts = HostFacts(struct_size=ctypes.sizeof(HostFacts))
        self.lib.mbr_probe_host(ctypes.byref(facts))
        return facts

    def in_use(self) -> str:
        self.lib.mbr_variant_in_use.restype = ctypes.c_char_p
        return (self.lib.mbr_variant_in_use(1, 0) or b"none yet").decode()


class Reference:
    """The variant "reference": built, never chosen, opened here by name."""

    def __init__(self, path: Path, stamp: str) -> None:
        self.lib = ctypes.CDLL(str(path))
        members = re.findall(r"^MBR_(OP|WORKSPACE)\((\w+)\)", OPS_DEF.read_text(), re.M)
        names = [
            n + ("_workspace" if kind == "WORKSPACE" else "") for kind, n in members
        ]
        table = (ctypes.c_void_p * (2 + len(names)))()
        answer = self.lib.mbr_variant_entry(
            stamp.encode(), ctypes.sizeof(table), None, ctypes.byref(table)
        )
        assert answer == 0, f"{path} answers {answer} to the handshake"
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
        self.functions = {name: kind(table[2 + i]) for i, name in enumerate(names)}

    def run(self, call: Call, threads: int = 1, flags: int = 0) -> None:
        status = self.functions[call.entry](params(call, flags, threads, {}))
        assert status == 0, f"the reference returned status {status}"

    def answer(self, call: Call, bound: bool = False) -> dict[str, torch.Tensor]:
        """Every output in double precision; with bound, how far fp32 may be off."""
        twin = Call(
            call.entry,
            call.inputs,
            {name: array.for_reference() for name, array in call.outputs.items()},
            call.scalars,
        )
        self.run(twin, flags=SHARE_BOUND if bound else 0)
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
