# SPDX-License-Identifier: Apache-2.0
"""_hook.py - which module a promised name gets. One rule, two doors: the finder of
__init__.py, first on sys.meta_path, asks `find_spec`; the stand-in packages ask `ours`
in their first statement.

The rule: a name in MAMBARUN_DISABLE is none of our business; MAMBARUN_PREFER=ours or a
MAMBARUN_VARIANT means ours; otherwise another module of that name is left alone if it
loads, and ours takes its place if it does not. Nothing is loaded only to find out: what
loads is the module that the importer gets.
"""

from __future__ import annotations

import os
import sys
from _thread import get_ident
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ModuleSpec,
    PathFinder,
)
from importlib.util import module_from_spec, spec_from_file_location

from . import PROMISED, Finder, _say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any, Iterator

_failures: dict[str, str] = {}  # name -> how the other module of that name failed
_settled: set[str] = set()  # names whose stand-in file runs because the other failed
_searching: set[tuple[str, int]] = set()  # (name, thread): see _other


def find_spec(name: str) -> ModuleSpec | None:
    """Door one: a spec for a promised name, None for a disabled one."""
    if disabled(name):
        return None
    standin = _standin(name)
    if standin is None or preferred():
        return standin
    other = _other(name)
    return standin if other is None else _either(other, standin)


def ours(name: str) -> bool:
    """Door two: whether the stand-in that asks is to be the module. If not, another
    module has taken its place in sys.modules.

    ImportError, also warned, if it is, but libmambarun is missing. ModuleNotFoundError
    if the name is disabled and nothing else supplies it.
    """
    if name in _settled:
        _settled.discard(name)
    elif disabled(name):
        _load(_other(name) or _nothing(name))
        return False
    elif not preferred():
        other = _other(name)
        if other is not None and _loads(other):
            return False
    from . import _lib

    _lib.find()
    _say.trace(f"{name}: supplied by mambarun: {_reason(name, True, True)}")
    return True


def disabled(name: str) -> bool:
    """Whether MAMBARUN_DISABLE is 1 or lists the name."""
    value = os.environ.get("MAMBARUN_DISABLE", "")
    return value.strip() == "1" or name in value.replace(" ", "").split(",")


def preferred() -> bool:
    """Whether the environment asks for ours even beside a working other module."""
    preference = os.environ.get("MAMBARUN_PREFER")
    return preference == "ours" or bool(os.environ.get("MAMBARUN_VARIANT"))


def which(name: str) -> dict[str, Any]:
    """Who supplies a promised name, without importing it.

    name; supplier: "mambarun", "other" or None; path: the file, or None; loaded:
    whether it is in sys.modules, else this is what an import would try first; reason:
    one sentence. ValueError if the name is not one of ours.
    """
    if name not in PROMISED:
        raise ValueError(f"{name!r} is not one of {', '.join(PROMISED)}")
    module = sys.modules.get(name)
    if module is not None:
        path = getattr(module, "__file__", None)
    else:
        spec = find_spec(name) or _other(name)
        path = spec and spec.origin
    found = module is not None or path is not None
    mine = found and _is_standin(path)
    return {
        "name": name,
        "supplier": "mambarun" if mine else "other" if found else None,
        "path": path,
        "loaded": module is not None,
        "reason": _reason(name, mine, found),
    }


def _reason(name: str, mine: bool, found: bool) -> str:
    if disabled(name):
        return "MAMBARUN_DISABLE leaves this name alone"
    if not mine:
        return "a module of that name is installed" if found else "nothing supplies it"
    if name in _failures:
        return f"the other module of that name fails: {_failures[name]}"
    if preferred():
        return "MAMBARUN_PREFER or MAMBARUN_VARIANT asks for it"
    return "there is no other module of that name"


# ---- specs ------------------------------------------------------------------------


def _standin(name: str) -> ModuleSpec | None:
    """Our own package of that name: beside this one, or in a source tree's standins."""
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for root in (home, os.path.join(home, "standins")):
        folder = os.path.join(root, name)
        file = os.path.join(folder, "__init__.py")
        if os.path.isfile(file):
            return spec_from_file_location(
                name, file, submodule_search_locations=[folder]
            )
    return None


def _is_standin(path: str | None) -> bool:
    """Whether the file is a stand-in of this or of another copy of mambarun."""
    if os.path.basename(path or "") != "__init__.py" or not os.path.isfile(path or ""):
        return False
    with open(path or "", "rb") as file:
        return b"from mambarun import _hook" in file.read()


def _other(name: str) -> ModuleSpec | None:
    """The module that an import would find if mambarun were not installed."""
    key = name, get_ident()
    if key in _searching:  # a finder asks all finders, and so us, for advice
        return None
    _searching.add(key)
    try:
        return next(_others(name), None)
    finally:
        _searching.discard(key)


def _others(name: str) -> Iterator[ModuleSpec]:
    for finder in list(sys.meta_path):
        if finder is Finder or not hasattr(finder, "find_spec"):
            continue
        for path in _paths(finder):
            spec = finder.find_spec(name, path)
            if spec is None or spec.loader is None:  # a folder without __init__.py
                continue
            if _is_standin(spec.origin):
                yield from _beside(spec)
            else:
                yield spec


def _paths(finder: Any) -> list[Any]:
    """sys.path entry by entry where that is what the finder searches, so that an
    entry with a stand-in does not hide those after it."""
    return [[entry] for entry in sys.path] if finder is PathFinder else [None]


def _beside(standin: ModuleSpec) -> Iterator[ModuleSpec]:
    """Files that the stand-in's folder hides from the import system."""
    folder = os.path.dirname(standin.origin or "")
    for suffix in EXTENSION_SUFFIXES + SOURCE_SUFFIXES:
        if os.path.isfile(folder + suffix):
            spec = spec_from_file_location(standin.name, folder + suffix)
            if spec is not None:
                yield spec


def _nothing(name: str) -> ModuleSpec:
    raise ModuleNotFoundError(
        f"No module named {name!r}: MAMBARUN_DISABLE turns mambarun's off, and there "
        "is no other",
        name=name,
    )


# ---- loading ----------------------------------------------------------------------


def _load(spec: Any) -> None:
    """Make the spec's module sys.modules' module of its name."""
    before = sys.modules.get(spec.name)
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        if before is None:
            del sys.modules[spec.name]
        else:
            sys.modules[spec.name] = before
        raise
    _leave(spec)


def _leave(spec: ModuleSpec) -> None:
    _say.trace(f"{spec.name}: left to {spec.origin}")


def _loads(spec: ModuleSpec) -> bool:
    try:
        _load(spec)
    except Exception as cause:
        _record(spec, cause)
        return False
    return True


def _record(spec: ModuleSpec, cause: Exception) -> None:
    """Keep and warn why another module gives way to ours."""
    text = f"{type(cause).__name__}: {cause}"
    if "torch" not in sys.modules and ("libc10" in text or "libtorch" in text):
        text += " (torch was not imported before it)"
    _failures[spec.name] = f"{spec.origin}: {text}"
    _say.warn(
        f"{spec.name}: {spec.origin} does not load, mambarun takes its place ({text})\n"
        "  run: python -m mambarun --explain MR302"
    )


def _either(other: ModuleSpec, standin: ModuleSpec) -> ModuleSpec:
    """A spec that is the other module if it loads, else the stand-in."""
    loader: Any = _Either(other, standin)
    return ModuleSpec(other.name, loader, origin=other.origin)


class _Either:
    """The loader of _either. Whichever file becomes the module, the module has that
    file's own spec in the end, as if nobody had stood in between."""

    def __init__(self, other: Any, standin: Any) -> None:
        self.other = self.chosen = other
        self.standin = standin

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        try:
            return module_from_spec(self.other)
        except Exception as cause:
            _record(self.other, cause)
            self.chosen = self.standin
            return module_from_spec(self.standin)

    def exec_module(self, module: Any) -> None:
        module.__spec__ = self.chosen  # the import system has put _either's there
        if self.chosen is self.other:
            try:
                self.other.loader.exec_module(module)
                return _leave(self.other)
            except Exception as cause:
                _record(self.other, cause)
                _become(module, self.standin)
        _settled.add(self.standin.name)
        self.standin.loader.exec_module(module)


def _become(module: Any, spec: ModuleSpec) -> None:
    """Undo what a failed file left in a module, and dress it for another."""
    for name in [n for n in vars(module) if not n.startswith("__")]:
        delattr(module, name)
    module.__spec__ = spec
    module.__loader__ = spec.loader
    module.__file__ = spec.origin
    module.__path__ = spec.submodule_search_locations
    module.__package__ = spec.parent
