# SPDX-License-Identifier: Apache-2.0
"""trial.py - the part of the child process that uses torch: imports every module as a
program does, calls each forward and backward on one device, and says what came out.
run.py starts it and judges.
"""

from __future__ import annotations

import base64
import os
import sys
import time
import traceback
from importlib import import_module
from typing import NamedTuple

from .. import PROMISED, _hook, _info, install
from .._probe import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

BATCH, DIM, LENGTH, STATES, WIDTH = 2, 16, 67, 8, 4  # odd length: no vector divides it
BENCH_GPU = (8, 1536, 2048, 16)  # batch, dim, length, states: Mamba-370m's
BENCH_CPU = (2, 1024, 4096, 16)
REPEATS = 5
FORK_LIMIT = 60.0  # seconds
MOST_TRACE = 12  # lines of a traceback


class Case(NamedTuple):
    """What a trial varies."""

    name: str
    dtype: str = "float32"
    strided: bool = False  # channels next to each other, as transformers passes them
    variable: bool = True  # B and C depend on time
    stream: bool = False  # on a stream of its own


CASES = (
    Case("float32"),
    Case("float16", "float16"),
    Case("bfloat16", "bfloat16"),
    Case("strided", strided=True),
    Case("stream", stream=True),
    Case("constant B, C", variable=False),
)


def main(task: dict[str, Any]) -> None:
    """Says: torch: version; or error, trace. import/NAME: file, ours; or error, trace.
    fork: {} or error. load/DEVICE: device, variant, seconds, build; or error.
    result/N: module, call, case, device, seconds and outputs (float32 in base64); or
    error. bench/N: module, call, seconds, share (of the speed of a copy). All in the
    order of doing it; task is run.py's.
    """
    say(stage="import torch")
    try:
        torch = import_module("torch")
    except BaseException:
        say(torch={"error": _last_line(), "trace": _trace()})
        return
    say(torch={"version": torch.__version__})
    if task["install"]:
        install()
    modules = _modules()
    if task["fork"]:
        say(stage="fork")
        say(fork=_fork(torch, modules, task["device"]))
    for device in task["devices"]:
        _trials(torch, modules, device)
    if task["bench"]:
        _bench(torch, modules, task["device"])
    say(stage="done")


def _modules() -> dict[str, Any]:
    """Those of mambarun; another supplier's arguments need not be these."""
    found = {}
    for name in PROMISED:
        say(stage=f"import {name}")
        try:
            module = import_module(name)
        except BaseException:
            say(**{f"import/{name}": {"error": _last_line(), "trace": _trace()}})
            continue
        file = getattr(module, "__file__", None)
        ours = _hook._is_standin(file)
        say(**{f"import/{name}": {"file": file, "ours": ours}})
        if ours:
            found[name] = module
    return found


def _last_line() -> str:
    return f"{sys.exc_info()[0].__name__}: {sys.exc_info()[1]}"  # type: ignore[union-attr]


def _trace() -> list[str]:
    return traceback.format_exc().strip().splitlines()[-MOST_TRACE:]


# ---- calls ------------------------------------------------------------------------


def calls(torch: Any, name: str, module: Any, t: dict[str, Any]) -> dict[str, Any]:
    """call's name -> what makes it and returns its tensors."""
    if hasattr(module, "fwd"):
        return _scans(name, module, t)
    return _convolutions(torch, module, t)


def _scans(name: str, module: Any, t: dict[str, Any]) -> dict[str, Any]:
    plain = [t[n] for n in ("u", "delta", "A", "B", "C", "D")]
    if name == "selective_scan_cuda":
        forward = (*plain, t["z"], t["bias"], True)
        out, x, _ = module.fwd(*forward)
        backward = (*forward[:-1], t["dout"], x, out, None, True, False)
    else:
        if name == "selective_scan_cuda_ndstate":
            plain[2:5] = t["A"][:, 0], t["B"][:, :, 0], t["C"][:, :, 0]
        more = (1, False) if name == "selective_scan_cuda_oflex" else (1,)
        forward = (*plain, t["bias"], True, *more)
        x = module.fwd(*forward)[1]
        backward = (*forward[:7], t["dout"], x, True, 1)
    return {
        "fwd": lambda: module.fwd(*forward),
        "bwd": lambda: module.bwd(*backward),
    }


def _convolutions(torch: Any, module: Any, t: dict[str, Any]) -> dict[str, Any]:
    """The argument lists of 1.5.1 and later: they write what they are given."""
    x, weight, bias, dout, state = (t[n] for n in ("u", "W", "Wb", "dout", "state"))

    def fwd() -> tuple[Any, ...]:
        out = torch.empty_like(x)
        module.causal_conv1d_fwd(x, weight, bias, None, None, out, None, True)
        return (out,)

    def bwd() -> tuple[Any, ...]:
        dx = torch.empty_like(x)
        dw, db = torch.zeros_like(weight), torch.zeros_like(bias)
        none = (None, None, None)
        module.causal_conv1d_bwd(x, weight, bias, dout, *none, dx, dw, db, None, True)
        return dx, dw, db

    def update() -> tuple[Any, ...]:
        shifted, column = state.clone(), x[:, :, :1].contiguous()
        out = torch.empty_like(column)
        module.causal_conv1d_update(
            column, shifted, weight, bias, out, True, None, None
        )
        return out, shifted

    return {"fwd": fwd, "bwd": bwd, "update": update}


def arguments(
    torch: Any, case: Case, device: str, sizes: tuple[int, ...]
) -> dict[str, Any]:
    """Every tensor that a call may want: the same numbers on every device."""
    batch, dim, length, states = sizes
    dtype = getattr(torch, case.dtype)
    numbers = torch.Generator().manual_seed(6)

    def normal(*shape: int) -> Any:
        return torch.randn(shape, generator=numbers)

    def row(*shape: int) -> Any:
        value = normal(*shape).to(dtype).to(device)
        if not case.strided:
            return value
        return value.transpose(1, 2).contiguous().transpose(1, 2)

    def matrix() -> Any:
        if case.variable:
            return normal(batch, 1, states, length).to(dtype).to(device)
        return normal(dim, states).to(device)

    return {
        "u": row(batch, dim, length),
        "delta": row(batch, dim, length),
        "z": row(batch, dim, length),
        "dout": row(batch, dim, length),
        "A": -torch.exp(normal(dim, states)).to(device),
        "B": matrix(),
        "C": matrix(),
        "D": normal(dim).to(device),
        "bias": normal(dim).to(device),
        "W": normal(dim, WIDTH).to(dtype).to(device),
        "Wb": normal(dim).to(dtype).to(device),
        "state": normal(batch, dim, WIDTH).to(dtype).to(device),
    }


# ---- trials -----------------------------------------------------------------------


def _load(device: str) -> dict[str, Any]:
    """How long the kernels took to be loaded, or compiled where they are PTX."""
    begin = time.perf_counter()
    try:
        variant = _info.preload(device)
    except (RuntimeError, ImportError):  # every call will say it again, and be judged
        return {"device": device, "error": _last_line()}
    seconds = time.perf_counter() - begin
    build = next(v["build"] for v in _info.variants(device) if v["name"] == variant)
    return {"device": device, "variant": variant, "seconds": seconds, "build": build}


def _trials(torch: Any, modules: dict[str, Any], device: str) -> None:
    say(stage=f"kernels for {device}")
    say(**{f"load/{device}": _load(device)})
    number = 0
    for name, module in modules.items():
        for case in CASES:
            if not _applies(name, case, device):
                continue
            say(stage=f"{name}, {case.name} on {device}")
            for result in _results(torch, name, module, case, device):
                say(**{f"result/{device}/{number}": result})
                number += 1


def _applies(name: str, case: Case, device: str) -> bool:
    if case.stream:
        return device != "cpu"
    return case.variable or name == "selective_scan_cuda"


def _results(torch: Any, name: str, module: Any, case: Case, device: str) -> Any:
    head = {"module": name, "case": case.name, "device": device}
    sizes = (BATCH, DIM, LENGTH, 1 if name.endswith("ndstate") else STATES)
    try:
        with _stream(torch, case, device):
            t = arguments(torch, case, device, sizes)
            todo = calls(torch, name, module, t)
        for call, make in todo.items():
            with _stream(torch, case, device):
                outputs = [_text(torch, o) for o in make() if o is not None]
            seconds = _time(torch, make, device)
            yield {**head, "call": call, "outputs": outputs, "seconds": seconds}
    except Exception:
        yield {**head, "call": "-", "error": _last_line(), "trace": _trace()}


def _stream(torch: Any, case: Case, device: str) -> Any:
    """torch.cuda.stream of a new one, or a context that does nothing."""
    if not case.stream:
        from contextlib import nullcontext

        return nullcontext()
    return torch.cuda.stream(torch.cuda.Stream(device))


def _text(torch: Any, tensor: Any) -> str:
    values = tensor.detach().to("cpu").float().contiguous().flatten().tolist()
    from array import array

    return base64.b64encode(array("f", values).tobytes()).decode()


def _time(torch: Any, make: Callable[[], Any], device: str) -> float:
    """Seconds of the fastest of a few."""
    best = float("inf")
    for _ in range(REPEATS):
        _wait(torch, device)
        begin = time.perf_counter()
        make()
        _wait(torch, device)
        best = min(best, time.perf_counter() - begin)
    return best


def _wait(torch: Any, device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def _fork(torch: Any, modules: dict[str, Any], device: str) -> dict[str, Any]:
    """The device used in a forked child, while this process has not used it."""
    name, module = next(iter(modules.items()), (None, None))
    if name is None:
        return {"error": "no module of mambarun to try it with"}
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        os.write(writer, _in_fork(torch, name, module, device).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read() if _readable(pipe) else ""
    if not text:
        os.kill(pid, 9)
    _, status = os.waitpid(pid, 0)
    if text == "done":
        return {}
    return {"error": text or f"the forked child ended with status {status}"}


def _readable(pipe: Any) -> bool:
    from select import select

    return bool(select([pipe], [], [], FORK_LIMIT)[0])


def _in_fork(torch: Any, name: str, module: Any, device: str) -> str:
    try:
        t = arguments(torch, CASES[0], device, (BATCH, DIM, LENGTH, STATES))
        calls(torch, name, module, t)["fwd"]()
        _wait(torch, device)
    except Exception:
        return _last_line()
    return "done"


# ---- bench ------------------------------------------------------------------------


def _bench(torch: Any, modules: dict[str, Any], device: str) -> None:
    sizes = BENCH_CPU if device == "cpu" else BENCH_GPU
    case = CASES[0] if device == "cpu" else CASES[2]
    say(stage="the speed of a copy")
    speed = _copy_speed(torch, device)
    number = 0
    for name, module in modules.items():
        say(stage=f"bench of {name}")
        one = name.endswith("ndstate")
        t = arguments(torch, case, device, (*sizes[:3], 1 if one else sizes[3]))
        for call, make in calls(torch, name, module, t).items():
            moved = _bytes(t, call, name) + sum(
                o.numel() * o.element_size() for o in make() if o is not None
            )
            seconds = _time(torch, make, device)
            result = {"module": name, "call": call, "seconds": seconds}
            result["share"] = moved / seconds / speed
            say(**{f"bench/{number}": result}, copy=speed, bench_case=case.name)
            number += 1


def _copy_speed(torch: Any, device: str) -> float:
    """Bytes per second, read and written, of torch's copy of 256 MiB."""
    source = torch.ones(1 << 26, device=device)
    target = torch.empty_like(source)
    seconds = _time(torch, lambda: target.copy_(source), device)
    return 2 * source.numel() * source.element_size() / seconds


READ = {  # what a call reads; D, biases and weights are too small to count
    "scan": {
        "fwd": ("u", "delta", "B", "C"),
        "bwd": ("u", "delta", "B", "C", "dout"),
    },
    "conv": {"fwd": ("u",), "bwd": ("u", "dout"), "update": ("state",)},
}


def _bytes(t: dict[str, Any], call: str, name: str) -> int:
    names = READ["scan" if name.startswith("selective") else "conv"][call]
    if name == "selective_scan_cuda":
        names = (*names, "z")
    return sum(t[n].numel() * t[n].element_size() for n in names)
