# SPDX-License-Identifier: Apache-2.0
"""From one row of options to the calls of the convolution: what the cases are written
in."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Optional, Sequence

import torch

from ...arrays import CONTIGUOUS, Array, Layout
from ...cases import Maker
from ...providers import Call

F32, F16, BF16, I32 = torch.float32, torch.float16, torch.bfloat16, torch.int32

Edit = Optional[Callable[[Dict[str, torch.Tensor]], Any]]  # changes values in place


@dataclass(frozen=True)
class Conv:
    """One way to call forward and backward."""

    why: str
    batch: int = 2
    dim: int = 6
    length: int = 37
    width: int = 4
    dtype: torch.dtype = F32
    weight_dtype: torch.dtype = F32
    bias_dtype: torch.dtype | None = F32  # None: no bias
    silu: bool = True
    initial: bool = False
    final: bool = False
    dinitial: bool = False
    dfinal: bool = False
    ids: Sequence[int] | None = None  # lengths of the sequences; negative: padding
    gradient_dtype: torch.dtype | None = None  # of dweight; None: the weight's
    accumulate: bool = False
    layouts: dict[str, Layout] = field(default_factory=dict)
    same_memory: dict[str, str] = field(default_factory=dict)  # output -> input
    edit: Edit = None  # of the values
    edit_given: Edit = None  # bwd: of those of dout and dfinal_states
    fwd: str = ""  # Case.signature of the forward; "no": there is none
    bwd: str = ""  # and of the backward
    how: str = ""  # Case.how


def _place(row: Any, name: str, values: torch.Tensor, dtype: torch.dtype) -> Array:
    array = Array(values.shape, dtype, row.layouts.get(name, CONTIGUOUS))
    for axis in array.layout.expand:
        values = values.narrow(axis, 0, 1)
    return array.fill(values)


def _sequence_ids(row: Conv) -> torch.Tensor:
    """(B, L): 0 0 0 1 1 2 ..., the lengths repeated as often as needed; each batch row
    starts with another of them."""
    assert row.ids
    ids = torch.zeros(row.batch, row.length, dtype=torch.int64)
    for b in range(row.batch):
        t = 0
        for number in itertools.count():
            span = row.ids[(number + b) % len(row.ids)]
            ids[b, t : t + abs(span)] = number if span > 0 else -1
            t += abs(span)
            if t >= row.length:
                break
    return ids


def _inputs(row: Conv, maker: Maker) -> dict[str, Array]:
    states = (row.batch, row.dim, row.width - 1)
    values = {
        "x": maker.normal(row.batch, row.dim, row.length),
        "weight": maker.normal(row.dim, row.width),
    }
    dtypes = {"x": row.dtype, "weight": row.weight_dtype}
    if row.bias_dtype:
        values["bias"], dtypes["bias"] = maker.normal(row.dim), row.bias_dtype
    if row.initial:
        values["initial_states"] = maker.normal(*states)
        dtypes["initial_states"] = row.dtype
    if row.ids:
        values["seq_idx"], dtypes["seq_idx"] = _sequence_ids(row), I32
    if row.edit:
        row.edit(values)
    return {name: _place(row, name, v, dtypes[name]) for name, v in values.items()}


def _output(row: Any, name: str, shape: Sequence[int], dtype: torch.dtype) -> Array:
    return Array(shape, dtype, row.layouts.get(name, CONTIGUOUS))


def _share(row: Any, inputs: dict[str, Array], outputs: dict[str, Array]) -> None:
    for output, owner in row.same_memory.items():
        outputs[output].in_memory_of(inputs[owner])


def forward(row: Conv, maker: Maker) -> Call:
    inputs = _inputs(row, maker)
    outputs = {"out": _output(row, "out", inputs["x"].shape, row.dtype)}
    if row.final:
        shape = (row.batch, row.dim, row.width - 1)
        outputs["final_states_out"] = _output(row, "final_states_out", shape, row.dtype)
    _share(row, inputs, outputs)
    return Call(
        "causal_conv1d_fwd", inputs, outputs, {"silu_activation": int(row.silu)}
    )


def backward(row: Conv, maker: Maker) -> Call:
    inputs = _inputs(row, maker)
    states = (row.batch, row.dim, row.width - 1)
    given = {"dout": maker.normal(*inputs["x"].shape)}
    if row.dfinal:
        given["dfinal_states"] = maker.normal(*states)
    if row.edit_given:
        row.edit_given(given)
    for name, values in given.items():
        inputs[name] = _place(row, name, values, row.dtype)

    weight = inputs["weight"]
    gradient = row.gradient_dtype or weight.dtype
    outputs = {
        "dx": _output(row, "dx", inputs["x"].shape, row.dtype),
        "dweight": _output(row, "dweight", weight.shape, gradient),
    }
    if row.bias_dtype:
        gradient = row.gradient_dtype or row.bias_dtype
        outputs["dbias"] = _output(row, "dbias", (row.dim,), gradient)
    if row.dinitial:
        outputs["dinitial_states"] = _output(row, "dinitial_states", states, row.dtype)
    if row.accumulate:
        for name in ("dweight", "dbias"):
            if name in outputs:
                outputs[name].fill(maker.normal(*outputs[name].shape))
    scalars = {"silu_activation": int(row.silu), "accumulate": int(row.accumulate)}
    return Call("causal_conv1d_bwd", inputs, outputs, scalars)


@dataclass(frozen=True)
class Update:
    """One way to step."""

    why: str
    batch: int = 3
    dim: int = 6
    length: int = 1
    width: int = 4
    columns: int = 4  # S
    dtype: torch.dtype = F32
    weight_dtype: torch.dtype = F32
    bias_dtype: torch.dtype | None = F32
    silu: bool = True
    seen: Sequence[int] | None = None  # cache_seqlens; None: a line, not a ring
    rows: Sequence[int] | None = None  # conv_state_indices
    row_count: int = 0  # rows of conv_state; 0: batch
    layouts: dict[str, Layout] = field(default_factory=dict)
    same_memory: dict[str, str] = field(default_factory=dict)
    edit: Edit = None
    signature: str = ""
    how: str = ""


def update(row: Update, maker: Maker) -> Call:
    states = row.row_count or row.batch
    values = {
        "x": maker.normal(row.batch, row.dim, row.length),
        "weight": maker.normal(row.dim, row.width),
        "conv_state": maker.normal(states, row.dim, row.columns),
    }
    dtypes = {"x": row.dtype, "weight": row.weight_dtype, "conv_state": row.dtype}
    if row.bias_dtype:
        values["bias"], dtypes["bias"] = maker.normal(row.dim), row.bias_dtype
    for name, numbers in (
        ("cache_seqlens", row.seen),
        ("conv_state_indices", row.rows),
    ):
        if numbers is not None:
            values[name], dtypes[name] = torch.tensor(numbers), I32
    if row.edit:
        row.edit(values)
    inputs = {n: _place(row, n, v, dtypes[n]) for n, v in values.items()}
    outputs = {
        "out": _output(row, "out", values["x"].shape, row.dtype),
        "conv_state": inputs.pop("conv_state"),
    }
    _share(row, inputs, outputs)
    return Call(
        "causal_conv1d_update", inputs, outputs, {"silu_activation": int(row.silu)}
    )
