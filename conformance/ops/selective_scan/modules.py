# SPDX-License-Identifier: Apache-2.0
"""Argument lists of the modules that scan: state-spaces/mamba's selective_scan_cuda,
and VMamba's core, oflex, nrow and ndstate in each of their generations."""

from __future__ import annotations

from typing import Any

import torch

from ...modules import Form
from ...providers import Call

SCAN = "u delta A B C D? z? delta_bias?"
VMAMBA = "u delta A B C D? delta_bias?"


def _forward(call: Call) -> list[str | None]:
    return ["out", "x", "out_z"] if "z" in call.inputs else ["out", "x"]


def _backward(call: Call) -> list[str | None]:
    """None where there is no argument; dz and out_z only if asked for."""
    first = ["du", "ddelta", "dA", "dB", "dC"]
    weights = ["dD" if "D" in call.inputs else None]
    weights.append("ddelta_bias" if "delta_bias" in call.inputs else None)
    gate = ["dz"] if "z" in call.inputs else []
    return [*first, *weights, *gate, *(["out_z"] if "out_z" in call.outputs else [])]


def _one_dtype(call: Call) -> str:
    """Only oflex has an out in fp32 beside a 16-bit u, and a dout."""
    u = call.inputs["u"].dtype
    for name in ("out", "dout", "out_z"):
        if name in call.arrays() and call.arrays()[name].dtype != u:
            return f"{name} has u's dtype here"
    return ""


def _one_row_each(call: Call) -> str:
    """Only oflex has a delta that several channels share."""
    if call.inputs["delta"].shape != call.inputs["u"].shape:
        return "delta has a row for each channel here"
    return ""


def _mamba(call: Call) -> str:
    return _one_dtype(call) or _one_row_each(call)


def _oflex(call: Call) -> str:
    if call.inputs["A"].dtype.is_complex:
        return "A is real here"
    if min(len(call.inputs[name].shape) for name in ("B", "C")) < 4:
        return "B and C vary with time here"
    return ""


def _core(call: Call) -> str:
    return _oflex(call) or _mamba(call)


def _nrows(call: Call) -> int:
    return 1


def _out_float(call: Call) -> bool:
    return call.outputs["out"].dtype == torch.float32


def _recompute(call: Call) -> bool:
    return "out_z" in call.outputs


def _fwd(module: str, names: str, since: str, **more: Any) -> Form:
    like = {"out": "delta", "x": "", "out_z": "z", **more.pop("like", {})}
    if "nrows" in names:
        more.setdefault("extra", {}).update(nrows=_nrows)
    return Form(
        module, "fwd", "selective_scan_fwd", names, _forward, since, like=like, **more
    )


def _bwd(module: str, names: str, since: str, **more: Any) -> Form:
    like = {"du": "u", "ddelta": "delta", "dz": "z", "out_z": "out"}
    like.update(more.pop("like", {}))
    if "nrows" in names:
        more.setdefault("extra", {}).update(nrows=_nrows)
    return Form(
        module, "bwd", "selective_scan_bwd", names, _backward, since, like=like, **more
    )


_DROPPED = {"A": 1, "B": 2, "C": 2, "dA": 1, "dB": 2, "dC": 2}

FORMS = [
    _fwd("selective_scan_cuda", f"{SCAN} delta_softplus:b", "1.0.0", lacks=_mamba),
    _bwd(
        "selective_scan_cuda",
        f"{SCAN} dout x? out? dz? delta_softplus:b recompute_out_z:b",
        "1.0.0",
        lacks=_mamba,
        extra={"recompute_out_z": _recompute},
    ),
    _fwd(
        "selective_scan_cuda_oflex",
        f"{VMAMBA} delta_softplus:b nrows:i out_float:b",
        "bfd0eb0",
        lacks=_oflex,
        like={"out": ""},
        extra={"out_float": _out_float},
    ),
    _bwd(
        "selective_scan_cuda_oflex",
        f"{VMAMBA} dout x? delta_softplus:b nrows:i",
        "bfd0eb0",
        lacks=_oflex,
        like={"ddelta": None},
    ),
    _fwd(
        "selective_scan_cuda_core",
        f"{VMAMBA} delta_softplus:b nrows:i",
        "b633d78",
        lacks=_core,
    ),
    _fwd(
        "selective_scan_cuda_core", f"{VMAMBA} delta_softplus:b", "5cfd138", lacks=_core
    ),
    _bwd(
        "selective_scan_cuda_core",
        f"{VMAMBA} dout x? delta_softplus:b nrows:i",
        "b633d78",
        lacks=_core,
    ),
    _bwd(
        "selective_scan_cuda_core",
        f"{VMAMBA} dout x? delta_softplus:b",
        "875c3d2",
        lacks=_core,
    ),
    _bwd(
        "selective_scan_cuda_core",
        f"{VMAMBA} dout x? out? delta_softplus:b",
        "5cfd138",
        lacks=_core,
        mark="-out",
    ),
    _fwd(
        "selective_scan_cuda_nrow",
        f"{VMAMBA} delta_softplus:b nrows:i",
        "bfd0eb0",
        lacks=_core,
    ),
    _bwd(
        "selective_scan_cuda_nrow",
        f"{VMAMBA} dout x? delta_softplus:b nrows:i",
        "bfd0eb0",
        lacks=_core,
    ),
    _fwd(
        "selective_scan_cuda_ndstate",
        f"{VMAMBA} delta_softplus:b nrows:i",
        "bfd0eb0",
        lacks=_core,
        drop=_DROPPED,
    ),
    _bwd(
        "selective_scan_cuda_ndstate",
        f"{VMAMBA} dout x? delta_softplus:b nrows:i",
        "bfd0eb0",
        lacks=_core,
        drop=_DROPPED,
    ),
]
