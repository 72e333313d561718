# SPDX-License-Identifier: Apache-2.0
"""Where the original modules that scan are known to deviate, and why. Files and lines
are those of state-spaces/mamba v2.3.2.post1 and MzeroMiko/VMamba 2ed52ea."""

from __future__ import annotations

import torch

from ...arrays import Array
from ...modules import Known, aligned, lies_dense
from ...providers import Call

MAMBA = ("selective_scan_cuda",)
VMAMBA = tuple(f"selective_scan_cuda_{n}" for n in ("core", "oflex", "nrow", "ndstate"))
ALL = MAMBA + VMAMBA
WIDE = ("u", "delta", "z", "dout", "out", "dz")
GRID_Y = 65_535
FORGOTTEN = 50  # exp(-50) of a state is below its rounding


def _varies(call: Call, name: str) -> bool:
    return len(call.inputs[name].shape) == 4


def _complex(call: Call) -> bool:
    return call.inputs["A"].dtype.is_complex


def _not_dense(call: Call) -> bool:
    arrays = call.arrays()
    rows = [n for n in (*WIDE, "D", "delta_bias") if n in arrays]
    rows += [n for n in ("B", "C") if _varies(call, n)]
    return not all(lies_dense(arrays[n], len(arrays[n].shape) - 1) for n in rows)


def _vectors_misaligned(call: Call) -> bool:
    length, arrays = call.inputs["u"].shape[2], call.arrays()
    whole = length in (128, 256, 512, 1024) or (length and length % 2048 == 0)
    if not whole:
        return False
    halves = call.inputs["u"].flat().element_size() == 2
    rows = [n for n in WIDE if n in arrays] + [n for n in "BC" if _varies(call, n)]
    size = 8 if halves and length == 128 else 16
    return not all(aligned(arrays[n], size) for n in rows)


def _complex_groups(call: Call) -> bool:
    groups = max(call.inputs[n].shape[1] for n in "BC" if _varies(call, n) or n == "B")
    gradients = call.entry.endswith("_bwd")
    varies = _varies(call, "B") or _varies(call, "C")
    return _complex(call) and gradients and varies and groups > 1


def _another_C(call: Call) -> bool:
    """C is variable and of another shape than it should have."""
    B, C = (call.inputs[name].shape for name in "BC")
    return len(C) == 4 and C != B if len(B) == 4 else len(C) == 4 and C[1] != 1


def _not_finite(call: Call) -> bool:
    return not all(torch.isfinite(array.values()).all() for array in _floats(call))


def _floats(call: Call) -> list[Array]:
    return [a for a in call.inputs.values() if a.dtype != torch.int32]


def _largest(call: Call, name: str) -> float:
    values = call.inputs[name].wide().abs()
    return float(values.max()) if values.numel() else 0.0


def _forgets_at_once(call: Call) -> bool:
    return _largest(call, "delta") * _largest(call, "A") > FORGOTTEN


def _backward(call: Call) -> bool:
    return call.entry.endswith("_bwd")


KNOWN = [
    Known(
        ALL,
        "refuses",
        "selective_scan.cpp checks that the last axis of u, delta, z, dout, out, D, "
        "delta_bias and variable B and C has stride 1",
        _not_dense,
    ),
    Known(
        ALL,
        "refuses",
        "a launch has a block for each channel along grid.y, which ends at 65535",
        lambda call: call.inputs["u"].shape[1] > GRID_Y,
    ),
    Known(
        ALL,
        "not asked",
        "selective_scan_fwd_kernel.cuh:38 loads vectors where the length is a multiple "
        "of the block; nothing checks that rows begin at 16 bytes",
        _vectors_misaligned,
    ),
    Known(
        ALL,
        "words",
        "CUDA 13 calls an empty grid an invalid argument, CUDA 12 an invalid "
        "configuration argument",
        lambda call: 0 in call.inputs["u"].shape[:2],
    ),
    Known(
        ALL,
        "words",
        "selective_scan.cpp:281 writes the shape of C with a blank less than that of B",
        _another_C,
    ),
    Known(
        MAMBA,
        "not asked",
        "selective_scan_bwd_kernel.cuh:132: the group offset into dB and dC of a "
        "complex A counts complex numbers, the stride floats: out of bounds",
        _complex_groups,
    ),
    Known(
        ALL,
        "differs",
        "at length 0 the backward adds shared memory that nobody has written",
        lambda call: call.inputs["u"].shape[2] == 0,
        outputs=("dA", "dB", "dC", "dD", "ddelta_bias"),
    ),
    Known(
        ("selective_scan_cuda_oflex",),
        "differs",
        "selective_scan_oflex.cpp:314: ddelta of channels that share a row is summed "
        "after it was rounded",
        lambda call: call.inputs["delta"].shape != call.inputs["u"].shape,
        outputs=("ddelta",),
        within="upstream",
    ),
    Known(
        ALL,
        "differs",
        "setup.py:239 compiles with --use_fast_math: approximate exp, division, sine "
        "and cosine; denormals are zero",
        lambda call: True,
        within="upstream",
    ),
    Known(
        ALL,
        "differs",
        "selective_scan_bwd_kernel.cuh:288 takes a h(t-1) for the difference h(t) - B "
        "dt u: what is not finite does not cancel, and a tiny a leaves rounding errors",
        lambda call: _backward(call) and (_not_finite(call) or _forgets_at_once(call)),
        outputs=("dA", "ddelta", "ddelta_bias"),
    ),
    Known(
        ALL,
        "differs",
        "selective_scan_bwd_kernel.cuh:250: the scan backwards begins with exp(0 A) "
        "times 0, which is NaN where A is",
        lambda call: _backward(call) and bool(call.inputs["A"].wide().isnan().any()),
        outputs=("du", "dB"),
    ),
    Known(
        ALL,
        "differs",
        "a scan in parallel multiplies decays before it applies them: an infinite "
        "state times a product that is 0 by then is NaN",
        _not_finite,
        within="nan",
    ),
    Known(
        ALL,
        "repeats",
        "weights' gradients are summed by atomicAdd, whatever torch was asked for",
        lambda call: call.entry.endswith("_bwd"),
        outputs=("dA", "dB", "dC", "dD", "ddelta_bias"),
    ),
]
