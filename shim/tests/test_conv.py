# SPDX-License-Identifier: Apache-2.0
"""test_conv.py - every generation of causal_conv1d_cuda gives the oracle's results."""

import oracle
import pytest
import torch
from causal_conv1d_cuda import (
    causal_conv1d_bwd,
    causal_conv1d_fwd,
    causal_conv1d_update,
)

BATCH, DIM, SEQLEN = 2, 10, 13
FLOATS = [torch.float32, torch.float16, torch.bfloat16]


def make(width=4, dtype=torch.float32, wdtype=torch.float32):
    """x, weight, bias, dout."""
    torch.manual_seed(0)
    return (
        torch.randn(BATCH, DIM, SEQLEN).to(dtype),
        torch.randn(DIM, width).to(wdtype),
        torch.randn(DIM).to(wdtype),
        torch.randn(BATCH, DIM, SEQLEN).to(dtype),
    )


def ids():
    return torch.tensor([[0] * 5 + [1] * 8, [3] * 2 + [4] * 11], dtype=torch.int32)


def states(width=4, dtype=torch.float32):
    """As the layout of upstream's: channels next to each other."""
    return torch.randn(BATCH, width - 1, DIM).to(dtype).transpose(1, 2)


def truth(x, weight, bias, dout, seq_idx=None, initial=None, silu=True, dfinal=None):
    """out, final states, and the gradients of x, weight, bias, initial."""
    wides = [oracle.wide(t) for t in (x, weight, bias, initial)]
    out, final = oracle.conv(*wides[:3], seq_idx, wides[3], silu)
    return out, final, oracle.gradients([out, final], [dout, dfinal], wides)


@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_first_generation(width, silu, with_bias):
    x, weight, bias, dout = make(width)
    bias = bias if with_bias else None
    out, _, (dx, dweight, dbias, _) = truth(x, weight, bias, dout, silu=silu)
    oracle.close(causal_conv1d_fwd(x, weight, bias, silu), out, "out")
    back = causal_conv1d_bwd(x, weight, bias, dout, None, silu)
    assert type(back) is list and len(back) == 3
    oracle.close(back[0], dx, "dx")
    oracle.close(back[1], dweight, "dweight")
    assert (back[2] is None) is (bias is None)
    if with_bias:
        oracle.close(back[2], dbias, "dbias")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("wdtype", FLOATS)
def test_dtypes_of_x_and_weight_are_independent(dtype, wdtype):
    x, weight, bias, dout = make(4, dtype, wdtype)
    out, _, (dx, dweight, dbias, _) = truth(x, weight, bias, dout)
    found = causal_conv1d_fwd(x, weight, bias, True)
    assert found.dtype == dtype
    oracle.close(found, out, "out")
    back = causal_conv1d_bwd(x, weight, bias, dout, None, True)
    assert [t.dtype for t in back] == [dtype, wdtype, wdtype]
    for value, wanted in zip(back, (dx, dweight, dbias)):
        oracle.close(value, wanted)


def test_second_generation_has_seq_idx():
    x, weight, bias, dout = make()
    out, _, (dx, dweight, dbias, _) = truth(x, weight, bias, dout, ids())
    oracle.close(causal_conv1d_fwd(x, weight, bias, ids(), True), out, "out")
    back = causal_conv1d_bwd(x, weight, bias, dout, ids(), None, True)
    assert len(back) == 3
    for value, wanted in zip(back, (dx, dweight, dbias)):
        oracle.close(value, wanted)


def test_padding_gives_zero():
    x, weight, bias, dout = make()
    seq_idx = ids()
    seq_idx[:, -3:] = -1
    out = truth(x, weight, bias, dout, seq_idx)[0]
    found = causal_conv1d_fwd(x, weight, bias, seq_idx, True)
    oracle.close(found, out, "out")
    assert not found[:, :, -3:].any()


def test_third_generation_has_states():
    x, weight, bias, dout = make()
    initial, dfinal = states(), states()
    final_out = torch.full((BATCH, 3, DIM), float("nan")).transpose(1, 2)
    out, final, expected = truth(x, weight, bias, dout, None, initial, True, dfinal)
    found = causal_conv1d_fwd(x, weight, bias, None, initial, final_out, True)
    oracle.close(found, out, "out")
    assert torch.equal(final_out, final.float())
    back = causal_conv1d_bwd(
        x, weight, bias, dout, None, initial, dfinal, None, True, True
    )
    assert type(back) is list and len(back) == 4
    for value, wanted in zip(back, expected):
        oracle.close(value, wanted)
    back = causal_conv1d_bwd(
        x, weight, bias, dout, None, initial, dfinal, None, False, True
    )
    assert len(back) == 4 and back[3] is None


@pytest.mark.parametrize("generation", [6, 7, 10])
def test_dx_is_written_in_place_and_comes_back(generation):
    x, weight, bias, dout = make()
    both = torch.full((BATCH, 2 * DIM, SEQLEN), float("nan"))
    dx = both.chunk(2, dim=1)[0]
    between = {6: (), 7: (None,), 10: (None, None, None)}[generation]
    flags = (False, True) if generation == 10 else (True,)
    back = causal_conv1d_bwd(x, weight, bias, dout, *between, dx, *flags)
    assert back[0] is dx
    oracle.close(dx, truth(x, weight, bias, dout)[2][0], "dx")
    assert both[:, DIM:].isnan().all()


def test_fourth_generation_fills_what_it_is_given():
    x, weight, bias, dout = make()
    initial, dfinal = states(), states()
    out, final, expected = truth(x, weight, bias, dout, None, initial, True, dfinal)
    filled, final_out = torch.empty_like(x), torch.empty_like(initial)
    result = causal_conv1d_fwd(x, weight, bias, None, initial, filled, final_out, True)
    assert result is None
    oracle.close(filled, out, "out")
    assert torch.equal(final_out, final.float())
    dx, dinitial = torch.empty_like(x), torch.empty_like(initial)
    dweight, dbias = torch.ones_like(weight), torch.ones_like(bias)
    given = (dx, dweight, dbias, dinitial)
    result = causal_conv1d_bwd(
        x, weight, bias, dout, None, initial, dfinal, *given, True
    )
    assert result is None
    dweight -= 1  # it is added to
    dbias -= 1
    for value, wanted in zip(given, expected):
        oracle.close(value, wanted)


def test_layout_of_channels_last_gives_the_same():
    x, weight, bias, dout = make()
    last = x.transpose(1, 2).contiguous().transpose(1, 2)
    out = causal_conv1d_fwd(last, weight, bias, True)
    assert out.stride() == last.stride()
    assert torch.equal(out, causal_conv1d_fwd(x, weight, bias, True))
    first = causal_conv1d_bwd(x, weight, bias, dout, None, True)
    second = causal_conv1d_bwd(last, weight, bias, dout, None, True)
    for a, b in zip(first, second):
        oracle.close(b, a.double())


# ---- update -----------------------------------------------------------------------


def stepped(x, state, weight, bias, silu=True):
    """out and the new state of the linear mode, from the parallel oracle."""
    width, seqlen = weight.shape[1], x.shape[2]
    joined = torch.cat([state, x], -1)
    wides = [oracle.wide(t) for t in (joined, weight, bias)]
    out = oracle.conv(*wides, silu=silu)[0][..., -seqlen:]
    assert state.shape[2] >= width - 1
    return out, joined[..., -state.shape[2] :]


def test_update_of_two_dimensions():
    _, weight, bias, _ = make()
    x, state = torch.randn(BATCH, DIM), torch.randn(BATCH, DIM, 4)
    out, after = stepped(x[..., None], state, weight, bias)
    found = causal_conv1d_update(x, state, weight, bias, True)
    assert found.shape == x.shape
    oracle.close(found, out[..., 0], "out")
    assert torch.equal(state, after)


@pytest.mark.parametrize("more", [(None,), (None, None)])
@pytest.mark.parametrize("seqlen", [1, 3, 9])
def test_update_returns_out(more, seqlen):
    _, weight, bias, _ = make()
    x, state = torch.randn(BATCH, DIM, seqlen), torch.randn(BATCH, DIM, 5)
    out, after = stepped(x, state, weight, bias)
    oracle.close(causal_conv1d_update(x, state, weight, bias, True, *more), out)
    assert torch.equal(state, after)


def test_update_fills_out():
    _, weight, bias, _ = make()
    x, state = torch.randn(BATCH, DIM, 2), torch.randn(BATCH, DIM, 3)
    out, after = stepped(x, state, weight, bias)
    filled = torch.empty_like(x)
    assert (
        causal_conv1d_update(x, state, weight, bias, filled, True, None, None) is None
    )
    oracle.close(filled, out, "out")
    assert torch.equal(state, after)


def test_update_of_a_ring():
    _, weight, bias, _ = make()
    size, seen = 7, torch.tensor([0, 5], dtype=torch.int32)
    ring, x = torch.randn(BATCH, DIM, size), torch.randn(BATCH, DIM, 3)
    order = [[(int(n) - size + i) % size for i in range(size)] for n in seen]
    state = torch.stack([ring[b][:, order[b]] for b in range(BATCH)])
    out, _ = stepped(x, state, weight, bias)
    expected = ring.clone()
    for b in range(BATCH):
        for t in range(3):
            expected[b, :, (int(seen[b]) + t) % size] = x[b, :, t]
    oracle.close(causal_conv1d_update(x, ring, weight, bias, True, seen), out, "out")
    assert torch.equal(ring, expected)


def test_update_of_chosen_rows():
    _, weight, bias, _ = make()
    rows = torch.tensor([4, -1], dtype=torch.int32)
    pool, x = torch.randn(6, DIM, 4), torch.randn(BATCH, DIM, 1)
    out, after = stepped(x[:1], pool[4:5], weight, bias)
    expected = pool.clone()
    expected[4] = after[0]
    found = causal_conv1d_update(x, pool, weight, bias, True, None, rows)
    oracle.close(found[:1], out, "out")
    assert not found[1].any()
    assert torch.equal(pool, expected)
