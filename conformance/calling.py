# SPDX-License-Identifier: Apache-2.0
"""Where and how a prepared call is launched: arrays on a device and back, another
stream, a captured graph, another thread. Knows no op and no provider."""

from __future__ import annotations

import ctypes
import mmap
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Callable

import torch

from .arrays import GUARD, Array


class Unsupported(Exception):
    """What a provider cannot express, or this machine does not have. Not a failure."""


class Complaint(Exception):
    """What a provider did wrong, beside its numbers."""


class Lost(Exception):
    """A kernel failed after its launch: the driver refuses this process from now on."""


def wait(device: str) -> None:
    """Until what was launched is done."""
    if device == "cpu":
        return
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        raise Lost(str(error).partition("\n")[0]) from None


def fenced(bytes_: torch.Tensor) -> torch.Tensor:
    """A copy that ends where a page ends, before one that faults if it is touched."""
    page = mmap.PAGESIZE
    room = -(-bytes_.numel() // page) * page
    memory = mmap.mmap(-1, room + page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(start + room), ctypes.c_size_t(page), 0) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")
    copy = torch.frombuffer(memory, dtype=torch.uint8, count=room)
    return copy[room - bytes_.numel() :].copy_(bytes_)


class Lent:
    """A call whose arrays lie on a device: each buffer, with its guards, is copied
    there and afterwards back. On the CPU it is the call itself or, if tight, a copy
    where each array has its guard before it and a fence behind it."""

    def __init__(self, call: Any, device: str, tight: bool = False) -> None:
        self.call = call
        self.pairs: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        if device == "cpu" and not tight:
            return
        if device != "cpu":
            self._check(device)
        for array in call.arrays().values():  # arrays may share a buffer
            here = array.buffer
            if tight:
                here = here[: here.numel() - GUARD * array.flat().element_size()]
            if here.data_ptr() not in self.pairs:
                there = fenced(here) if device == "cpu" else here.to(device)
                self.pairs[here.data_ptr()] = (here, there)
        self.call = replace(
            call, inputs=self._there(call.inputs), outputs=self._there(call.outputs)
        )

    def _check(self, device: str) -> None:
        if not torch.cuda.is_available():
            raise Unsupported("this torch finds no GPU")
        if torch.device(device).index not in range(torch.cuda.device_count()):
            raise Unsupported(f"there is no {device}")

    def _there(self, arrays: dict[str, Array]) -> dict[str, Array]:
        return {
            name: array.in_copy(self.pairs[array.buffer.data_ptr()][1])
            for name, array in arrays.items()
        }

    def reset(self) -> None:
        for here, there in self.pairs.values():
            there.copy_(here)

    def back(self) -> None:
        for here, there in self.pairs.values():
            here.copy_(there)


# ---- how: each gets the device, what launches, what makes the arrays as before ----

Launch = Callable[[], None]


def _at_once(device: str, launch: Launch, reset: Launch) -> None:
    launch()


def _needs_gpu(device: str) -> None:
    if device == "cpu":
        raise Unsupported("needs a GPU")


def _on_a_stream(device: str, launch: Launch, reset: Launch) -> None:
    """On a stream that is not the default one and does not wait for it."""
    _needs_gpu(device)
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        launch()
    torch.cuda.current_stream(device).wait_stream(stream)


def _in_a_graph(device: str, launch: Launch, reset: Launch) -> None:
    """Captured, and replayed twice from the same arguments."""
    _needs_gpu(device)
    launch()  # kernels are loaded outside of a capture
    wait(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launch()
    for _ in range(2):
        reset()
        graph.replay()
    wait(device)


def _in_a_thread(device: str, launch: Launch, reset: Launch) -> None:
    """In a new thread, as autograd calls: without a current context."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(launch).result()


HOWS: dict[str, Callable[[str, Launch, Launch], None]] = {
    "": _at_once,
    "stream": _on_a_stream,
    "graph": _in_a_graph,
    "thread": _in_a_thread,
    "device1": _at_once,  # on cuda:1 while cuda:0 is current: see Provider.run
    "deterministic": _at_once,  # asked for, and repeated: see Provider.ways
}
