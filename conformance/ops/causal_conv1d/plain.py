# SPDX-License-Identifier: Apache-2.0
"""The convolution in plain torch, to check the reference with: what autograd sees."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Dict

import torch
import torch.nn.functional as F

from ...arrays import Array
from ...providers import Call, Reference

F64 = torch.float64
Values = Dict[str, torch.Tensor]


@dataclass(frozen=True)
class Plain:
    """One way to call the forward, and its backward."""

    id: str
    batch: int = 2
    dim: int = 3
    length: int = 9
    width: int = 4
    bias: bool = True
    silu: bool = True
    initial: bool = False
    final: bool = False
    ids: tuple[int, ...] | None = None
    masked: bool = True

    entry = "causal_conv1d_fwd"
    backward_entry = "causal_conv1d_bwd"
    copied = ("final_states_out",)
    differentiable = ("out", "final_states_out")

    @property
    def differentiated(self) -> Plain:
        """What backward is the gradient of: like upstream's it takes the -1 of padding
        for an id, and does not see that the forward wrote 0 there."""
        return replace(self, masked=False) if self.ids and min(self.ids) < 0 else self

    @property
    def scalars(self) -> dict[str, int]:
        return {"silu_activation": int(self.silu)}

    def values(self, chance: torch.Generator) -> Values:
        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=chance, dtype=F64)

        values = {
            "x": normal(self.batch, self.dim, self.length),
            "weight": normal(self.dim, self.width),
        }
        if self.bias:
            values["bias"] = normal(self.dim)
        if self.initial:
            values["initial_states"] = normal(self.batch, self.dim, self.width - 1)
        if self.ids:
            ids = torch.tensor(self.ids, dtype=torch.int32)
            values["seq_idx"] = ids.expand(self.batch, -1)
        return values

    def empty(self, values: Values) -> Values:
        outputs = {"out": torch.zeros_like(values["x"])}
        if self.final:
            shape = (self.batch, self.dim, self.width - 1)
            outputs["final_states_out"] = torch.zeros(shape, dtype=values["x"].dtype)
        return outputs

    def torch(self, values: Values) -> Values:
        x, weight = values["x"], values["weight"]
        past = self.width - 1
        before = values.get("initial_states", x.new_zeros(self.batch, self.dim, past))
        joined = torch.cat([before, x], dim=2)
        windows = joined.unfold(2, self.width, 1)  # (B, D, L, W)
        if self.ids:
            ids = F.pad(values["seq_idx"], (past, 0), value=-1)
            counts = ids.unfold(1, self.width, 1) == values["seq_idx"][:, :, None]
            windows = windows * counts[:, None]
        y = (windows * weight[:, None]).sum(-1)
        if self.bias:
            y = y + values["bias"][:, None]
        out = F.silu(y) if self.silu else y
        if self.ids and self.masked:
            out = torch.where(
                values["seq_idx"][:, None] < 0, torch.zeros_like(out), out
            )
        results = {"out": out}
        if self.final:
            results["final_states_out"] = joined[:, :, joined.shape[2] - past :]
        return results

    def backward(self, values: Values, results: Values, weights: Values) -> Any:
        given = {**values, "dout": weights["out"]}
        if self.final:
            given["dfinal_states"] = weights["final_states_out"]
        names = {
            "dx": "x",
            "dweight": "weight",
            "dbias": "bias",
            "dinitial_states": "initial_states",
        }
        outputs = {
            g: torch.zeros_like(values[n]) for g, n in names.items() if n in values
        }
        return given, outputs, self.scalars

    def source_of(self, gradient: str) -> str:
        return gradient[1:]


PLAINS = [
    Plain("width2", width=2),
    Plain("width3", width=3, bias=False),
    Plain("width4", silu=False),
    Plain("one", length=1),
    Plain("states", initial=True, final=True),
    Plain("states-short", initial=True, final=True, length=2),
    Plain("states-shortest", initial=True, final=True, length=1, silu=False),
    Plain("final", final=True, length=2),
    Plain("sequences", ids=(0, 0, 1, 1, 1, 2, 3, 3, 3)),
    Plain("sequences-unsorted", ids=(5, 5, 1, 5, 1, 1, 0, 5, 5), final=True),
    Plain("padding", ids=(0, 0, 1, -1, -1, 2, 2, -1, -1)),
    Plain("padding-first", ids=(-1, -1, 0, 0, 0, 0, 0, 0, -1), width=3),
]


@dataclass(frozen=True)
class Step(Plain):
    """Update. ring: where in it each batch row stands; rows: of the state."""

    columns: int = 5
    ring: tuple[int, ...] | None = None
    rows: tuple[int, ...] | None = None

    entry = "causal_conv1d_update"
    backward_entry = ""
    copied = ("conv_state",)

    def values(self, chance: torch.Generator) -> Values:
        values = super().values(chance)
        shape = (6 if self.rows else self.batch, self.dim, self.columns)
        values["conv_state"] = torch.randn(shape, generator=chance, dtype=F64)
        if self.ring:
            values["cache_seqlens"] = torch.tensor(self.ring, dtype=torch.int32)
        if self.rows:
            values["conv_state_indices"] = torch.tensor(self.rows, dtype=torch.int32)
        return values

    def empty(self, values: Values) -> Values:
        return {
            "out": torch.zeros_like(values["x"]),
            "conv_state": values["conv_state"],
        }

    def torch(self, values: Values) -> Values:
        """By way of the whole past of each row, oldest column first."""
        state, outs = values["conv_state"].clone(), []
        for b in range(self.batch):
            row = self.rows[b] if self.rows else b
            x = values["x"][b]
            if row < 0:
                outs.append(torch.zeros_like(x))
                continue
            turn = self.ring[b] % self.columns if self.ring else 0
            past = torch.roll(state[row], -turn, dims=1)
            joined = torch.cat([past, x], dim=1)
            window = joined[:, joined.shape[1] - self.length - self.width + 1 :]
            y = (window.unfold(1, self.width, 1) * values["weight"][:, None]).sum(-1)
            y = y + values["bias"][:, None]
            outs.append(F.silu(y) if self.silu else y)
            latest = joined[:, -self.columns :]
            shift = turn + self.length if self.ring else 0
            state[row] = torch.roll(latest, shift, dims=1)
        return {"out": torch.stack(outs), "conv_state": state}


PLAINS += [
    Step("step", length=1),
    Step("step-long", length=7, width=3),
    Step("step-shortest-state", length=2, columns=3),
    Step("step-narrow", length=1, columns=1, width=2, silu=False),
    Step("ring", length=1, ring=(0, 13)),
    Step("ring-long", length=7, ring=(4, 3), width=3),
    Step("ring-shortest", length=2, ring=(2, 1), columns=3),
    Step("rows", length=2, rows=(4, 1)),
    Step("rows-padding", length=2, rows=(-1, 3), ring=(1, 2)),
]


def copy(
    reference: Reference, numbers: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """numbers, read by the reference and written in another dtype: three by three as
    the inputs and the final states of a convolution."""
    dim = -(-numbers.numel() // 3)
    x = torch.zeros(1, dim, 3, dtype=numbers.dtype)
    x.view(-1)[: numbers.numel()] = numbers
    given = {"x": x, "weight": torch.zeros(dim, 4)}
    inputs = {name: Array(v.shape, v.dtype).fill(v) for name, v in given.items()}
    outputs = {
        "out": Array((1, dim, 3), F64),
        "final_states_out": Array((1, dim, 3), dtype),
    }
    reference.run(Call("causal_conv1d_fwd", inputs, outputs))
    return outputs["final_states_out"].values().reshape(-1)[: numbers.numel()]


def summed(reference: Reference, terms: tuple[float, ...]) -> tuple[float, float]:
    """A sum of up to four terms, as the reference adds them one after the other, and
    how far fp32 may be off in it."""
    taps = torch.tensor([terms], dtype=torch.float32)
    ones = torch.ones(1, 1, len(terms))
    given = {"x": ones, "weight": taps}
    inputs = {name: Array(v.shape, v.dtype).fill(v) for name, v in given.items()}
    outputs = {"out": Array(ones.shape, torch.float32)}
    call = Call("causal_conv1d_fwd", inputs, outputs)
    out, bound = (reference.answer(call, wanted)["out"] for wanted in (False, True))
    return float(out[0, 0, -1]), float(bound[0, 0, -1])
