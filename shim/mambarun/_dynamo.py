# SPDX-License-Identifier: Apache-2.0
"""_dynamo.py - keeps torch.compile from tracing into this package, without importing
torch or its compiler.

Two marks, the ones that torch._dynamo.skip sets: an attribute on the function, which
the compiler reads before it inlines a call (a graph break then, as at upstream's
builtins), and a flag on the code object, which its frame hook reads before it compiles
a frame. The first needs nothing and is set at import. The second needs torch's C
module; it is set as soon as torch is there, at the latest by our first call.
"""

from __future__ import annotations

import sys
from types import CodeType, FunctionType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterator, Mapping


def hide(namespace: Mapping[str, Any]) -> None:
    """Mark every function of a module, given as its globals()."""
    for function in _functions(namespace, namespace["__name__"]):
        function._torchdynamo_disable = True  # type: ignore[attr-defined]
        function._torchdynamo_disable_msg = "calls libmambarun through ctypes"  # type: ignore[attr-defined]
    skip_frames()


def skip_frames() -> None:
    """Mark the code objects of all of this package's functions, if torch is there."""
    skip = _skipper()
    if skip is None:
        return
    for name, module in list(sys.modules.items()):
        if name.startswith("mambarun."):
            for function in _functions(vars(module), name):
                skip(function.__code__)


def _functions(namespace: Mapping[str, Any], module: str) -> Iterator[FunctionType]:
    for value in list(namespace.values()):
        if getattr(value, "__module__", None) != module:
            continue
        if isinstance(value, FunctionType):
            yield value
        elif isinstance(value, type):
            yield from _functions(vars(value), module)


def _skipper() -> Callable[[CodeType], None] | None:
    torch = sys.modules.get("torch")
    compiler: Any = getattr(getattr(torch, "_C", None), "_dynamo", None)
    frames: Any = getattr(compiler, "eval_frame", None)
    if not hasattr(frames, "set_code_exec_strategy"):  # before torch 2.7
        return getattr(frames, "skip_code", None)  # None: torch 1, or no torch
    action = frames._FrameAction.SKIP
    strategy = frames._FrameExecStrategy(action, action)
    return lambda code: frames.set_code_exec_strategy(code, strategy)
