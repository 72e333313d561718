# SPDX-License-Identifier: Apache-2.0
"""oracle.py - the scan and the convolution in float64 and plain torch, written from
their formulas, with autograd for the gradients. Slow, and meant to be read.
"""

import torch


def wide(tensor):
    """float64, or complex128; requires a gradient."""
    if tensor is None:
        return None
    to = torch.complex128 if tensor.is_complex() else torch.float64
    return tensor.detach().to(to).requires_grad_()


def scan(u, delta, A, B, C, D=None, z=None, delta_bias=None, softplus=False):
    """(out, out_z or None, last state): all in double."""
    batch, dim, seqlen = u.shape
    delta = delta + (0 if delta_bias is None else delta_bias[:, None])
    if softplus:
        delta = torch.nn.functional.softplus(delta)
    delta = delta.repeat_interleave(dim // delta.shape[1], dim=1)
    B, C = (per_channel(m, A, dim, seqlen) for m in (B, C))
    state = torch.zeros((batch, dim, A.shape[1]), dtype=A.dtype)
    columns = []
    for t in range(seqlen):
        step = delta[:, :, t, None]
        state = torch.exp(step * A) * state + step * B[..., t] * u[:, :, t, None]
        columns.append((state * C[..., t]).sum(-1))
    out = torch.stack(columns, -1) if columns else u.new_zeros(u.shape)
    out = 2 * out.real if A.is_complex() else out
    out = out + (0 if D is None else D[:, None] * u)
    out_z = None if z is None else out * torch.nn.functional.silu(z)
    return out, out_z, state


def per_channel(matrix, A, dim, seqlen):
    """B or C as (batch or 1, dim, dstate, seqlen)."""
    if matrix.dim() == 2:
        return matrix[None, :, :, None].expand(1, -1, -1, seqlen)
    if A.is_complex():
        pairs = matrix.reshape(*matrix.shape[:-1], seqlen, 2)
        matrix = torch.complex(pairs[..., 0], pairs[..., 1])
    return matrix.repeat_interleave(dim // matrix.shape[1], dim=1)


def conv(x, weight, bias=None, seq_idx=None, initial=None, silu=False):
    """(out, the last width - 1 inputs): all in double."""
    batch, dim, seqlen = x.shape
    width = weight.shape[1]
    if initial is None:
        initial = x.new_zeros((batch, dim, width - 1))
    padded = torch.cat([initial, x], -1)
    ids = torch.zeros((batch, seqlen)) if seq_idx is None else seq_idx
    before = ids[:, :1] if seq_idx is None else torch.full((batch, 1), -1)
    ids = torch.cat([before.expand(-1, width - 1).to(ids.dtype), ids], -1)
    out = x.new_zeros(x.shape) + (0 if bias is None else bias[:, None])
    for w in range(width):
        same = (ids[:, w : w + seqlen] == ids[:, width - 1 :])[:, None]
        out = out + weight[:, w, None] * padded[..., w : w + seqlen] * same
    out = torch.nn.functional.silu(out) if silu else out
    return out * (ids[:, None, width - 1 :] >= 0), padded[..., seqlen:]


def gradients(outputs, douts, inputs):
    """Of sum(outputs * douts) with respect to inputs; None for a None."""
    given = [i for i in inputs if i is not None]
    pairs = zip(outputs, douts)
    total = sum((o * d.double()).sum() for o, d in pairs if d is not None)
    found = iter(torch.autograd.grad(total, given, allow_unused=True))
    return [None if i is None else next(found) for i in inputs]


def close(value, expected, name=""):
    """As near as fp32 arithmetic has to be; 16-bit values as near as they can be."""
    tolerance = {torch.float16: 4e-3, torch.bfloat16: 3e-2}.get(value.dtype, 2e-4)
    expected = expected.detach()
    assert value.shape == expected.shape, name
    scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    error = (value.to(expected.dtype) - expected).abs()
    worst = float(error.max()) if error.numel() else 0.0
    bad = ~(error <= tolerance * (scale + expected.abs()))  # so that NaN is bad
    assert not bad.any(), f"{name}: off by {worst}, largest value {scale}"
