#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""selective_scan.py - how fast each CPU variant's scan is, against the plain loop of
loop.c. Needs the built libraries (MAMBARUN_PATH=build/release/lib), torch and cc.

One line per variant and direction: time, 10^9 elements times states per second (es/s),
and how many times faster than the loop on one thread. --check fails if a target of the
project is missed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import harness
import torch
from harness import address
from mambarun.ops.selective_scan import BWD, FWD

FASTER_FWD = {"cpu_avx512": 10.0, "cpu_avx2": 5.0, "cpu_scalar": 1.0}
FASTER_BWD = {"cpu_avx512": 4.0, "cpu_avx2": 2.0, "cpu_scalar": 1.0}
TWO_THREADS = 1.5

MAMBA = {"batch": 1, "dim": 768, "length": 1024, "states": 16}
OTHERS = {  # information: VMamba's first stage, half precision, a gate, complex A
    "N=1 (VMamba)": {"batch": 2, "dim": 384, "length": 3136, "states": 1, "groups": 4},
    "bfloat16": {**MAMBA, "dtype": torch.bfloat16},
    "gated": {**MAMBA, "gate": True},
    "complex A": {**MAMBA, "dim": 192, "parts": 2},
}


def tensors(
    batch, dim, length, states, groups=1, dtype=torch.float32, gate=False, parts=1
):
    """Arguments and results of both directions, by the names of the params structs."""
    torch.manual_seed(0)
    rows = (batch, dim, length)
    coefficients = (batch, groups, states, length * parts)
    rates = -torch.rand(dim, states) * 4 - 0.1
    t = {
        "u": torch.randn(rows).to(dtype),
        "delta": torch.randn(rows).to(dtype),
        "A": rates if parts == 1 else torch.complex(rates, torch.randn(dim, states)),
        "B": torch.randn(coefficients).to(dtype),
        "C": torch.randn(coefficients).to(dtype),
        "D": torch.randn(dim),
        "delta_bias": torch.randn(dim) - 4,  # delta of 1e-3 to 1e-1
        "dout": torch.randn(rows).to(dtype),
        "out": torch.empty(rows, dtype=dtype),
    }
    chunks = (length + 2047) // 2048
    t["x"] = torch.empty((batch, dim, chunks, 2 * states), dtype=t["A"].dtype)
    if gate:
        t["z"] = torch.randn(rows).to(dtype)
        t["out_z"] = torch.empty(rows, dtype=dtype)
        t["dz"] = torch.empty(rows, dtype=dtype)
    for name in ("u", "delta", "A", "B", "C", "D", "delta_bias"):
        t["d" + name] = torch.empty_like(t[name])
    return t


def work(variant, params, t, threads=1):
    used = {name: t.get(name) for name in params.tensors}
    if params is BWD:
        used["out_z"] = None
    return variant.work(params, used, 1, threads=threads)


def loop_works(shape, t):
    """The two directions of the plain loop, on the same numbers."""
    loop = harness.compile_c(Path(__file__).with_name("loop.c"))
    sizes = [shape[k] for k in ("batch", "dim", "length", "states")]
    own = dict(t, B=t["B"][:, 0].mT.contiguous(), C=t["C"][:, 0].mT.contiguous())
    own.update(dB=torch.empty_like(own["B"]), dC=torch.empty_like(own["C"]))
    scratch = torch.empty(2, shape["length"], shape["states"])
    inputs = [address(own[k]) for k in ("u", "delta", "A", "B", "C", "D", "delta_bias")]
    sums = [own[k] for k in ("dA", "dB", "dC", "dD", "ddelta_bias")]
    rows = [address(own[k]) for k in ("dout", "du", "ddelta")]

    def fwd():
        loop.loop_fwd(*map(harness.ctypes.c_int64, sizes), *inputs, address(own["out"]))

    def bwd():
        for total in sums:
            total.zero_()
        loop.loop_bwd(
            *map(harness.ctypes.c_int64, sizes),
            *inputs,
            *rows,
            *map(address, sums),
            address(scratch[0]),
            address(scratch[1]),
        )

    return {FWD: fwd, BWD: bwd}


def elements(shape):
    return shape["batch"] * shape["dim"] * shape["length"] * shape["states"]


def against_loop(report, found, repeats):
    t = tensors(**MAMBA)
    for params, faster in ((FWD, FASTER_FWD), (BWD, FASTER_BWD)):
        direction = params.op[-3:]
        works = {name: work(v, params, t) for name, v in found.items()}
        times = harness.alone({"loop": loop_works(MAMBA, t)[params], **works}, repeats)
        for name, seconds in times.items():
            ratio = harness.median_ratio(times["loop"], seconds)
            report.add(
                f"{name} {direction}",
                min(seconds),
                elements(MAMBA),
                "G es/s",
                ratio,
                faster.get(name),
            )


def two_threads(report, found, repeats):
    """Wall time; the best of many repeats had both CPUs to itself."""
    shape = {**MAMBA, "dim": 1536, "length": 2048}
    t = tensors(**shape)
    name, variant = next(iter(found.items()))
    for params in (FWD, BWD):
        works = {str(n): work(variant, params, t, threads=n) for n in (1, 2)}
        times = harness.together(works, 2 * repeats)
        report.add(
            f"{name} {params.op[-3:]}, 2 threads against 1",
            min(times["2"]),
            elements(shape),
            "G es/s",
            min(times["1"]) / min(times["2"]),
            TWO_THREADS,
        )


def others(report, found, repeats):
    for label, shape in OTHERS.items():
        t = tensors(**shape)
        for params in (FWD, BWD):
            times = harness.alone(
                {name: work(v, params, t) for name, v in found.items()}, repeats
            )
            for name, seconds in times.items():
                report.add(
                    f"{name} {params.op[-3:]}, {label}",
                    min(seconds),
                    elements(shape),
                    "G es/s",
                )


def main() -> int:
    options = harness.options(__doc__.splitlines()[0])
    report = harness.Report(
        "selective_scan: {}, float32".format(
            ", ".join(f"{k} {v}" for k, v in MAMBA.items())
        )
    )
    found = harness.variants()
    against_loop(report, found, options.repeats)
    two_threads(report, found, options.repeats)
    others(report, found, options.repeats)
    return report.finish(options)


if __name__ == "__main__":
    sys.exit(main())
