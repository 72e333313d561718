# SPDX-License-Identifier: Apache-2.0
"""causal_conv1d.py - how fast the CPU's causal_conv1d is, next to what one writes
without it: torch's F.conv1d and F.silu, and for the update a concatenation and a sum.

    python bench/causal_conv1d.py [--threads N] [--repeats N] [--json]

Both sides run in this process in turns, ours then torch's, so that a busy machine
disturbs both alike; a row shows medians and the median of the ratios of a turn. Each
side's result is compared before it is timed. The variant is MAMBARUN_VARIANT's, or the
one mambarun chooses. Backward is the gradient alone: for torch the time of forward and
backward less that of the forward.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Callable

import mambarun
import torch
import torch.nn.functional as F
from mambarun.ops.causal_conv1d import (
    causal_conv1d_bwd,
    causal_conv1d_fwd,
    causal_conv1d_update,
)

WIDTH = 4
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 8e-2}

# what, batch, dim, seqlen, dtype, what lies side by side
ROWS = (
    ("language model", 1, 1536, 2048, torch.float32, "time"),
    ("language model", 1, 1536, 2048, torch.float32, "channels"),
    ("language model", 1, 1536, 2048, torch.bfloat16, "time"),
    ("language model", 1, 1536, 2048, torch.bfloat16, "channels"),
    ("language model", 1, 1536, 2048, torch.float16, "time"),
    ("vision", 16, 768, 197, torch.float32, "time"),
    ("vision", 16, 384, 196, torch.float32, "channels"),
)
STEPS = (
    ("one token", 1, 2048, torch.float32),
    ("one token", 64, 2048, torch.float32),
    ("one token", 64, 2048, torch.bfloat16),
)


class Turns:
    """Times of functions that are called in turns."""

    def __init__(self, repeats: int, *functions: Callable[[], object]) -> None:
        self.times: list[list[float]] = [[] for _ in functions]
        for turn in range(repeats + 1):  # the first one warms up
            for function, times in zip(functions, self.times):
                start = time.perf_counter()
                function()
                if turn:
                    times.append(time.perf_counter() - start)


def median_row(
    name: str, elements: int, ours: list[float], theirs: list[float]
) -> dict:
    own = statistics.median(ours)
    return {
        "function": name,
        "mambarun_ms": round(own * 1e3, 4),
        "torch_ms": round(statistics.median(theirs) * 1e3, 4),
        "torch_over_mambarun": round(
            statistics.median(t / o for o, t in zip(ours, theirs)), 2
        ),
        "gelements_per_s": round(elements / own / 1e9, 3),
    }


def compare(name: str, ours: torch.Tensor, theirs: torch.Tensor) -> None:
    worst = ((ours - theirs).abs() / (1 + theirs.abs())).max().item()
    if not worst <= TOLERANCE[theirs.dtype]:
        sys.exit(f"{name}: the two sides differ by {worst}, a bench of nonsense")


def make_input(
    batch: int, dim: int, seqlen: int, dtype: torch.dtype, side: str
) -> torch.Tensor:
    if side == "time":
        return torch.randn(batch, dim, seqlen).to(dtype)
    return torch.randn(batch, seqlen, dim).to(dtype).transpose(1, 2)


def convolve(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    padded = F.conv1d(x, weight[:, None], bias, padding=WIDTH - 1, groups=x.shape[1])
    return F.silu(padded[..., : x.shape[2]])


def bench_convolution(
    repeats: int, batch: int, dim: int, seqlen: int, dtype: torch.dtype, side: str
) -> list[dict]:
    x = make_input(batch, dim, seqlen, dtype, side)
    dout = make_input(batch, dim, seqlen, dtype, side)
    weight, bias = torch.randn(dim, WIDTH).to(dtype), torch.randn(dim).to(dtype)
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]

    def forward():
        return causal_conv1d_fwd(x, weight, bias, True)

    def backward():
        return causal_conv1d_bwd(x, weight, bias, dout, None, True)

    def torch_forward():
        with torch.no_grad():
            return convolve(x, weight, bias)

    def torch_both():
        return torch.autograd.grad(convolve(*leaves), leaves, dout)

    compare("forward", forward(), torch_forward())
    compare("backward", backward()[0], torch_both()[0])
    turns = Turns(repeats, forward, torch_forward, backward, torch_both)
    own, theirs, own_backward, both = turns.times
    elements = batch * dim * seqlen
    gradient = [b - f for b, f in zip(both, theirs)]
    return [
        median_row("forward", elements, own, theirs),
        median_row("backward", elements, own_backward, gradient),
    ]


def bench_update(repeats: int, batch: int, dim: int, dtype: torch.dtype) -> list[dict]:
    x = torch.randn(batch, dim, 1).to(dtype)
    state = torch.randn(batch, dim, WIDTH).to(dtype)
    weight, bias = torch.randn(dim, WIDTH).to(dtype), torch.randn(dim).to(dtype)

    def step():
        return causal_conv1d_update(x, state, weight, bias, True, None)

    def torch_step():
        state.copy_(torch.cat([state[..., 1:], x], -1))
        return F.silu((state * weight).sum(-1) + bias)[..., None]

    before = state.clone()
    ours = step()
    state.copy_(before)
    compare("update", ours, torch_step())
    return [median_row("update", batch * dim, *Turns(repeats, step, torch_step).times)]


def measure(repeats: int) -> list[dict]:
    torch.manual_seed(0)
    rows = []
    for what, batch, dim, seqlen, dtype, side in ROWS:
        shape = {"what": what, "batch": batch, "dim": dim, "seqlen": seqlen}
        shape |= {"dtype": str(dtype)[6:], "side_by_side": side}
        for row in bench_convolution(repeats, batch, dim, seqlen, dtype, side):
            rows.append(shape | row)
    for what, batch, dim, dtype in STEPS:
        shape = {"what": what, "batch": batch, "dim": dim, "seqlen": 1}
        shape |= {"dtype": str(dtype)[6:], "side_by_side": "time"}
        for row in bench_update(20 * repeats, batch, dim, dtype):
            rows.append(shape | row)
    return rows


def print_table(rows: list[dict]) -> None:
    names = [name for name in rows[0] if name != "what"]
    cells = [names] + [[str(row[name]) for name in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="print JSON, no table")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = measure(given.repeats)
    info = mambarun.info()
    about = {
        "mambarun": info["version"],
        "variant": info["cpu_variant"],
        "cpu": info["cpu"]["name"],
        "torch": torch.__version__,
        "threads": given.threads,
    }
    if given.json:
        print(json.dumps(about | {"rows": rows}, indent=1))
        return
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print_table(rows)


if __name__ == "__main__":
    main()
