# SPDX-License-Identifier: Apache-2.0
"""Arrays of more than 2^31 elements, on a GPU: what lies far out is what the same rows
give alone, in arrays of a size that test_ops.py judges. Needs 50 GB there."""

from __future__ import annotations

from typing import Any, Iterator

import pytest
import torch

from .conftest import not_supported

BATCH, DIM, LENGTH, WIDTH = 2, 16_400, 65_536, 4
GIGABYTES = 50
#: first channels of the slices that are compared; in the second batch row the last two
#: lie around 2^31 elements, which is 2^32 bytes
CHANNELS = (0, 8_184, 16_376, 16_392)
SLICE = 8
HALF, FLOAT = torch.float16, torch.float32


@pytest.fixture(autouse=True)
def device(request: pytest.FixtureRequest, candidate: Any) -> Iterator[str]:
    if candidate.device == "cpu":
        not_supported(request.config, "needs a GPU variant: name one by --variant")
    free = torch.cuda.mem_get_info()[0] >> 30
    if free < GIGABYTES:
        not_supported(request.config, f"needs {GIGABYTES} GB of a GPU, {free} are free")
    torch.manual_seed(0)
    yield candidate.device
    torch.cuda.empty_cache()


def random(device: str) -> torch.Tensor:
    large = torch.empty(BATCH, DIM, LENGTH, dtype=HALF, device=device).normal_()
    assert large.numel() > 1 << 31
    return large


def close(got: torch.Tensor, want: torch.Tensor, what: str, part: float) -> None:
    """Within part of the largest element."""
    assert got.shape == want.shape, what
    worst = float((got.float() - want.float()).abs().max())
    largest = float(want.float().abs().max())
    assert 0 < largest < float("inf"), what
    assert worst <= part * largest, f"{what}: off by {worst}, largest {largest}"


def test_scan(device: str) -> None:
    import selective_scan_cuda as scan

    u, delta = random(device), random(device).abs_().mul_(0.2)
    A = -torch.rand(DIM, 1, device=device) - 0.1
    B = torch.randn(BATCH, 1, 1, LENGTH, device=device, dtype=HALF)
    C = torch.randn(BATCH, 1, 1, LENGTH, device=device, dtype=HALF)
    D, bias = torch.randn(DIM, device=device), torch.rand(DIM, device=device) * 0.1
    out, x = scan.fwd(u, delta, A, B, C, D, None, bias, True)[:2]
    dout = random(device)
    du, ddelta, dA, dB, dC, dD, dbias = scan.bwd(
        u, delta, A, B, C, D, None, bias, dout, x, None, None, True, False
    )[:7]

    def alone(channels: slice) -> list[torch.Tensor]:
        rows = [t[:, channels].contiguous() for t in (u, delta, dout)]
        weights = A[channels], B, C, D[channels], None, bias[channels]
        forward = scan.fwd(*rows[:2], *weights, True)
        backward = scan.bwd(
            *rows[:2], *weights, rows[2], forward[1], None, None, True, False
        )
        return [*forward[:2], *backward[:7]]

    for first in CHANNELS:
        channels = slice(first, first + SLICE)
        want = alone(channels)
        for name, large, small in zip(
            ("out", "x", "du", "ddelta"), (out, x, du, ddelta), (*want[:2], *want[2:4])
        ):
            close(large[:, channels], small, f"{name} of channel {first}", 2e-3)
        for name, large, small in zip(
            ("dA", "dD", "dbias"), (dA, dD, dbias), (want[4], *want[7:9])
        ):
            close(large[channels], small, f"{name} of channel {first}", 1e-3)
    del out, x, du, ddelta

    sums = [torch.zeros_like(t, dtype=FLOAT) for t in (dB, dC)]
    for first in range(0, DIM, DIM // 4):
        want = alone(slice(first, first + DIM // 4))
        for total, part in zip(sums, want[5:7]):
            total += part
    close(dB, sums[0], "dB", 4e-3)
    close(dC, sums[1], "dC", 4e-3)


@pytest.mark.parametrize("channel_last", (False, True))
def test_convolution(device: str, channel_last: bool) -> None:
    from mambarun.ops.causal_conv1d import causal_conv1d_bwd, causal_conv1d_fwd

    def layout(large: torch.Tensor) -> torch.Tensor:
        shape = (BATCH, LENGTH, DIM)
        return large.view(shape).transpose(1, 2) if channel_last else large

    x, dout = layout(random(device)), layout(random(device))
    weight = torch.randn(DIM, WIDTH, device=device)
    bias = torch.randn(DIM, device=device)
    out = causal_conv1d_fwd(x, weight, bias, True)
    dx, dweight, dbias = causal_conv1d_bwd(x, weight, bias, dout, None, True)
    for first in CHANNELS:
        channels = slice(first, first + SLICE)
        rows = [t[:, channels].contiguous() for t in (x, dout)]
        few = weight[channels], bias[channels]
        want = causal_conv1d_fwd(rows[0], *few, True)
        close(out[:, channels], want, f"out of channel {first}", 2e-3)
        want = causal_conv1d_bwd(rows[0], *few, rows[1], None, True)
        close(dx[:, channels], want[0], f"dx of channel {first}", 2e-3)
        close(dweight[channels], want[1], f"dweight of channel {first}", 1e-3)
        close(dbias[channels], want[2], f"dbias of channel {first}", 1e-3)
