# SPDX-License-Identifier: Apache-2.0
"""Who computes: the double-precision reference, through the entry function that every
variant has, and libmambarun, through its public functions. Knows no op by name: entry
points come from ops.def, params structs from the field rows of the shim. The functions
of compiled modules are called in modules.py."""

from __future__ import annotations

import ctypes
import importlib
import re
import struct
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Iterator

import torch

from .arrays import DTYPES, GUARD, POISON, Array
from .calling import HOWS, Complaint, Lent, wait

HERE = Path(__file__).resolve().parent
SHARE_BOUND = 1 << 31  # CONFORMANCE_BOUND of number.h
DETERMINISTIC = 1  # MBR_DETERMINISTIC
CPU, CUDA = 1, 2  # mbr_call.device_type
TABLE_HEAD = 4  # members of mbr_table before its functions
REFERENCE = "libmambarun_reference.so"


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
    way before; empty where they may be others, which are then judged too. how and
    signature: as of a Case."""

    threads: int = 1
    flags: int = 0
    same_bits: str = ""
    tight: bool = False  # nothing may be read behind an array: see calling.Lent
    how: str = ""
    signature: str = ""


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


class Provider:
    """Runs calls. device: where the arrays lie then. tight: on a GPU without the guard
    behind each, so that compute-sanitizer sees a read past it
    (PYTORCH_NO_CUDA_MEMORY_CACHING=1 gives each its own memory). fences: takes arrays
    wherever they lie, so that on the CPU a fence may stand behind each."""

    name = ""
    device = "cpu"
    tight = False
    fences = False
    known_as: tuple[str, ...] = ()  # in modules.Known

    def ways(self, how: str = "", signature: str = "") -> list[Way]:
        """How a call is to be run, one after the other."""
        fenced = self.fences and not signature
        return [
            replace(way, how=how, signature=signature, tight=way.tight and fenced)
            for way in self.each_way(how)
        ]

    def each_way(self, how: str) -> tuple[Way, ...]:
        if how == "deterministic":
            first = Way(flags=DETERMINISTIC)
            again = Way(flags=DETERMINISTIC, same_bits="run again, other bits")
            return (first, *[again] * 4)
        if self.device == "cpu":
            return (
                Way(),
                Way(same_bits="a second run gives other bits"),
                Way(
                    threads=2,
                    tight=True,
                    same_bits="two threads give other bits than one",
                ),
            )
        return (
            Way(flags=DETERMINISTIC),
            Way(
                flags=DETERMINISTIC,
                same_bits="MBR_DETERMINISTIC gives other bits again",
            ),
            Way(),
        )

    def run(self, call: Call, way: Way = Way()) -> None:  # noqa: B008
        """Unsupported, Refused, Complaint or Lost say what else happened."""
        device = "cuda:1" if way.how == "device1" else self.device
        lent = Lent(call, device, self.tight or way.tight)
        with self.prepared(lent.call, way, device) as launch:
            HOWS[way.how](device, launch, lent.reset)
        lent.back()

    def prepared(
        self, call: Call, way: Way, device: str
    ) -> Any:  # a context manager that gives what launches the call
        raise NotImplementedError

    def expected_error(self, error: str) -> str:
        """What Refused.status is for a module's exception of that name."""
        raise NotImplementedError

    def excuse(self, call: Call, refused: Refused) -> str:
        """Why it may refuse a call that has nothing wrong; empty if it may not."""
        return ""


class Library(Provider):
    """libmambarun's public functions, with whatever variant MAMBARUN_VARIANT names."""

    fences = True

    def __init__(self, path: str, device: str = "cpu", tight: bool = False) -> None:
        self.device, self.tight = device, tight
        self.lib = ctypes.CDLL(path)
        self.lib.mbr_last_error.restype = ctypes.c_char_p
        self.lib.mbr_status_name.restype = ctypes.c_char_p
        self.lib.mbr_variant_in_use.restype = ctypes.c_char_p

    @property
    def name(self) -> str:  # type: ignore[override]
        """Of the variant that has computed."""
        number = 0 if self.device == "cpu" else int(self.device.partition(":")[2] or 0)
        kind = CPU if self.device == "cpu" else CUDA
        return (self.lib.mbr_variant_in_use(kind, number) or b"none yet").decode()

    def expected_error(self, error: str) -> str:
        return "MBR_E_ARG"

    def excuse(self, call: Call, refused: Refused) -> str:
        may = refused.status in ("MBR_E_UNSUPPORTED", "MBR_E_NO_VARIANT")
        return refused.text if may else ""

    @contextmanager
    def prepared(self, call: Call, way: Way, device: str) -> Iterator[Callable]:
        scratch = self.workspace(call, way, device)
        lent = {}
        if scratch is not None:
            start = scratch.data_ptr() + GUARD
            lent = {"data": start, "size": scratch.numel() - 2 * GUARD}
        function = getattr(self.lib, "mbr_" + call.entry)

        def launch() -> None:
            status = function(params(call, way, lent, **where(device)))
            if status != 0:
                name = self.lib.mbr_status_name(status).decode()
                raise Refused(name, self.lib.mbr_last_error().decode())

        yield launch
        wait(device)
        if scratch is not None:
            for part in (scratch[:GUARD], scratch[-GUARD:]):
                if not (part == POISON).all():
                    raise Complaint("wrote outside its workspace")

    def workspace(self, call: Call, way: Way, device: str) -> Any:
        try:
            ask = getattr(self.lib, "mbr_" + call.entry + "_workspace")
        except AttributeError:
            return None
        ask.restype = ctypes.c_size_t
        size = ask(params(call, way, {}, **where(device))) + 2 * GUARD
        return torch.full((size,), POISON, dtype=torch.uint8, device=device)


def where(device: str) -> dict[str, int]:
    """What mbr_call says about the device; there, torch's current stream."""
    if device == "cpu":
        return {"device_type": CPU}
    stream = torch.cuda.current_stream(device).cuda_stream
    number = int(device.partition(":")[2] or 0)
    return {"device_type": CUDA, "device_id": number, "stream": stream}


class Reference(Provider):
    """The variant "reference": built, never chosen, opened here by name."""

    name = "reference"

    def __init__(self, path: Path, stamp: str) -> None:
        self.lib = ctypes.CDLL(str(path))
        members = re.findall(r"^MBR_(OP|WORKSPACE)\((\w+)\)", ops_def(), re.M)
        names = [
            n + ("_workspace" if kind == "WORKSPACE" else "") for kind, n in members
        ]
        table = (ctypes.c_void_p * (TABLE_HEAD + len(names)))()
        answer = self.lib.mbr_variant_entry(
            stamp.encode(), ctypes.sizeof(table), None, ctypes.byref(table)
        )
        if answer != 0:
            raise ImportError(
                f"{path} is not of the same build as libmambarun: build it again "
                f"({answer} was its answer to the handshake)"
            )
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
        self.functions = {
            name: kind(table[TABLE_HEAD + i]) for i, name in enumerate(names)
        }

    def each_way(self, how: str) -> tuple[Way, ...]:
        return (Way(), Way(same_bits="a second run gives other bits"))

    @contextmanager
    def prepared(self, call: Call, way: Way, device: str) -> Iterator[Callable]:
        def launch() -> None:
            status = self.functions[call.entry](params(call, way, {}))
            if status != 0:
                raise Complaint(f"the reference returned status {status}")

        yield launch

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


def ops_def() -> str:
    """The rows of the private table: installed beside this file, or in the tree."""
    for path in (HERE / "ops.def", HERE.parent / "libmambarun" / "ops" / "ops.def"):
        if path.exists():
            return path.read_text()
    raise ImportError(f"ops.def is not beside {HERE}")


def open_reference() -> Reference:
    """Beside libmambarun.so as a build has it, else beside this file, where it is
    installed. ImportError if it was not built together with the library."""
    import mambarun

    info = mambarun.info()
    for folder in (Path(info["library"]).parent, HERE):
        if (folder / REFERENCE).exists():
            return Reference(folder / REFERENCE, info["stamp"])
    raise ImportError(
        f"{REFERENCE} is neither beside {info['library']} nor in {HERE}: it comes with "
        "the wheel, or from a build with MAMBARUN_TESTS"
    )
