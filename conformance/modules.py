# SPDX-License-Identifier: Apache-2.0
"""A compiled module as a provider: its functions, of whatever generation, called by
position with torch's tensors. Which argument lists exist stands in ops/<op>/modules.py,
and where the originals are known to deviate in ops/<op>/known.py."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Callable, Iterator, Sequence

import torch

from .arrays import CONTIGUOUS, Array
from .calling import Complaint, Lost, Unsupported, wait
from .providers import (
    DETERMINISTIC,
    Call,
    Plain,
    Provider,
    Refused,
    Way,
    rooms,
)


@dataclass(frozen=True)
class Form:
    """One argument list that a function of a module had at some time.

    entry    the entry point of libmambarun that means the same
    names    the arguments: those of the params struct; `name?` may be None, `name:b`
             and `name:i` are no tensors
    results  of a Call -> the outputs that come back, in order, None for each None;
             None: nothing comes back, a str: a single tensor
    like     output that comes back new -> the argument whose strides it takes over as
             torch.empty_like does; "": contiguous
    extra    argument that no struct has -> its value, of a Call
    drop     argument or output -> the axis of length 1 that it lacks
    adds     outputs that it adds to; zeroed first where the call does not want that
    lacks    of a Call -> why it cannot be said with this list, or ""
    since    the releases that have it
    """

    module: str
    function: str
    entry: str
    names: str
    results: Callable[[Call], list[str | None] | str | None]
    since: str
    like: dict[str, str] = field(default_factory=dict)
    extra: dict[str, Callable[[Call], Any]] = field(default_factory=dict)
    drop: dict[str, int] = field(default_factory=dict)
    adds: tuple[str, ...] = ()
    lacks: Callable[[Call], str] = lambda call: ""
    mark: str = ""  # where two lists have the same number of arguments

    @property
    def arguments(self) -> list[str]:
        return [re.sub(r"[?:].*", "", word) for word in self.names.split()]

    @property
    def required(self) -> list[str]:
        return [word for word in self.names.split() if re.fullmatch(r"\w+", word)]

    @property
    def id(self) -> str:
        return f"{self.module}.{self.function}/{len(self.arguments)}{self.mark}"

    def returned(self, call: Call) -> list[str | None]:
        names = self.results(call)
        return [names] if isinstance(names, str) else names or []

    def why_not(self, call: Call) -> str:
        """Why the call cannot be said with this list, or an empty string."""
        known = {*self.arguments, *self.returned(call)}
        if self.adds:
            known.add("accumulate")
        for name in (*call.arrays(), *call.scalars):
            value = call.scalars.get(name, 1)
            if name not in known and value:
                return f"{self.id} has no {name}"
        for name, array in call.arrays().items():
            if min(array.strides, default=0) < 0:
                return "torch has no negative strides"
            axis = self.drop.get(name)
            if axis is not None and array.shape[axis : axis + 1] != (1,):
                return f"{self.id} has no axis {axis} of {name}"
        for name in self.required:
            if name not in call.arrays() and name not in self.extra:
                return f"{self.id} needs {name}"
        return self.lacks(call)


@dataclass(frozen=True)
class Known:
    """A deviation from what mambarun promises, with its cause. modules: the names of
    those that deviate if others than mambarun supply them.

    does   "refuses": such a call, though nothing is wrong with it;
           "words": refuses it, as it should, in other words;
           "accepts": such a call, which should be refused;
           "not asked": it would read or write where it may not;
           "differs": in these outputs; "repeats": other bits each time
    when   of a Call; outputs: those that differ, empty for all
    within "upstream": the difference keeps to the tolerance of upstream's own tests;
           "nan": NaN where there should be an infinity; "": it may be anything
    """

    modules: tuple[str, ...]
    does: str
    cause: str
    when: Callable[[Call], bool]
    outputs: tuple[str, ...] = ()
    within: str = ""


@functools.lru_cache(None)
def _rows(table: str, attribute: str) -> tuple[Any, ...]:
    found: list[Any] = []
    for room in rooms():
        module = importlib.import_module(f"{__package__}.ops.{room}.{table}")
        found += getattr(module, attribute)
    return tuple(found)


def forms() -> tuple[Form, ...]:
    return _rows("modules", "FORMS")


def known() -> tuple[Known, ...]:
    return _rows("known", "KNOWN")


def interfaces() -> list[str]:
    """The names of modules whose argument lists are known."""
    return list(dict.fromkeys(form.module for form in forms()))


# ---- strides and alignment, for the tables ------------------------------------------


def lies_dense(array: Array, axis: int) -> bool:
    """Neighbours along the axis lie side by side, or there is only one."""
    return array.strides[axis] == 1 or array.shape[axis] == 1


def aligned(array: Array, size: int = 16) -> bool:
    """Its first element, and each row after it, begins at a multiple of size bytes."""
    width = array.flat().element_size()
    rows = [s for n, s in zip(array.shape, array.strides) if n > 1 and s != 1]
    return not any(v * width % size for v in (array.first, *rows))


# ---- the provider -------------------------------------------------------------------


class Modules(Provider):
    """Functions of one module. ours: mambarun supplies it, so that it must do
    everything; of others, `known` tells what they do not."""

    def __init__(
        self,
        module: ModuleType,
        interface: str,
        device: str = "cpu",
        tight: bool = False,
        ours: bool = False,
    ) -> None:
        self.module, self.interface = module, interface
        self.device, self.tight, self.ours = device, tight, ours
        self.name = module.__name__
        self.forms = [f for f in forms() if f.module == interface and self.has(f)]
        self.known_as = () if ours else (interface,)

    def has(self, form: Form) -> bool:
        """pybind11 writes its argument lists into the docstring; where there is none,
        all that the interface ever had are taken to be there."""
        function = getattr(self.module, form.function, None)
        if function is None:
            return False
        lists = [
            len(re.findall(r"\barg\d+\s*:", line))
            for line in (function.__doc__ or "").splitlines()
            if "arg0" in line and "->" in line
        ]
        return not lists or len(form.arguments) in lists

    def each_way(self, how: str) -> tuple[Way, ...]:
        if self.ours or how == "deterministic":
            return super().each_way(how)
        return (Way(), Way())

    def expected_error(self, error: str) -> str:
        return error

    def form(self, call: Call, signature: str = "") -> Form:
        """The newest list that can say the call. Unsupported tells why it cannot, if
        none can."""
        wanted = [f for f in self.forms if f.entry == call.entry]
        if signature:
            wanted = [f for f in wanted if f.id == signature]
        reasons = []
        for form in wanted:
            reason = form.why_not(call)
            if not reason:
                return form
            reasons.append(reason)
        nothing = f"{self.interface} has no {signature or call.entry}"
        raise Unsupported(reasons[0] if reasons else nothing)

    def run(self, call: Any, way: Way = Way()) -> None:  # noqa: B008
        if isinstance(call, Plain):
            self.run_plain(call)
            return
        super().run(call, way)

    def run_plain(self, plain: Plain) -> None:
        function = getattr(self.module, plain.function)
        args = [
            tensor(a, a.buffer.to(self.device)) if isinstance(a, Array) else a
            for a in plain.args
        ]
        with translated(self.device):
            function(*args, **plain.kwargs)

    @contextmanager
    def prepared(self, call: Call, way: Way, device: str) -> Iterator[Callable]:
        form = self.form(call, way.signature)
        function = getattr(self.module, form.function)
        args = {name: self.argument(form, call, name) for name in form.arguments}
        fresh = () if call.scalars.get("accumulate") else form.adds
        added_to = [args[name] for name in fresh if args[name] is not None]
        results: list[Any] = []
        poison(call, device)

        def launch() -> None:
            before = [sum_.clone() for sum_ in added_to]
            for sum_ in added_to:
                sum_.zero_()
            try:
                with asked(way, device), translated(device):
                    results[:] = [function(*args.values())]
            except Refused:  # then it may not have touched them
                for sum_, bits in zip(added_to, before):
                    if not sum_.any():
                        sum_.copy_(bits)
                raise

        yield launch
        wait(device)
        self.take(form, call, args, results[0])

    def argument(self, form: Form, call: Call, name: str) -> Any:
        if name in form.extra:
            return form.extra[name](call)
        if name in call.scalars:
            return bool(call.scalars[name])
        array = call.arrays().get(name)
        if array is None or (name in form.returned(call) and made(form, call, name)):
            return None
        given = tensor(array, array.buffer)
        return given.squeeze(form.drop[name]) if name in form.drop else given

    def take(self, form: Form, call: Call, args: dict[str, Any], got: Any) -> None:
        """What came back, into the outputs of the call."""
        names = form.results(call)
        if names is None or isinstance(names, str):
            got = [got]
            names = [names]
        elif not isinstance(got, (list, tuple)) or len(got) != len(names):
            raise Complaint(f"returned {describe(got)}, not a list of {len(names)}")
        for place, (name, value) in enumerate(zip(names, got)):
            what = name or f"result {place}"
            if name is None or name not in call.outputs:
                if name is None and value is not None:
                    raise Complaint(f"{what} is {describe(value)}, not None")
                continue
            array = call.outputs[name]
            if args.get(name) is not None:
                if value is not args[name]:
                    raise Complaint(f"{what} is not the tensor that was given for it")
                continue
            check_result(form, call, what, value, array)
            if name in form.drop:
                value = value.unsqueeze(form.drop[name])
            array.fill(value.to(array.buffer.device))


def made(form: Form, call: Call, name: str) -> bool:
    """Whether the function may make an output itself that it may also be given: one
    that is as it would make it, in no place of its own."""
    array, model = call.outputs[name], call.arrays()[form.like[name]]
    as_made = (array.shape, array.dtype) == (model.shape, model.dtype)
    inputs = (a.buffer.data_ptr() for a in call.inputs.values())
    alone = array.layout == CONTIGUOUS and array.buffer.data_ptr() not in inputs
    return as_made and alone


def check_result(form: Form, call: Call, name: str, value: Any, array: Array) -> None:
    """Shape, dtype and strides of a tensor that came back new."""
    shape, gone = list(array.shape), form.drop.get(name)
    if gone is not None:
        del shape[gone]
    if not isinstance(value, torch.Tensor):
        raise Complaint(f"{name} is {describe(value)}, not a tensor")
    if list(value.shape) != shape or value.dtype != array.dtype:
        wanted = f"{array.dtype} of shape {tuple(shape)}"
        raise Complaint(f"{name} is {describe(value)}, not {wanted}")
    like = form.like.get(name)
    if like is None:
        return
    model = torch.empty(shape, dtype=array.dtype)
    if like:
        source = call.arrays()[like]
        model = torch.empty_like(tensor(source, source.buffer.cpu()))
    strides = [s for s, n in zip(value.stride(), shape) if n > 1]
    if strides != [s for s, n in zip(model.stride(), model.shape) if n > 1]:
        wanted = f"{model.stride()}, as empty_like({like}) has" if like else "dense"
        raise Complaint(f"{name} has strides {value.stride()}, not {wanted}")


def describe(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    return repr(value)[:80]


def tensor(array: Array, buffer: torch.Tensor) -> torch.Tensor:
    """The array as torch sees it, in a copy of its buffer."""
    return torch.as_strided(
        buffer.view(array.dtype), array.shape, array.strides, array.first
    )


def poison(call: Call, device: str) -> None:
    """Memory that torch hands out next holds NaN, where that is to be had: what a
    function allocates and does not write is then seen."""
    blocks = [
        torch.full((max(a.index.numel(), 1),), float("nan"), device=device).to(a.dtype)
        for a in call.outputs.values()
        if a.dtype.is_floating_point or a.dtype.is_complex
    ]
    del blocks


@contextmanager
def asked(way: Way, device: str) -> Iterator[None]:
    """torch's own switches, as the way wants them; put back afterwards."""
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    torch.use_deterministic_algorithms(bool(way.flags & DETERMINISTIC))
    torch.set_num_threads(way.threads)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.set_num_threads(before[1])


#: what a caller may tell apart: the first of these that an exception is
ERRORS = (TypeError, IndexError, ValueError, RuntimeError, Exception)


@contextmanager
def translated(device: str) -> Iterator[None]:
    """A module's exception as Refused, or as Lost if the device is gone with it."""
    try:
        yield
    except Exception as error:
        if device != "cpu" and "CUDA error" in str(error):
            gone(device, error)
        status = next(e.__name__ for e in ERRORS if isinstance(error, e))
        raise Refused(status, str(error)) from None


def gone(device: str, error: Exception) -> None:
    """Lost, if even waiting for the device fails."""
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        raise Lost(str(error).partition("\n")[0]) from None


# ---- finding one --------------------------------------------------------------------


def open_module(kind: str, name: str) -> ModuleType:
    """kind "module": by its name, as an import finds it; "file": from a path, a shared
    library or a Python file. ImportError says what is wrong."""
    try:
        return importlib.import_module(name) if kind == "module" else _load(name)
    except ImportError:
        raise
    except Exception as error:  # of a Python file
        raise ImportError(f"{name}: {type(error).__name__}: {error}") from error


def _load(name: str) -> ModuleType:
    stem = re.split(r"[/\\]", name)[-1].partition(".")[0]
    spec = importlib.util.spec_from_file_location(stem, name)
    if spec is None or spec.loader is None:
        raise ImportError(f"{name} is neither a shared library nor a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def supplied_by_mambarun(module: ModuleType) -> bool:
    """Whether a function of it is one of the shim's."""
    functions: Sequence[Any] = [v for v in vars(module).values() if callable(v)]
    return any(
        getattr(f, "__module__", "").startswith("mambarun.ops.") for f in functions
    )
