# SPDX-License-Identifier: Apache-2.0
"""With torch.use_deterministic_algorithms(True) the same call gives the same bits, run
after run, at sizes where the blocks of a GPU come in another order each time."""

from __future__ import annotations

from typing import Any, Callable, Iterator

import pytest
import torch

RUNS = 20
BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32


@pytest.fixture(autouse=True)
def device(candidate: Any) -> Iterator[str]:
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    yield candidate.device
    torch.use_deterministic_algorithms(False)


def all_equal(run: Callable[[], list[torch.Tensor | None]]) -> None:
    first = [t for t in run() if t is not None]
    assert all(torch.isfinite(t).all() for t in first)
    for number in range(1, RUNS):
        again = [t for t in run() if t is not None]
        for place, (a, b) in enumerate(zip(first, again)):
            assert torch.equal(a, b), f"result {place} of run {number} has other bits"


@pytest.mark.parametrize(
    "batch, dim, length, states, groups, dtype",
    (
        (4, 1536, 1024, 16, 1, BF16),
        (8, 768, 197, 16, 1, F16),
        (16, 768, 784, 1, 4, F16),
        (1, 512, 20_000, 16, 1, F32),
    ),
)
def test_scan(
    device: str,
    batch: int,
    dim: int,
    length: int,
    states: int,
    groups: int,
    dtype: torch.dtype,
) -> None:
    import selective_scan_cuda as scan

    def normal(*shape: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        return torch.randn(*shape, device=device).to(dtype)

    wide = (batch, dim, length)
    u, delta, z = normal(*wide), normal(*wide).abs() * 0.1, normal(*wide)
    A = -normal(dim, states, dtype=F32).abs()
    B, C = (normal(batch, groups, states, length) for _ in "BC")
    D, bias = normal(dim, dtype=F32), normal(dim, dtype=F32)
    arguments = (u, delta, A, B, C, D, z, bias)
    out, x, _ = scan.fwd(*arguments, True)
    dout = normal(*wide)
    all_equal(lambda: scan.fwd(*arguments, True))
    all_equal(
        lambda: scan.bwd(*arguments, dout, x, out, torch.empty_like(z), True, True)
    )


@pytest.mark.parametrize("channel_last", (False, True))
@pytest.mark.parametrize("dtype", (BF16, F32))
def test_convolution(device: str, dtype: torch.dtype, channel_last: bool) -> None:
    from mambarun.ops.causal_conv1d import causal_conv1d_bwd, causal_conv1d_fwd

    shape = (4, 2048, 1536) if channel_last else (4, 1536, 2048)
    x, dout = (torch.randn(shape, device=device).to(dtype) for _ in range(2))
    if channel_last:
        x, dout = x.transpose(1, 2), dout.transpose(1, 2)
    weight = torch.randn(1536, 4, device=device)
    bias = torch.randn(1536, device=device)
    all_equal(lambda: [causal_conv1d_fwd(x, weight, bias, True)])
    all_equal(lambda: causal_conv1d_bwd(x, weight, bias, dout, None, True))
