# SPDX-License-Identifier: Apache-2.0
"""The scan in plain torch, to check the reference with: what autograd sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict

import torch
import torch.nn.functional as F

F64, C128 = torch.float64, torch.complex128
CHUNK = 2048
Values = Dict[str, torch.Tensor]


@dataclass(frozen=True)
class Plain:
    """One way to call the forward, and its backward."""

    id: str
    batch: int = 2
    dim: int = 4
    length: int = 11
    states: int = 3
    groups_B: int = 1  # 0: constant
    groups_C: int = 1
    delta_dim: int = 4
    complex: bool = False
    D: bool = True
    z: bool = False
    bias: bool = True
    softplus: bool = True
    delta_scale: float = 1

    entry = "selective_scan_fwd"
    backward_entry = "selective_scan_bwd"
    copied = ()

    @property
    def differentiable(self) -> list[str]:
        return ["out_z"] if self.z else ["out"]

    @property
    def differentiated(self) -> Plain:
        return self

    @property
    def scalars(self) -> dict[str, int]:
        return {"delta_softplus": int(self.softplus)}

    def values(self, chance: torch.Generator) -> Values:
        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=chance, dtype=F64)

        wide = (self.batch, self.dim, self.length)
        values = {"u": normal(*wide)}
        delta = normal(self.batch, self.delta_dim, self.length) * self.delta_scale
        values["delta"] = delta if self.softplus else delta.abs() / 2
        A = -torch.rand(self.dim, self.states, generator=chance, dtype=F64)
        values["A"] = torch.complex(A, normal(*A.shape)) if self.complex else A
        for name, groups in (("B", self.groups_B), ("C", self.groups_C)):
            if groups:
                length = (2 if self.complex else 1) * self.length
                values[name] = normal(self.batch, groups, self.states, length)
                continue
            values[name] = normal(self.dim, self.states)
            if self.complex:
                values[name] = torch.complex(
                    values[name], normal(self.dim, self.states)
                )
        if self.D:
            values["D"] = normal(self.dim)
        if self.z:
            values["z"] = normal(*wide)
        if self.bias:
            values["delta_bias"] = normal(self.delta_dim).abs()
        return values

    def empty(self, values: Values) -> Values:
        shape = (self.batch, self.dim, -(-self.length // CHUNK), 2 * self.states)
        outputs = {
            "out": torch.zeros_like(values["u"]),
            "x": torch.zeros(shape, dtype=values["A"].dtype),
        }
        if self.z:
            outputs["out_z"] = torch.zeros_like(values["u"])
        return outputs

    def coefficient(self, given: torch.Tensor) -> torch.Tensor:
        """B or C as (B, D, N, L)."""
        if given.dim() == 2:
            return given[None, :, :, None].expand(self.batch, -1, -1, self.length)
        if self.complex:
            pairs = given.reshape(*given.shape[:-1], self.length, 2)
            given = torch.view_as_complex(pairs)
        return given.repeat_interleave(self.dim // given.shape[1], dim=1)

    def torch(self, values: Values) -> Values:
        u, A = values["u"], values["A"]
        delta = values["delta"]
        if self.bias:
            delta = delta + values["delta_bias"][:, None]
        if self.softplus:
            delta = F.softplus(delta, threshold=20)
        delta = delta.repeat_interleave(self.dim // self.delta_dim, dim=1)
        B, C = self.coefficient(values["B"]), self.coefficient(values["C"])
        if not self.groups_B:
            B, C = torch.ones_like(B), B * C
        decay = torch.exp(delta[:, :, None] * A[None, :, :, None])
        into = B * (delta * u)[:, :, None]
        state, product, states, chunks = 0, 1, [], []
        for t in range(self.length):
            state = decay[..., t] * state + into[..., t]
            product = decay[..., t] * product
            states.append(state)
            if (t + 1) % CHUNK == 0 or t + 1 == self.length:
                chunks.append(torch.stack([product, state], dim=-1).flatten(-2))
        y = (C * torch.stack(states, dim=-1)).sum(2)
        if self.complex:
            y = 2 * y.real
        if self.D:
            y = y + values["D"][:, None] * u
        results = {"out": y, "x": torch.stack(chunks, dim=2)}
        if self.z:
            results["out_z"] = y * F.silu(values["z"])
        return results

    def backward(self, values: Values, results: Values, weights: Values) -> Any:
        given = {**values, "dout": weights[self.differentiable[0]], "x": results["x"]}
        outputs = {"d" + name: torch.zeros_like(v) for name, v in values.items()}
        if self.z:
            given["out"] = results["out"]
            outputs["out_z"] = torch.zeros_like(results["out"])
        return given, outputs, self.scalars

    def source_of(self, gradient: str) -> str:
        """The input whose gradient it is; out_z is a result, not a gradient."""
        return "" if gradient == "out_z" else gradient[1:]


PLAINS = [
    Plain("variable"),
    Plain("gated", z=True),
    Plain("bare", D=False, bias=False, softplus=False),
    Plain("gated-bare", z=True, D=False, bias=False, softplus=False),
    Plain("groups", groups_B=2, groups_C=2, z=True),
    Plain("group-per-channel", groups_B=4, groups_C=4),
    Plain("constant-B", groups_B=0),
    Plain("constant-C", groups_C=0, z=True),
    Plain("constant-B-C", groups_B=0, groups_C=0),
    Plain("constant-B-groups", groups_B=0, groups_C=2),
    Plain("complex", complex=True),
    Plain("complex-gated", complex=True, z=True, groups_B=2, groups_C=2),
    Plain("complex-constant-B", complex=True, groups_B=0),
    Plain("complex-constant-C", complex=True, groups_C=0, groups_B=2),
    Plain("complex-constant-B-C", complex=True, groups_B=0, groups_C=0),
    Plain("grouped-delta", delta_dim=2),
    Plain("one-delta", delta_dim=1, groups_B=2, groups_C=2, z=True),
    Plain("one", length=1, z=True),
    Plain("around-20", delta_scale=20, bias=False),
    Plain("chunks", batch=1, dim=2, delta_dim=2, length=2049, states=2, z=True),
    Plain(
        "chunks-constant-B",
        batch=1,
        dim=1,
        delta_dim=1,
        length=4097,
        states=1,
        groups_B=0,
    ),
]
