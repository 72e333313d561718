# SPDX-License-Identifier: Apache-2.0
"""_signature.py - upstream's argument lists as data, and pybind11's way of taking and
refusing arguments: by position only, each list tried in order. Knows no op by name.
"""

from __future__ import annotations

from . import _dynamo, _lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Sequence

_KINDS = {  # suffix of a name in an argument list -> what pybind11 calls the type
    "": "torch.Tensor",
    "?": "Optional[torch.Tensor]",
    ":b": "bool",
    ":i": "int",
}
_EXACT: dict[str, Any] = {":b": bool, ":i": int}
_MOST_CALLS = 256


class Signature:
    """One argument list that upstream had at some time.

    names: the arguments, separated by blanks; `name?` is a tensor or None, `name:b` a
    bool, `name:i` an int, any other a tensor. returns: the type of the result, in
    pybind11's words. function: gets the arguments by position.
    """

    def __init__(self, names: str, returns: str, function: Callable[..., Any]) -> None:
        words = names.split()
        self.names = [word.rstrip("?").partition(":")[0] for word in words]
        self.kinds = [word[len(name) :] for word, name in zip(words, self.names)]
        self.returns = returns
        self.function = function

    def __str__(self) -> str:
        types = (_KINDS[kind] for kind in self.kinds)
        listed = ", ".join(f"arg{i}: {type_}" for i, type_ in enumerate(types))
        return f"({listed}) -> {self.returns}"

    def mismatch(self, types: Sequence[type]) -> str | None:
        """Why arguments of these types do not fit, or None if they do."""
        if len(types) != len(self.names):
            return f"{len(types)} arguments given, {len(self.names)} wanted"
        for i, (name, kind, type_) in enumerate(zip(self.names, self.kinds, types)):
            if not _accepts(kind, type_):
                return f"arg{i} ({name}) must be {_KINDS[kind]}, not {type_.__name__}"
        return None

    def target(self, types: Sequence[type]) -> Callable[..., Any]:
        """What to call with arguments of these types, which fit."""
        flags = [(k, t) for k, t in zip(self.kinds, types) if k in _EXACT]
        exact = all(type_ is _EXACT[kind] for kind, type_ in flags)
        return self.function if exact else self._converting

    def _converting(self, *args: Any) -> Any:
        values = (
            _EXACT[kind](arg) if kind in _EXACT else arg
            for kind, arg in zip(self.kinds, args)
        )
        return self.function(*values)


class Overloads:
    """A function of upstream's with all of its argument lists; the first that fits is
    taken. What fits is remembered by the types, so that a usual call costs one lookup.
    """

    def __init__(self, name: str, *signatures: Signature) -> None:
        self.name = name
        self.signatures = signatures
        self._targets: dict[tuple[type, ...], Callable[..., Any]] = {}

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        target = self._targets.get(tuple(map(type, args)))
        if target is None or kwargs:
            target = self._resolve(args, kwargs)
        return target(*args)

    def _resolve(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[..., Any]:
        types = tuple(map(type, args))
        signature = next((s for s in self.signatures if not s.mismatch(types)), None)
        if kwargs or signature is None:
            raise TypeError(self._refusal(args, kwargs))
        _lib.wake()
        if len(self._targets) >= _MOST_CALLS:
            self._targets.clear()
        self._targets[types] = signature.target(types)
        return self._targets[types]

    def _refusal(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        listed = "".join(f"    {i}. {s}\n" for i, s in enumerate(self.signatures, 1))
        invoked = ", ".join(map(repr, args))
        if kwargs:
            named = ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
            invoked += ("; " if args else "") + f"kwargs: {named}"
        return (
            f"{self.name}(): incompatible function arguments. The following argument "
            f"types are supported:\n{listed}\nInvoked with: {invoked}\n"
            f"mambarun: {self._reason(args, kwargs)}"
        )

    def _reason(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        if kwargs:
            return f"arguments are positional only; {', '.join(kwargs)} came by name"
        counts = [len(s.names) for s in self.signatures]
        if len(args) not in counts:
            wanted = ", ".join(map(str, sorted(set(counts))))
            return f"{len(args)} arguments given, {self.name} takes {wanted}"
        types = tuple(map(type, args))
        near = (s for s in self.signatures if len(s.names) == len(args))
        return " or ".join(str(s.mismatch(types)) for s in near)


def _accepts(kind: str, type_: type) -> bool:
    if kind == ":b":  # as pybind11: whatever has a truth value slot of its own
        return hasattr(type_, "__bool__")
    if kind == ":i":
        return hasattr(type_, "__index__")
    if kind == "?" and type_ is type(None):
        return True
    torch = _lib.wake()
    return torch is not None and issubclass(type_, torch.Tensor)


_dynamo.hide(globals())
