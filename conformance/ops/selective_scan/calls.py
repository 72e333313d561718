# SPDX-License-Identifier: Apache-2.0
"""From one row of options to the calls of the scan: what the cases are written in."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Callable, Dict, Optional

import torch

from ...arrays import CONTIGUOUS, Array, Layout
from ...cases import Maker
from ...providers import Call

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
CHUNK = 2048  # positions per entry of x

Edit = Optional[Callable[[Dict[str, torch.Tensor]], Any]]
Given = Optional[Callable[[Dict[str, Array]], Any]]


@dataclass(frozen=True)
class Scan:
    """One way to call forward and backward. Defaults: what mamba_ssm does."""

    why: str
    batch: int = 2
    dim: int = 6
    length: int = 70
    states: int = 16
    groups: int = 1
    delta_dim: int = 0  # 0: dim
    dtype: torch.dtype = F32
    out_dtype: torch.dtype | None = None  # None: dtype
    dout_dtype: torch.dtype | None = None
    complex: bool = False
    constant_B: bool = False
    constant_C: bool = False
    D: bool = True
    z: bool = False
    bias: bool = True
    softplus: bool = True
    recompute: bool = False  # bwd: out_z again
    keep_x: bool = True  # bwd: hand x over
    layouts: dict[str, Layout] = field(default_factory=dict)
    same_memory: dict[str, str] = field(default_factory=dict)  # output -> input or out
    delta: tuple[float, float] = (0.0, 0.5)
    A: tuple[float, float] = (-0.5, 0.0)
    edit: Edit = None  # of the values, in place
    edit_given: Given = None  # bwd: of dout, x and out, in place
    fwd: str = ""  # Case.signature of the forward
    bwd: str = ""  # and of the backward; "no": there is none
    how: str = ""  # Case.how


def _coefficient_shape(row: Scan, constant: bool) -> tuple[int, ...]:
    if constant:
        return (row.dim, row.states)
    twice = 2 if row.complex else 1
    return (row.batch, row.groups, row.states, twice * row.length)


def _inputs(row: Scan, maker: Maker) -> dict[str, Array]:
    """The arguments that forward and backward share."""
    wide = (row.batch, row.dim, row.length)
    rows = row.delta_dim or row.dim
    values: dict[str, torch.Tensor] = {}
    values["u"] = maker.normal(*wide)
    values["delta"] = maker.uniform(
        row.batch, rows, row.length, low=row.delta[0], high=row.delta[1]
    )
    A = maker.uniform(row.dim, row.states, low=row.A[0], high=row.A[1])
    values["A"] = torch.complex(A, maker.normal(*A.shape)) if row.complex else A
    for name, constant in (("B", row.constant_B), ("C", row.constant_C)):
        shape = _coefficient_shape(row, constant)
        values[name] = maker.normal(*shape)
        if constant and row.complex:
            values[name] = torch.complex(values[name], maker.normal(*shape))
    if row.D:
        values["D"] = maker.normal(row.dim)
    if row.z:
        values["z"] = maker.normal(*wide)
    if row.bias:
        values["delta_bias"] = maker.uniform(rows, low=0, high=0.5)
    if row.edit:
        row.edit(values)

    weight = torch.complex64 if row.complex else F32
    dtypes = dict.fromkeys(values, row.dtype)
    dtypes.update(A=weight, D=F32, delta_bias=F32)
    for name, constant in (("B", row.constant_B), ("C", row.constant_C)):
        if constant:
            dtypes[name] = weight
    return {name: _array(row, name, v, dtypes[name]) for name, v in values.items()}


def _array(row: Scan, name: str, values: torch.Tensor, dtype: torch.dtype) -> Array:
    array = Array(values.shape, dtype, row.layouts.get(name, CONTIGUOUS))
    for axis in array.layout.expand:
        values = values.narrow(axis, 0, 1)
    return array.fill(values)


def _output(row: Scan, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Array:
    return Array(shape, dtype, row.layouts.get(name, CONTIGUOUS))


def forward(row: Scan, maker: Maker) -> Call:
    return _forward(row, _inputs(row, maker))


def _forward(row: Scan, inputs: dict[str, Array]) -> Call:
    wide, weight = (row.batch, row.dim, row.length), inputs["A"].dtype
    chunks = -(-row.length // CHUNK)
    outputs = {
        "out": _output(row, "out", wide, row.out_dtype or row.dtype),
        "x": Array((row.batch, row.dim, chunks, 2 * row.states), weight),
    }
    if row.z:
        outputs["out_z"] = _output(row, "out_z", wide, row.dtype)
        outputs["out_z"].in_memory_of(inputs.get(row.same_memory.get("out_z", "")))
    return Call(
        "selective_scan_fwd", inputs, outputs, {"delta_softplus": int(row.softplus)}
    )


def backward(row: Scan, maker: Maker) -> Call:
    """Of what the forward returns, rounded as it returns it."""
    inputs = _inputs(row, maker)
    forward = _forward(replace(row, same_memory={}), inputs)
    results = maker.answer(forward)
    given = dict(inputs)
    dout = maker.normal(row.batch, row.dim, row.length)
    given["dout"] = _array(row, "dout", dout, row.dout_dtype or row.dtype)
    if row.keep_x:
        given["x"] = forward.outputs["x"].fill(results["x"])
    if row.z:
        given["out"] = forward.outputs["out"].fill(results["out"])

    if row.edit_given:
        row.edit_given({n: a for n, a in given.items() if n not in inputs})

    wanted = {
        "u": "du",
        "delta": "ddelta",
        "A": "dA",
        "B": "dB",
        "C": "dC",
        "D": "dD",
        "delta_bias": "ddelta_bias",
        "z": "dz",
    }
    outputs = {
        gradient: _output(row, gradient, inputs[name].shape, inputs[name].dtype)
        for name, gradient in wanted.items()
        if name in inputs
    }
    if row.recompute:
        outputs["out_z"] = _output(row, "out_z", given["out"].shape, row.dtype)
    for name in ("dz", "out_z"):
        if name in outputs:
            outputs[name].in_memory_of(given.get(row.same_memory.get(name, "")))
    return Call(
        "selective_scan_bwd", given, outputs, {"delta_softplus": int(row.softplus)}
    )
