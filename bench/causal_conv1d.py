#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""causal_conv1d.py - how fast each CPU variant's convolution with SiLU is, against
torch's own conv1d and silu, on one thread. Needs the built libraries
(MAMBARUN_PATH=build/release/lib) and torch. For information: there are no targets.
"""

from __future__ import annotations

import sys

import harness
import torch
import torch.nn.functional as F
from mambarun.ops.causal_conv1d import BWD, FWD

BATCH, DIM, LENGTH, WIDTH = 1, 1536, 2048, 4
LAYOUTS = {"channel first": False, "channel last": True}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def rows(channel_last, dtype):
    if channel_last:
        return torch.randn(BATCH, LENGTH, DIM).to(dtype).transpose(1, 2)
    return torch.randn(BATCH, DIM, LENGTH).to(dtype)


def tensors(channel_last, dtype):
    """Arguments and results of both directions, by the names of the params structs."""
    torch.manual_seed(0)
    t = {name: rows(channel_last, dtype) for name in ("x", "dout", "out", "dx")}
    t["weight"], t["bias"] = torch.randn(DIM, WIDTH), torch.randn(DIM)
    t["dweight"], t["dbias"] = torch.empty(DIM, WIDTH), torch.empty(DIM)
    return t


def works(variant, t):
    tails = {FWD: (1,), BWD: (1, 0)}  # silu_activation, accumulate
    return {
        params: variant.work(params, {n: t.get(n) for n in params.tensors}, *tail,
                             threads=1)
        for params, tail in tails.items()
    }


def torch_works(t):
    x = t["x"].detach().requires_grad_(True)
    weight = t["weight"].to(x.dtype)[:, None].requires_grad_(True)
    bias = t["bias"].to(x.dtype).requires_grad_(True)

    def forward():
        y = F.conv1d(x, weight, bias, padding=WIDTH - 1, groups=DIM)
        return F.silu(y[..., :LENGTH])

    def fwd():
        with torch.no_grad():
            forward()

    def both():
        torch.autograd.grad(forward(), (x, weight, bias), t["dout"])

    return {FWD: fwd, BWD: both}


def main() -> int:
    options = harness.options(__doc__.splitlines()[0])
    torch.set_num_threads(1)
    report = harness.Report(
        f"causal_conv1d: batch {BATCH}, dim {DIM}, length {LENGTH}, width {WIDTH}, SiLU;"
        " torch's bwd includes its forward, ours recomputes what it needs"
    )
    found = harness.variants()
    for layout, channel_last in LAYOUTS.items():
        for name, dtype in DTYPES.items():
            t = tensors(channel_last, dtype)
            all_works = {"torch": torch_works(t)}
            all_works.update({n: works(v, t) for n, v in found.items()})
            for params in (FWD, BWD):
                times = harness.alone(
                    {n: w[params] for n, w in all_works.items()}, options.repeats
                )
                for who, seconds in times.items():
                    report.add(f"{who} {params.op[-3:]}, {layout}, {name}", min(seconds),
                               BATCH * DIM * LENGTH, "G elements/s",
                               harness.median_ratio(times["torch"], seconds))
    return report.finish(options)


if __name__ == "__main__":
    sys.exit(main())
