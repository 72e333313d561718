# SPDX-License-Identifier: Apache-2.0
"""test_outputs.py - what comes back: shapes, dtypes, strides as upstream's *_like gives
them (contract.md 1.4), no gradient history; and what a call allocates: these outputs,
a named workspace, nothing else.
"""

import causal_conv1d_cuda as conv
import pytest
import selective_scan_cuda as plain
import selective_scan_cuda_core as core
import selective_scan_cuda_oflex as oflex
import torch
from torch.utils import _python_dispatch

BATCH, DIM, SEQLEN, STATES = 2, 6, 5, 4


def strided(shape, strides):
    """Random values in exactly this layout."""
    size = 1 + sum((n - 1) * s for n, s in zip(shape, strides))
    return torch.rand(size).as_strided(shape, strides)


# (strides of a (2, 6, L) argument, L, strides of its empty_like)
LAYOUTS = [
    ((5, 10, 1), 5, (5, 10, 1)),  # a view "d (b l) -> b d l"
    ((60, 5, 1), 5, (30, 5, 1)),  # half of a chunked (2, 12, 5)
    ((30, 1, 6), 5, (30, 1, 6)),  # channel-last
    ((70, 1, 14), 5, (30, 1, 6)),  # 6 of 14 channels, channel-last
    ((5, 0, 1), 5, (30, 5, 1)),  # expanded over the channels
    ((48, 8, 1), 5, (30, 5, 1)),  # cut off at the end
    ((6, 1, 1), 1, (6, 1, 1)),  # contiguous with L = 1
    ((12, 1, 12), 1, (6, 1, 6)),  # half of channel-last with L = 1
]
layouts = pytest.mark.parametrize("strides, seqlen, like", LAYOUTS)


def scan(u=None, delta=None, z=None, seqlen=SEQLEN, dtype=torch.float32):
    shape = (BATCH, DIM, seqlen)
    return [
        torch.rand(shape).to(dtype) if u is None else u,
        torch.rand(shape).to(dtype) if delta is None else delta,
        -torch.rand(DIM, STATES),
        torch.rand(BATCH, 2, STATES, seqlen).to(dtype),
        torch.rand(BATCH, 2, STATES, seqlen).to(dtype),
        torch.rand(DIM),
        torch.rand(shape).to(dtype) if z is None else z,
        torch.rand(DIM),
    ]


def without_z(arguments):
    return arguments[:6] + arguments[7:]


@layouts
def test_scan_out_has_deltas_layout_and_out_z_has_zs(strides, seqlen, like):
    shape = (BATCH, DIM, seqlen)
    out, x, out_z = plain.fwd(*scan(delta=strided(shape, strides), seqlen=seqlen), True)
    assert out.stride() == like
    assert out_z.stride() == torch.rand(shape).stride()
    out, x, out_z = plain.fwd(*scan(z=strided(shape, strides), seqlen=seqlen), True)
    assert out.stride() == torch.rand(shape).stride()
    assert out_z.stride() == like
    assert x.is_contiguous() and x.shape == (BATCH, DIM, 1, 2 * STATES)
    arguments = without_z(scan(delta=strided(shape, strides), seqlen=seqlen))
    assert core.fwd(*arguments, True, 1)[0].stride() == like
    assert oflex.fwd(*arguments, True, 1, True)[0].is_contiguous()


@layouts
def test_scan_gradients_have_the_layouts_of_their_arguments(strides, seqlen, like):
    shape = (BATCH, DIM, seqlen)
    usual = torch.rand(shape).stride()
    dout = torch.rand(shape)
    for name, index in (("u", 0), ("delta", 1), ("z", 7)):
        arguments = scan(**{name: strided(shape, strides)}, seqlen=seqlen)
        back = plain.bwd(*arguments, dout, None, dout, None, True, True)
        found = {i: back[i].stride() for i in (0, 1, 7)}
        assert found == {i: like if i == index else usual for i in (0, 1, 7)}
    arguments = without_z(scan(u=strided(shape, strides), seqlen=seqlen))
    back = oflex.bwd(*arguments, dout, None, True, 1)
    assert back[0].stride() == back[1].stride() == like


def test_scan_out_z_of_bwd_has_outs_layout():
    out = strided((BATCH, DIM, SEQLEN), (70, 1, 14))
    back = plain.bwd(*scan(), out, None, out, None, True, True)
    assert back[8].stride() == (30, 1, 6)


def test_scan_grouped_gradients_have_the_order_of_us_strides():
    u = strided((BATCH, DIM, SEQLEN), (5, 10, 1))
    delta = torch.rand(BATCH, 3, SEQLEN)
    arguments = without_z(scan(u=u, delta=delta))
    arguments[-1] = torch.rand(3)
    back = oflex.bwd(*arguments, u, None, True, 1)
    assert back[1].shape == (BATCH, 3, SEQLEN) and back[1].stride() == (5, 10, 1)
    assert back[6].shape == (3,)


def test_expanded_matrices_have_dense_gradients():
    arguments = scan()
    arguments[3] = strided((BATCH, 2, STATES, SEQLEN), (20, 0, 5, 1))
    arguments[4] = strided((BATCH, 2, STATES, SEQLEN), (64, 32, 8, 1))
    arguments[2] = torch.rand(STATES).neg().expand(DIM, STATES)
    dout = torch.rand(BATCH, DIM, SEQLEN)
    back = plain.bwd(*arguments, dout, None, dout, None, True, False)
    assert back[3].stride() == back[4].stride() == (40, 20, 5, 1)
    assert back[2].stride() == (STATES, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_scan_dtypes(dtype):
    arguments = scan(dtype=dtype)
    dout = torch.rand(BATCH, DIM, SEQLEN).to(dtype)
    results = plain.fwd(*arguments, True)
    assert [t.dtype for t in results] == [dtype, torch.float32, dtype]
    back = plain.bwd(*arguments, dout, None, dout, None, True, True)
    fp32 = torch.float32
    assert [t.dtype for t in back] == [
        *(dtype, dtype, fp32, dtype, dtype, fp32, fp32, dtype, dtype)
    ]


@layouts
def test_conv_outputs_have_xs_layout(strides, seqlen, like):
    x = strided((BATCH, DIM, seqlen), strides)
    weight, bias = torch.rand(DIM, 4), torch.rand(DIM)
    assert conv.causal_conv1d_fwd(x, weight, bias, True).stride() == like
    back = conv.causal_conv1d_bwd(
        x, weight, bias, torch.rand(BATCH, DIM, seqlen), None, None, None, None, 1, True
    )
    assert back[0].stride() == like
    assert back[3].shape == (BATCH, DIM, 3) and back[3].stride() == (18, 1, 6)
    state = torch.rand(BATCH, DIM, 4)
    out = conv.causal_conv1d_update(x, state, weight, bias, True, None)
    assert out.stride() == like


def test_conv_gradient_of_weight_has_its_layout():
    weight = torch.rand(4, DIM).t()
    x = torch.rand(BATCH, DIM, SEQLEN)
    back = conv.causal_conv1d_bwd(x, weight, None, x, None, True)
    assert back[1].stride() == (1, DIM)


def test_update_of_two_dimensions_keeps_its_layout():
    x = strided((BATCH, DIM), (1, 2))
    state = torch.rand(BATCH, DIM, 4)
    out = conv.causal_conv1d_update(x, state, torch.rand(DIM, 4), None, True)
    assert out.shape == (BATCH, DIM) and out.stride() == (1, 2)


def test_no_gradient_is_recorded_and_no_version_is_counted():
    arguments = [t.requires_grad_() for t in scan()]
    z, dz = arguments[6], torch.zeros(BATCH, DIM, SEQLEN)
    results = plain.fwd(*arguments, True)
    assert all(t.grad_fn is None and not t.requires_grad for t in results)
    before = dz._version
    back = plain.bwd(*arguments, z, None, results[0], dz, True, False)
    assert all(t.grad_fn is None and not t.requires_grad for t in back)
    assert dz._version == before and dz.any()
    state = torch.rand(BATCH, DIM, 4)
    before, values = state._version, state.clone()
    conv.causal_conv1d_update(z.detach(), state, torch.rand(DIM, 4), None, True, None)
    assert state._version == before and not torch.equal(state, values)


def test_results_are_fresh_lists():
    first, second = (plain.fwd(*scan(), True) for _ in range(2))
    assert type(first) is type(second) is list and first is not second
    first.append(None)
    assert len(plain.fwd(*scan(), True)) == 3


# ---- allocations ------------------------------------------------------------------


class Recorder(_python_dispatch.TorchDispatchMode):
    """Writes down the operators that reach torch's dispatcher from outside."""

    names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.__name__.partition(".")[0])
        return function(*args, **(kwargs or {}))


def operators(function, *arguments):
    """The torch operators that a call runs."""
    Recorder.names.clear()
    push = getattr(_python_dispatch, "push_torch_dispatch_mode", lambda mode: mode())
    with push(Recorder):  # torch 1.12 wants to be asked for its modes
        function(*arguments)
    return sorted(Recorder.names)


def strange():
    """Arguments that a shim which wanted contiguous ones would copy."""
    shape = (BATCH, DIM, SEQLEN)
    arguments = scan(*(strided(shape, (70, 1, 14)) for _ in range(3)))
    arguments[2] = -strided((DIM, STATES), (3, 40))
    arguments[3] = strided((BATCH, 2, STATES, SEQLEN), (7, 0, 2, 31))
    arguments[5] = strided((DIM,), (3,))
    arguments[7] = strided((DIM,), (0,))
    return arguments


SHAPE = (BATCH, DIM, SEQLEN)
OUT = strided(SHAPE, (70, 2, 14))
WEIGHT = strided((DIM, 4), (1, 9))
BIAS = strided((DIM,), (2,))
X = strided(SHAPE, (99, 2, 14))
STATE = strided((BATCH, DIM, 4), (3, 50, 7))
ALLOCATIONS = [  # function, arguments, outputs by empty_like, others
    # outputs: out, out_z; x
    (plain.fwd, (*strange(), True), 2, ["new_empty"]),
    # du ddelta dA dB dC dD ddelta_bias dz out_z; the workspace
    (plain.bwd, (*strange(), OUT, None, OUT, None, True, True), 9, ["empty"]),
    # dz is given, out_z not asked for
    (plain.bwd, (*strange(), OUT, None, OUT, X, True, False), 7, ["empty"]),
    # out, x
    (oflex.fwd, (*without_z(strange()), True, 1, True), 0, ["new_empty"] * 2),
    (oflex.bwd, (*without_z(strange()), OUT, None, True, 1), 7, ["empty"]),
    (core.fwd, (*without_z(strange()), True, 1), 1, ["new_empty"]),
    (core.bwd, (*without_z(strange()), OUT, None, True, 1), 7, ["empty"]),
    (conv.causal_conv1d_fwd, (X, WEIGHT, BIAS, True), 1, []),
    (conv.causal_conv1d_fwd, (X, WEIGHT, BIAS, None, None, OUT, None, True), 0, []),
    # dx dweight dbias; the workspace
    (conv.causal_conv1d_bwd, (X, WEIGHT, BIAS, OUT, None, True), 3, ["empty"]),
    # and dinitial_states, the transpose of a new tensor
    (
        conv.causal_conv1d_bwd,
        (X, WEIGHT, BIAS, OUT, None, None, None, None, True, True),
        3,
        ["empty", "new_empty", "transpose"],
    ),
    # everything is given; the workspace
    (
        conv.causal_conv1d_bwd,
        (X, WEIGHT, BIAS, OUT, None, None, None, OUT, WEIGHT, BIAS, None, True),
        0,
        ["empty"],
    ),
    # views of x and out with a third axis
    (
        conv.causal_conv1d_update,
        (X[..., 0], STATE, WEIGHT, BIAS, True),
        1,
        ["unsqueeze", "unsqueeze"],
    ),
    (conv.causal_conv1d_update, (X, STATE, WEIGHT, BIAS, True, None, None), 1, []),
    (conv.causal_conv1d_update, (X, STATE, WEIGHT, BIAS, OUT, True, None, None), 0, []),
]


@pytest.mark.parametrize("function, arguments, outputs, others", ALLOCATIONS)
def test_a_call_allocates_its_outputs_and_a_workspace(
    function, arguments, outputs, others
):
    expected = sorted(["empty_like"] * outputs + others)
    assert operators(function, *arguments) == expected


def test_the_library_allocates_nothing(run):
    """The peak of the process does not grow over many calls."""
    done = run(
        "import resource, torch, selective_scan_cuda as s\n"
        "torch.set_num_threads(2)\n"
        "u = torch.rand(2, 64, 500); A = -torch.rand(64, 16)\n"
        "B = torch.rand(2, 1, 16, 500)\n"
        "def step():\n"
        "    out, x, _ = s.fwd(u, u, A, B, B, None, u, None, True)\n"
        "    s.bwd(u, u, A, B, B, None, u, None, u, x, out, None, True, False)\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for _ in range(50): step()\n"
        "before = peak()\n"
        "for _ in range(300): step()\n"
        "print(peak() - before)"
    )
    assert int(done.stdout) < 2048, "KiB more after 300 calls"
