# SPDX-License-Identifier: Apache-2.0
"""_lib.py - finds and opens libmambarun, packs tensors into its params structs, and
turns its statuses into exceptions. Knows no op by name.

Where libmambarun.so is looked for: in MAMBARUN_PATH, then in this package's own `_lib`
folder. A source tree has no `_lib`: point MAMBARUN_PATH at the build's `lib` folder.
It is opened at the first call, never at import.
"""

from __future__ import annotations

import os
import struct
import sys

from . import _dynamo, _say

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    from typing import Any, Callable, Iterator, NoReturn, Sequence

# ---- field rows: the C structs of mambarun.h --------------------------------------
# A row is (name, type); a type is a struct code, perhaps with a count, or rows again.
# Q stands for pointers too. The structs pad explicitly, so offsets are running sums:
# ci/checks/layout.py has the compiler prove that they are C's.

TENSOR = (
    ("data", "Q"),
    ("shape", "4q"),
    ("stride", "4q"),
    ("ndim", "i"),
    ("dtype_code", "B"),
    ("dtype_bits", "B"),
    ("reserved", "H"),
)
CALL = (
    ("struct_size", "I"),
    ("device_type", "i"),
    ("device_id", "i"),
    ("flags", "I"),
    ("stream", "Q"),
    ("threads", "i"),
    ("reserved", "i"),
)
WORKSPACE = (("data", "Q"), ("size", "Q"))

CPU, CUDA = 1, 2  # mbr_call.device_type
DETERMINISTIC = 1  # mbr_call.flags
ALIGNMENT = 64  # of mbr_workspace.data, in bytes

# By name in torch: DLPack's type code and the number of bits. More than any op takes,
# so that the op's own check refuses, with upstream's words.
DTYPES = {
    "float16": (2, 16),
    "float32": (2, 32),
    "float64": (2, 64),
    "bfloat16": (4, 16),
    "complex32": (5, 32),
    "complex64": (5, 64),
    "complex128": (5, 128),
    "int8": (0, 8),
    "int16": (0, 16),
    "int32": (0, 32),
    "int64": (0, 64),
    "uint8": (1, 8),
    "bool": (6, 8),
}


def _fields(rows: Sequence[Any], prefix: str, offset: int) -> Iterator[Any]:
    for name, type_ in rows:
        path = prefix + name
        if not isinstance(type_, str):
            yield from _fields(type_, path + ".", offset)
            offset += _struct(type_).size
            continue
        size = struct.calcsize("=" + type_[-1])
        for i in range(int(type_[:-1] or 1)):
            yield (path if len(type_) == 1 else f"{path}[{i}]"), offset, size
            offset += size


def _struct(rows: Sequence[Any]) -> struct.Struct:
    return struct.Struct("=" + _format(rows))


def _format(rows: Sequence[Any]) -> str:
    return "".join(_code(name, type_) for name, type_ in rows)


def _code(name: str, type_: Any) -> str:
    if type_ is TENSOR:  # its data, and the rest as one piece that recurs: see _Views
        return f"Q{_struct(TENSOR[1:]).size}s"
    if not isinstance(type_, str):
        return _format(type_)
    if name == "reserved":
        return f"{struct.calcsize('=' + type_)}x"
    return type_


class Params:
    """The params struct of one entry point, and the call that takes it.

    op: the entry point without its prefix `mbr_`; its struct is `mbr_<op>_params`.
    rows: ("call", CALL), the TENSOR rows, perhaps ("workspace", WORKSPACE), and 32-bit
    integers, in the order of the C struct.
    tensors: the names of the TENSOR rows, in order.
    """

    def __init__(self, op: str, rows: Sequence[tuple[str, Any]]) -> None:
        self.op = op
        self.rows = rows
        self.tensors = tuple(name for name, type_ in rows if type_ is TENSOR)
        self._struct = _struct(rows)
        self._workspace_at = next(
            (at for path, at, _ in self.fields() if path == "workspace.data"), None
        )
        self._entry: Callable[[bytes], int] | None = None
        self._needed: Callable[[bytes], int] | None = None

    @property
    def size(self) -> int:
        """sizeof the struct."""
        return self._struct.size

    def fields(self) -> Iterator[tuple[str, int, int]]:
        """(path in C, such as `u.shape[2]`; offset; size in bytes) for every field."""
        return _fields(self.rows, "", 0)

    def pack(
        self,
        tensors: dict[str, Any] | Sequence[Any],
        *tail: int,
        device_type: int = CPU,
        device_id: int = 0,
        flags: int = 0,
        stream: int = 0,
        threads: int = 0,
        workspace: tuple[int, int] = (0, 0),
    ) -> bytes:
        """The struct as bytes. They hold addresses: keep the tensors alive.

        tensors: torch tensors or None, by name (absent if not named) or one per name
        of self.tensors in that order. tail: the integers after them, without
        `reserved`. workspace: address and size of the scratch, where the struct has
        one. RuntimeError names a tensor that has no address to give.
        """
        listed = self._by_name(tensors) if isinstance(tensors, dict) else tensors
        wake()
        values = [self.size, device_type, device_id, flags, stream, threads]
        device = next(tensor.device for tensor in listed if tensor is not None)
        self._describe(listed, device, values)
        if self._workspace_at is not None:
            values += workspace
        return self._struct.pack(*values, *tail)

    def __call__(
        self, tensors: Sequence[Any], *tail: int, deterministic: bool | None = None
    ) -> None:
        """Run on the device of the first tensor, on torch's current stream for it.

        Scratch is allocated with torch and dropped after the call. deterministic:
        None asks torch. Raises one of the classes below, by status.
        """
        entry = self._entry or self._open()
        device = tensors[0].device
        where = _devices.get(device) or _meet(device, self.tensors[0])
        if deterministic is None:
            deterministic = torch.are_deterministic_algorithms_enabled()
        values = [
            self._struct.size,
            *where,
            DETERMINISTIC if deterministic else 0,
            0 if where[0] == CPU else torch._C._cuda_getCurrentRawStream(where[1]),
            torch.get_num_threads(),
        ]
        self._describe(tensors, device, values)
        if self._workspace_at is not None:
            values += (0, 0)
        packed = self._struct.pack(*values, *tail)
        if self._needed is not None:
            size = self._needed(packed)  # 0: nothing is needed, or entry refuses
            scratch = torch.empty(size, dtype=torch.uint8, device=device)
            packed = self._lend(packed, scratch.data_ptr(), size)
        status = entry(packed)
        if status:
            raise _error(status, f"{self.tensors[0]} is on {device}: ")

    def _by_name(self, tensors: dict[str, Any]) -> list[Any]:
        unknown = set(tensors) - set(self.tensors)
        if unknown:
            raise KeyError(f"{self.op} has no tensor {', '.join(sorted(unknown))}")
        return [tensors.get(name) for name in self.tensors]

    def _describe(self, tensors: Sequence[Any], device: Any, values: list[Any]) -> None:
        """Append data and view of each tensor to values."""
        index = device.index if device.type == "cuda" else -1
        known = _views.get
        try:
            for tensor in tensors:
                if tensor is None:
                    values += _NONE
                    continue
                if tensor.get_device() != index:
                    raise _Odd
                view = known((tensor.shape, tensor.stride(), tensor.dtype))
                values.append(tensor.data_ptr() or _hollow(tensor))
                values.append(view or _view(tensor))
        except Exception as odd:
            self._refuse(tensors, device, odd)

    def _refuse(self, tensors: Sequence[Any], device: Any, odd: Exception) -> NoReturn:
        """Say which tensor it was; pass on what is not ours to explain."""
        for name, tensor in zip(self.tensors, tensors):
            trouble = None if tensor is None else _trouble(name, tensor, device)
            if trouble:
                raise ArgumentError(trouble) from None
        raise odd

    def _lend(self, packed: bytes, address: int, size: int) -> bytes:
        at = self._workspace_at
        assert at is not None
        return packed[:at] + _LENT.pack(address, size) + packed[at + _LENT.size :]

    def _open(self) -> Callable[[bytes], int]:
        wake()
        if self._workspace_at is not None:
            self._needed = entry(f"mbr_{self.op}_workspace", "size_t")
        self._entry = entry(f"mbr_{self.op}", "int")
        return self._entry


# ---- tensors ----------------------------------------------------------------------

_VIEW = _struct(TENSOR[1:])
_LENT = _struct(WORKSPACE)
_NONE = (0, bytes(_VIEW.size))
_MOST_VIEWS = 4096

torch: Any = None  # set by wake()


class _Odd(Exception):
    """A tensor that cannot be passed; _trouble finds the words."""


# (shape, strides, dtype) -> all of an mbr_tensor but its data, packed. Calls repeat
# their shapes, so that packing a tensor is mostly one lookup here.
_views: dict[Any, bytes] = {}
_devices: dict[Any, tuple[int, int]] = {}


def _view(tensor: Any) -> bytes:
    """A tensor's entry for _views, with the checks that an entry stands for."""
    shape, stride = tensor.shape, tensor.stride()
    kind = DTYPES.get(_name(tensor.dtype))
    if kind is None or len(shape) > 4 or tensor.is_conj() or tensor.is_neg():
        raise _Odd
    pad = (0,) * (4 - len(shape))
    view = _VIEW.pack(*shape, *pad, *stride, *pad, len(shape), *kind)
    # Only complex tensors are lazy conjugates, and only their imaginary parts, whose
    # strides are even, are lazy negatives: such tensors are looked at every time.
    if not tensor.is_complex() and any(step % 2 for step in stride):
        if len(_views) >= _MOST_VIEWS:
            _views.clear()
        _views[shape, stride, tensor.dtype] = view
    return view


def wake() -> Any:
    """Take hold of torch if someone has imported it: whoever has a tensor has."""
    global torch
    torch = sys.modules.get("torch")
    _dynamo.skip_frames()
    return torch


def _meet(device: Any, name: str) -> tuple[int, int]:
    """device_type and device_id of a device's first call."""
    if device.type == "cpu":
        where = (CPU, 0)
        _say.warn(
            "these tensors are on the CPU, so a CPU variant runs them. That is right "
            "but much slower than a GPU. MAMBARUN_TRACE=0 silences this."
        )
    elif device.type == "cuda":
        where = (CUDA, device.index)
    else:
        raise ArgumentError(
            f"{expected(name + '.is_cuda()')}: {name} is on {device}, mambarun runs "
            "on cuda and cpu"
        )
    _devices[device] = where
    return where


def _hollow(tensor: Any) -> int:
    """The data of a tensor whose address is NULL: C takes NULL for an absent one."""
    if tensor.numel() or tensor.is_meta:
        raise _Odd
    return ALIGNMENT  # not NULL, and there is nothing to follow it for


def _trouble(name: str, tensor: Any, device: Any) -> str | None:
    """Why this tensor cannot be passed, or None if it can."""
    if tensor.device != device:
        wanted = "all tensors to be on the same device"
        if device.type == "cuda" and tensor.device.type != "cuda":
            wanted = expected(name + ".is_cuda()")[len("Expected ") :]
        return (
            f"Expected {wanted}: {name} is on {tensor.device}, the first tensor is on "
            f"{device}"
        )
    if _name(tensor.dtype) not in DTYPES:
        return f"{name} must be a plain tensor: {name}.dtype is {tensor.dtype}"
    if tensor.layout is not torch.strided:
        return f"{name} must be a strided tensor: {name}.layout is {tensor.layout}"
    if tensor.dim() > 4:
        return (
            f"{name} has too many dimensions: {name}.ndim is {tensor.dim()}, at most 4"
        )
    if tensor.is_conj() or tensor.is_neg():
        bit = "conj" if tensor.is_conj() else "neg"
        return (
            f"{name} is a lazily computed view: {name}.is_{bit}() is True; pass "
            f"{name}.resolve_{bit}()"
        )
    if tensor.is_meta or (tensor.data_ptr() == 0 and tensor.numel()):
        return f"{name} has no memory: it is on {tensor.device}, numel {tensor.numel()}"
    return None


def _name(dtype: Any) -> str:
    return str(dtype).rpartition(".")[2]


# ---- errors -----------------------------------------------------------------------


class Error(RuntimeError):
    """A call that libmambarun or this package refused. The text says what and why."""


class ArgumentError(Error):
    """MBR_E_ARG: the caller's mistake; the text names the argument."""


class UnsupportedError(Error, NotImplementedError):
    """MBR_E_UNSUPPORTED: right arguments, but no kernel for this combination."""


class NoVariantError(Error):
    """MBR_E_NO_VARIANT: nothing here can run this; the text says why, by variant."""


class CudaError(Error):
    """MBR_E_CUDA: the driver or the launch failed; the text has its words."""


class InternalError(Error):
    """MBR_E_INTERNAL, or a status this package does not know."""


_ERRORS = (ArgumentError, UnsupportedError, NoVariantError, CudaError, InternalError)


def _error(status: int, where: str = "") -> Error:
    """The exception of a status, with this thread's last message. where: what to say
    first if nothing can run there."""
    text = library().mbr_last_error().decode("utf-8", "replace")
    if not 0 < status <= len(_ERRORS):
        return InternalError(f"status {status}: {text}")
    kind = _ERRORS[status - 1]
    return kind(where + text if kind is NoVariantError else text)


def check(status: int) -> None:
    """Raise what a status other than MBR_OK stands for."""
    if status:
        raise _error(status)


def expected(condition: str) -> str:
    """torch's text for a failing check without words of its own."""
    return (
        f"Expected {condition} to be true, but got false.  (Could this error message "
        "be improved?  If so, please report an enhancement request to PyTorch.)"
    )


# ---- the library ------------------------------------------------------------------

_NAME = "libmambarun.so"
_library: ctypes.CDLL | None = None


def find() -> str:
    """Path of libmambarun.so. ImportError, also warned, if there is none."""
    package = sys.modules[__package__].__path__  # an editable install has two folders
    named = os.environ.get("MAMBARUN_PATH")
    folders = [named] if named else []
    folders += [os.path.join(folder, "_lib") for folder in package]
    for folder in folders:
        path = os.path.join(folder, _NAME)
        if os.path.isfile(path):
            return path
    raise _unusable(f"there is no {_NAME} in {' or '.join(folders)}")


def library() -> ctypes.CDLL:
    """libmambarun, opened now if it was not. ImportError, also warned, if it is
    missing or damaged."""
    global _library
    if _library is None:
        import ctypes

        path = find()
        try:
            opened = ctypes.CDLL(path)
            opened.mbr_last_error.restype = ctypes.c_char_p
            opened.mbr_version.restype = ctypes.c_uint32
        except (OSError, AttributeError) as cause:
            raise _unusable(f"{path} cannot be used: {cause}") from cause
        _say.trace(f"opened {path}")
        _library = opened
    return _library


def entry(name: str, result: str) -> Callable[[bytes], int]:
    """The function that takes one pointer to a params struct: result is `int` or
    `size_t`."""
    import ctypes

    try:
        function = getattr(library(), name)
    except AttributeError as cause:
        raise _unusable(f"{find()} is damaged: {cause}") from cause
    function.restype = getattr(ctypes, "c_" + result)
    function.argtypes = [ctypes.c_char_p]
    return function  # type: ignore[no-any-return]


def _unusable(reason: str) -> ImportError:
    """The only ImportError. A guard around an import may swallow it, hence the
    warning."""
    text = f"{reason}\n  run: python -m mambarun --explain MR001"
    _say.warn(text)
    return ImportError(text, name="mambarun")


_dynamo.hide(globals())
