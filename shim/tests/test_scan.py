# SPDX-License-Identifier: Apache-2.0
"""test_scan.py - every argument list of selective_scan_cuda and of VMamba's modules
gives the oracle's results, in the shapes, dtypes and numbers that it promises.
"""

import oracle
import pytest
import selective_scan_cuda
import selective_scan_cuda_core
import selective_scan_cuda_ndstate
import selective_scan_cuda_nrow
import selective_scan_cuda_oflex
import torch

BATCH, DIM, SEQLEN, STATES, GROUPS = 2, 6, 19, 4, 2
FLOATS = [torch.float32, torch.float16, torch.bfloat16]


def make(dtype=torch.float32, rows=DIM, states=STATES, groups=GROUPS, complex_=False):
    """u, delta, A, B, C, D, z, delta_bias, dout, in the order of upstream."""
    torch.manual_seed(0)
    pairs = 2 if complex_ else 1
    A = -torch.rand(DIM, states)
    if complex_:
        A = torch.complex(A, torch.rand(DIM, states))
    return [
        torch.randn(BATCH, DIM, SEQLEN).to(dtype),
        (0.5 * torch.rand(BATCH, rows, SEQLEN)).to(dtype),
        A,
        torch.randn(BATCH, groups, states, SEQLEN * pairs).to(dtype),
        torch.randn(BATCH, groups, states, SEQLEN * pairs).to(dtype),
        torch.randn(DIM),
        torch.randn(BATCH, DIM, SEQLEN).to(dtype),
        0.5 * torch.rand(rows),
        torch.randn(BATCH, DIM, SEQLEN).to(dtype),
    ]


def truth(u, delta, A, B, C, D, z, delta_bias, dout, softplus=True, seen=None):
    """out, out_z, last state and the gradients of the arguments but dout. seen: what
    rounding made of out, which upstream's gradient of z uses."""
    wides = [oracle.wide(t) for t in (u, delta, A, B, C, D, z, delta_bias)]
    out, out_z, state = oracle.scan(*wides, softplus=softplus)
    return (
        out,
        out_z,
        state,
        oracle.gradients([out if z is None else out_z], [dout], wides),
    )


def check_gradients(found, expected, names="du ddelta dA dB dC dD ddelta_bias"):
    for name, value, wanted in zip(names.split(), found, expected):
        if wanted is None:
            assert value is None, name
        else:
            oracle.close(value, wanted, name)


def without_z(expected):
    *rest, _, ddelta_bias = expected
    return [*rest, ddelta_bias]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("with_z", [False, True])
def test_fwd_and_bwd_of_selective_scan_cuda(dtype, with_z):
    u, delta, A, B, C, D, z, bias, dout = make(dtype)
    z = z if with_z else None
    out, out_z, state, expected = truth(u, delta, A, B, C, D, z, bias, dout)
    results = selective_scan_cuda.fwd(u, delta, A, B, C, D, z, bias, True)
    assert type(results) is list and len(results) == 2 + with_z
    oracle.close(results[0], out, "out")
    oracle.close(results[1][:, :, -1, 1::2], state, "last state")
    back = selective_scan_cuda.bwd(
        u, delta, A, B, C, D, z, bias, dout, results[1], results[0], None, True, False
    )
    assert type(back) is list and len(back) == 7 + with_z
    check_gradients(back, without_z(expected))
    if with_z:
        oracle.close(results[2], out_z, "out_z")
        oracle.close(back[7], expected[6], "dz")


def test_recompute_out_z_adds_an_item():
    u, delta, A, B, C, D, z, bias, dout = make()
    out, x, out_z = selective_scan_cuda.fwd(u, delta, A, B, C, D, z, bias, True)
    forward = (u, delta, A, B, C, D)
    back = selective_scan_cuda.bwd(*forward, z, bias, dout, x, out, None, True, True)
    assert len(back) == 9
    oracle.close(back[8], out_z.double(), "out_z")
    back = selective_scan_cuda.bwd(*forward, None, bias, dout, x, out, None, True, True)
    assert len(back) == 8 and back[7] is None


def test_dz_is_written_in_place_and_comes_back():
    u, delta, A, B, C, D, z, bias, dout = make()
    out, x, _ = selective_scan_cuda.fwd(u, delta, A, B, C, D, z, bias, True)
    both = torch.full((BATCH, 2 * DIM, SEQLEN), float("nan"))
    dz = both.chunk(2, dim=1)[1]
    back = selective_scan_cuda.bwd(
        u, delta, A, B, C, D, z, bias, dout, x, out, dz, True, False
    )
    assert back[7] is dz
    assert both[:, :DIM].isnan().all()
    expected = truth(u, delta, A, B, C, D, z, bias, dout)[3]
    oracle.close(both[:, DIM:], expected[6], "dz")


@pytest.mark.parametrize("constant", ["B", "C", "BC"])
def test_constant_matrices(constant):
    u, delta, A, B, C, D, z, bias, dout = make(groups=1)
    B = torch.randn(DIM, STATES) if "B" in constant else B
    C = torch.randn(DIM, STATES) if "C" in constant else C
    out, _, _, expected = truth(u, delta, A, B, C, D, None, bias, dout)
    found, x = selective_scan_cuda.fwd(u, delta, A, B, C, D, None, bias, True)
    oracle.close(found, out, "out")
    back = selective_scan_cuda.bwd(
        u, delta, A, B, C, D, None, bias, dout, x, found, None, True, False
    )
    check_gradients(back, without_z(expected))


def test_complex_matrices():
    u, delta, A, B, C, D, z, bias, dout = make(complex_=True)
    out, _, state, expected = truth(u, delta, A, B, C, D, z, bias, dout)
    found, x, _ = selective_scan_cuda.fwd(u, delta, A, B, C, D, z, bias, True)
    assert x.dtype == torch.complex64
    oracle.close(found, out, "out")
    oracle.close(x[:, :, -1, 1::2], state, "last state")
    back = selective_scan_cuda.bwd(
        u, delta, A, B, C, D, z, bias, dout, x, found, None, True, False
    )
    check_gradients(back, without_z(expected))


def test_everything_optional_left_out():
    u, delta, A, B, C, _, _, _, dout = make()
    out, _, _, expected = truth(
        u, delta, A, B, C, None, None, None, dout, softplus=False
    )
    found, _ = selective_scan_cuda.fwd(u, delta, A, B, C, None, None, None, False)
    oracle.close(found, out, "out")
    back = selective_scan_cuda.bwd(
        u, delta, A, B, C, None, None, None, dout, None, None, None, False, False
    )
    check_gradients(back, without_z(expected))


def test_states_pass_from_chunk_to_chunk():
    torch.manual_seed(1)
    long = 2048 + 5
    u, delta = torch.randn(1, 2, long), 0.1 * torch.rand(1, 2, long)
    A, B, C = -torch.rand(2, 2), torch.randn(1, 1, 2, long), torch.randn(1, 1, 2, long)
    out, _, state = oracle.scan(*(oracle.wide(t) for t in (u, delta, A, B, C)))
    found, x = selective_scan_cuda.fwd(u, delta, A, B, C, None, None, None, False)
    assert x.shape == (1, 2, 2, 4)
    oracle.close(found, out, "out")
    oracle.close(x[:, :, -1, 1::2], state, "last state")


@pytest.mark.parametrize("out_float", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("rows", [DIM, 2])
def test_oflex(dtype, out_float, rows):
    u, delta, A, B, C, D, _, bias, dout = make(dtype, rows=rows)
    dout = dout.float() if out_float else dout
    out, _, _, expected = truth(u, delta, A, B, C, D, None, bias, dout)
    results = selective_scan_cuda_oflex.fwd(
        u, delta, A, B, C, D, bias, True, 1, out_float
    )
    assert type(results) is list and len(results) == 2
    assert results[0].dtype == (torch.float32 if out_float else dtype)
    oracle.close(results[0], out, "out")
    back = selective_scan_cuda_oflex.bwd(
        u, delta, A, B, C, D, bias, dout, results[1], True, 1
    )
    assert len(back) == 7 and back[1].shape == delta.shape
    assert back[0].dtype == back[1].dtype == dtype
    check_gradients(back, without_z(expected))


@pytest.mark.parametrize("module", [selective_scan_cuda_core, selective_scan_cuda_nrow])
def test_core_and_nrow(module):
    u, delta, A, B, C, D, _, bias, dout = make()
    out, _, _, expected = truth(u, delta, A, B, C, D, None, bias, dout)
    found, x = module.fwd(u, delta, A, B, C, D, bias, True, 3)
    oracle.close(found, out, "out")
    check_gradients(
        module.bwd(u, delta, A, B, C, D, bias, dout, x, True, 1), without_z(expected)
    )


def test_core_of_january_2024():
    u, delta, A, B, C, D, _, bias, dout = make()
    out, _, _, expected = truth(u, delta, A, B, C, D, None, bias, dout)
    forward = (u, delta, A, B, C, D, bias)
    found, x = selective_scan_cuda_core.fwd(*forward, True)
    oracle.close(found, out, "out")
    bwd = selective_scan_cuda_core.bwd
    for back in (
        bwd(*forward, dout, x, True),
        bwd(*forward, dout, x, None, True),
        bwd(*forward, dout, x, found, True),
    ):
        check_gradients(back, without_z(expected))


def test_core_with_eleven_arguments_is_decided_by_the_tenth():
    """Upstream's build would take the old None for softplus off, and say nothing."""
    u, delta, A, B, C, D, _, bias, dout = make()
    forward = (u, delta, A, B, C, D, bias)
    x = selective_scan_cuda_core.fwd(*forward, False)[1]
    bwd = selective_scan_cuda_core.bwd
    off = without_z(truth(*forward[:6], None, bias, dout, softplus=False)[3])
    check_gradients(bwd(*forward, dout, x, False, 1), off)
    check_gradients(bwd(*forward, dout, x, 0, 1), off)
    check_gradients(bwd(*forward, dout, x, torch.tensor(False), True), off)
    check_gradients(bwd(*forward, dout, x, None, False), off)


@pytest.mark.parametrize(
    "module", [selective_scan_cuda_ndstate, selective_scan_cuda_core]
)
def test_ndstate_has_no_axis_of_states(module):
    u, delta, A, B, C, D, _, bias, dout = make(states=1)
    out, _, _, expected = truth(u, delta, A, B, C, D, None, bias, dout)
    A, B, C = A[:, 0], B[:, :, 0], C[:, :, 0]
    found, x = module.fwd(u, delta, A, B, C, D, bias, True, 1)
    assert x.shape == (BATCH, DIM, 1, 2)
    oracle.close(found, out, "out")
    back = module.bwd(u, delta, A, B, C, D, bias, dout, x, True, 1)
    assert [back[i].shape for i in (2, 3, 4)] == [A.shape, B.shape, C.shape]
    du, ddelta, dA, dB, dC, dD, _, dbias = expected
    squeezed = [du, ddelta, dA[:, 0], dB[:, :, 0], dC[:, :, 0], dD, dbias]
    check_gradients(back, squeezed)


def test_strides_of_any_kind_give_the_same():
    u, delta, A, B, C, D, z, bias, dout = make()
    plain = selective_scan_cuda.fwd(u, delta, A, B, C, D, z, bias, True)
    strange = [
        u.transpose(1, 2).contiguous().transpose(1, 2),
        delta.flip(1).flip(1)[:, :, ::1].expand(BATCH, DIM, SEQLEN),
        torch.stack([A, A], -1)[..., 0],
        torch.cat([B, B], 2)[:, :, ::1][:, :, :STATES],
        C.permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0),
        torch.stack([D, D], -1)[:, 1],
        torch.cat([z, z], 2)[..., SEQLEN:],
        torch.stack([bias, bias], -1)[:, 0],
    ]
    for a, b in zip(plain, selective_scan_cuda.fwd(*strange, True)):
        oracle.close(b, a.double())


def test_no_sequence_gives_empty_results_and_zero_gradients():
    u, delta, A, B, C, D, z, bias, dout = make()
    u, delta, z, dout = (t[:, :, :0] for t in (u, delta, z, dout))
    B, C = B[..., :0], C[..., :0]
    out, x, out_z = selective_scan_cuda.fwd(u, delta, A, B, C, D, z, bias, True)
    assert out.shape == out_z.shape == (BATCH, DIM, 0)
    assert x.shape == (BATCH, DIM, 0, 2 * STATES)
    back = selective_scan_cuda.bwd(
        u, delta, A, B, C, D, z, bias, dout, x, out, None, True, False
    )
    assert len(back) == 8
    assert all(not gradient.any() for gradient in back)
