# SPDX-License-Identifier: Apache-2.0
"""The real callers: mamba_ssm and causal_conv1d, unchanged, on top of the stand-in
modules, against those packages' own reference functions; forward and backward, with
the tolerances of their own tests, on the device of --variant. Without the packages:
run ci/callers.sh."""

from __future__ import annotations

import itertools
import sys
from typing import Any, Dict, Iterator

import pytest
import torch

from .conftest import NOT_SUPPORTED


def upstream(name: str) -> Any:
    """A module of theirs; only what is not installed at all is a skip."""
    package = name.split(".")[0]
    try:
        __import__(package)
    except ModuleNotFoundError as absent:
        if absent.name != package:
            raise
        reason = f"{package} is not installed: run ci/callers.sh"
        pytest.skip(NOT_SUPPORTED + reason, allow_module_level=True)
    __import__(name)
    return sys.modules[name]


conv = upstream("causal_conv1d.causal_conv1d_interface")
scan = upstream("mamba_ssm.ops.selective_scan_interface")

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
SCAN = {F32: (6e-4, 2e-3), F16: (3e-3, 5e-3), BF16: (3e-2, 5e-2)}
CONV = {F32: (3e-4, 1e-3), F16: (3e-3, 5e-3), BF16: (1e-2, 5e-2)}
WEIGHTS = (1e-3, 1e-3)

Values = Dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def seeded(candidate: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All tensors are made where the variant runs; and what it is compared with
    computes in the dtype it has, not in tf32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    torch.set_default_device(candidate.device)
    yield
    torch.set_default_device(None)


def close(
    got: torch.Tensor,
    want: torch.Tensor,
    name: str,
    tolerance: tuple[float, float],
    factors: tuple[float, float] = (1, 1),
) -> None:
    rtol, atol = (factor * t for factor, t in zip(factors, tolerance))
    assert got.dtype == want.dtype and got.shape == want.shape, name
    assert torch.isfinite(want).all(), name
    torch.testing.assert_close(
        got, want, rtol=rtol, atol=atol, msg=lambda text: name + ": " + text
    )


def as_near(
    got: torch.Tensor, theirs: torch.Tensor, exact: torch.Tensor, name: str
) -> None:
    """To a result in fp32, by the norm, as their own reference in 16 bits is: where
    several products are rounded, each in its own order, no element has a bound that
    both keep. 1.3 is above what chance makes of two such errors of one size."""
    got, theirs, exact = got.detach(), theirs.detach(), exact.detach()
    errors = [float((t.float() - exact).norm()) for t in (got, theirs)]
    assert got.dtype == theirs.dtype and got.shape == theirs.shape, name
    assert 0 < errors[1] < 0.02 * float(exact.norm()), name
    assert errors[0] <= 1.3 * errors[1], f"{name}: {errors[0]}, theirs {errors[1]}"


def leaves(values: Values) -> Values:
    return {
        name: v.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        for name, v in values.items()
    }


def test_stand_ins_are_what_they_call() -> None:
    import mambarun

    for name in ("selective_scan_cuda", "causal_conv1d_cuda"):
        assert mambarun.which(name)["supplier"] == "mambarun", mambarun.which(name)


# ---- what is theirs alone: first, as it takes longest where it runs -----------------


def mamba(fast: bool = True) -> Any:
    from mamba_ssm.modules.mamba_simple import Mamba

    return Mamba(
        d_model=16, d_state=8, d_conv=4, expand=2, layer_idx=0, use_fast_path=fast
    )


def rms_norm() -> torch.Tensor:
    """mamba_inner_fn with b_rms_weight, c_rms_weight or dt_rms_weight, and RMSNorm."""
    return scan.rms_norm_forward(torch.randn(4, 8), torch.ones(8), None, 1e-6)


def step() -> torch.Tensor:
    """Mamba.step with selective_state_update."""
    module = mamba()
    return module.step(torch.randn(2, 1, 16), *module.allocate_inference_cache(2, 9))[0]


def mamba2() -> torch.Tensor:
    """Mamba2, which has a scan of its own."""
    return upstream("mamba_ssm").Mamba2(d_model=32, headdim=8)(torch.randn(2, 7, 32))


@pytest.mark.parametrize("theirs", [mamba2, rms_norm, step])
def test_what_insists_on_a_gpu(theirs: Any) -> None:
    """Triton kernels of theirs, with which mambarun has nothing to do."""
    try:
        result = theirs()
    except TypeError as insists:
        # torch.cuda.device(x.device.index) around the launch; a CPU has no index.
        pytest.skip(
            "{}{} is a triton kernel inside torch.cuda.device(None): {}".format(
                NOT_SUPPORTED, theirs.__doc__.rstrip("."), insists
            )
        )
    assert torch.isfinite(result).all()


# ---- selective_scan_fn -----------------------------------------------------------


def scan_values(
    dtype: torch.dtype,
    length: int,
    groups: int,
    complex: bool,
    B: str,
    C: str,
    z: bool,
    dim: int = 4,
    states: int = 8,
    batch: int = 2,
) -> Values:
    weight = torch.complex64 if complex else F32
    values = {
        "u": torch.randn(batch, dim, length, dtype=dtype),
        "delta": (0.5 * torch.rand(batch, dim, length)).to(dtype),
        "A": -0.5 * torch.rand(dim, states, dtype=F32).to(weight),
        "D": torch.randn(dim),
        "delta_bias": 0.5 * torch.rand(dim),
    }
    if complex:
        values["A"] = values["A"] + 1j * torch.randn(dim, states)
    for name, kind in (("B", B), ("C", C)):
        if kind == "constant":
            values[name] = torch.randn(dim, states, dtype=weight)
            continue
        shape: tuple[int, ...] = (batch, states, length * (2 if complex else 1))
        if kind == "grouped":
            shape = (batch, groups, *shape[1:])
        values[name] = torch.randn(shape, dtype=dtype)
    if z:
        values["z"] = torch.randn(batch, dim, length, dtype=dtype)
    return values


SCANS = [
    pytest.param(
        dtype, length, 1, False, "variable", "variable", True, id=f"{dtype}-L{length}"
    )
    for dtype, length in [*itertools.product(SCAN, (1, 7, 128, 300)), (F32, 2049)]
] + [
    pytest.param(
        F32,
        200,
        groups,
        complex,
        B,
        C,
        z,
        id="-".join(
            (
                "complex" if complex else "real",
                B + "B",
                C + "C",
                f"G{groups}",
                "z" if z else "noz",
            )
        ),
    )
    for complex, (B, C, groups), z in itertools.product(
        (False, True),
        [
            ("variable", "variable", 1),
            ("grouped", "grouped", 2),
            ("constant", "variable", 1),
            ("variable", "constant", 1),
            ("constant", "constant", 1),
            ("grouped", "constant", 2),
        ],
        (False, True),
    )
]


def scan_ref(**values: Any) -> Any:
    """Their reference, gated in fp32 as their kernel gates: on its own it would round
    silu(z) to 16 bits, and gradients would be off by more than their tolerance."""
    if "z" in values:
        values["z"] = values["z"].float()
    return scan.selective_scan_ref(**values)


@pytest.mark.parametrize("dtype, length, groups, complex, B, C, z", SCANS)
def test_selective_scan_fn(
    dtype: torch.dtype, length: int, groups: int, complex: bool, B: str, C: str, z: bool
) -> None:
    # Their reference takes time by the square of the length.
    sizes = {"dim": 1, "states": 2, "batch": 1} if length > 1000 else {}
    values = scan_values(dtype, length, groups, complex, B, C, z, **sizes)
    ours, theirs = leaves(values), leaves(values)
    constant_B = values["B"].dim() == 2  # its last state is another: contract of x
    options = {"delta_softplus": True, "return_last_state": True}
    out, state = scan.selective_scan_fn(**ours, **options)
    want, want_state = scan_ref(**theirs, **options)
    base, weights = SCAN[dtype], tuple(map(max, SCAN[dtype] if z else WEIGHTS, WEIGHTS))
    close(out, want, "out", base)
    if not constant_B:
        close(state, want_state, "last_state", base)
    gradient = torch.randn_like(out)
    out.backward(gradient)
    want.backward(gradient)
    rows = {
        "u": (base, (2, 2)),
        "delta": (base, (5, 10)),
        "A": (weights, (1, 5)),
        "D": (weights, (1, 1)),
        "z": (weights, (1, 1)),
        "delta_bias": (weights, (1, 1)),
    }
    for name in ("B", "C"):
        rows[name] = (weights if values[name].dim() == 2 else base, (1, 1))
    for name, leaf in ours.items():
        close(leaf.grad, theirs[name].grad, "d" + name, *rows[name])


def test_selective_scan_fn_of_strided_inputs() -> None:
    """Slices of one projection and 0-strides, as models make them."""
    batch, dim, length = 2, 6, 50
    xz = torch.randn(batch, 2 * dim, length)
    values = scan_values(F32, length, 1, False, "variable", "variable", False, dim=dim)
    delta = torch.rand(dim, batch * length).reshape(dim, batch, length).transpose(0, 1)
    values.update(u=xz[:, :dim], z=xz[:, dim:], delta=delta)
    assert not values["z"].is_contiguous() and not delta.is_contiguous()
    out = scan.selective_scan_fn(**values, delta_softplus=True)
    close(out, scan.selective_scan_ref(**values, delta_softplus=True), "out", SCAN[F32])
    total = scan.selective_scan_fn(**leaves(values), delta_softplus=True).sum()
    total.backward()  # dout has stride 0


# ---- mamba_inner_fn --------------------------------------------------------------


def inner_values(dtype: torch.dtype, complex: bool, B: str, C: str) -> Values:
    batch, dim, length, states, rank, width = 2, 12, 75, 5, 3, 4
    pairs = 2 * states if complex else states
    projected = rank + pairs * ((B == "variable") + (C == "variable"))
    weight = torch.complex64 if complex else F32
    values = {
        "xz": torch.randn(batch, 2 * dim, length, dtype=dtype),
        "conv1d_weight": torch.randn(dim, 1, width, dtype=F32),
        "conv1d_bias": torch.randn(dim, dtype=F32),
        "x_proj_weight": torch.randn(projected, dim, dtype=dtype) / dim**0.5,
        "delta_proj_weight": torch.randn(dim, rank, dtype=dtype) / rank**0.5,
        "out_proj_weight": torch.randn(dim // 2, dim, dtype=dtype) / dim**0.5,
        "A": -0.5 * torch.rand(dim, states).to(weight),
        "D": torch.randn(dim),
        "delta_bias": 0.5 * torch.rand(dim),
    }
    if complex:
        values["A"] = values["A"] + 1j * torch.randn(dim, states)
    for name, kind in (("B", B), ("C", C)):
        if kind == "constant":
            values[name] = torch.randn(dim, states, dtype=weight)
    return values


@pytest.fixture
def inner_ref(monkeypatch: pytest.MonkeyPatch) -> Any:
    """mamba_inner_ref calls causal_conv1d_fn and selective_scan_fn, which are under
    test here: give it their references."""

    def conv_ref(
        x: torch.Tensor, weight: torch.Tensor, bias: Any, activation: str
    ) -> Any:
        return conv.causal_conv1d_ref(x, weight, bias, activation=activation)

    def call(**values: Any) -> torch.Tensor:
        with monkeypatch.context() as patch:
            patch.setattr(scan, "causal_conv1d_fn", conv_ref)
            patch.setattr(scan, "selective_scan_fn", scan.selective_scan_ref)
            return scan.mamba_inner_ref(**values, out_proj_bias=None)

    return call


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize(
    "B, C", [*itertools.product(("variable", "constant"), repeat=2)]
)
@pytest.mark.parametrize("dtype, complex", [(F32, False), (F32, True), (BF16, False)])
def test_mamba_inner_fn(
    dtype: torch.dtype, complex: bool, B: str, C: str, level: int, inner_ref: Any
) -> None:
    values = inner_values(dtype, complex, B, C)
    ours, theirs = leaves(values), leaves(values)
    out = scan.mamba_inner_fn(**ours, out_proj_bias=None, checkpoint_lvl=level)
    want = inner_ref(**theirs)
    if dtype == F32:
        close(out, want, "out", SCAN[dtype])
    else:
        exact = inner_ref(**{name: value.float() for name, value in values.items()})
        as_near(out, want, exact, "out")
    gradient = torch.randn_like(out)
    out.backward(gradient)
    want.backward(gradient)
    for name, leaf in ours.items():
        got, wanted = leaf.grad, theirs[name].grad
        # Upstream tests out only. Each gradient has gone through several products in
        # dtype, so that errors are relative to its largest element.
        rtol, atol = SCAN[dtype]
        close(
            got,
            wanted,
            "d" + name,
            (rtol, atol + rtol * float(wanted.abs().max())),
            (5, 5),
        )


def test_mamba_inner_fn_with_bias_of_the_output(inner_ref: Any) -> None:
    """Forward only: upstream's own backward sums this bias's gradient to a scalar."""
    values = inner_values(F32, False, "variable", "variable")
    bias = torch.randn(values["out_proj_weight"].shape[0])
    out = scan.mamba_inner_fn(**values, out_proj_bias=bias)
    close(out, inner_ref(**values) + bias, "out", SCAN[F32])


# ---- causal_conv1d_fn ------------------------------------------------------------


def conv_x(
    dtype: torch.dtype, dim: int, length: int, channel_last: bool
) -> torch.Tensor:
    """A slice of something wider, as upstream's tests take it."""
    if channel_last:
        wide = torch.randn(2, length, dim + 16, dtype=dtype)
        return wide[:, :, 8 : 8 + dim].transpose(1, 2)
    return torch.randn(2, dim + 16, length, dtype=dtype)[:, 8 : 8 + dim]


@pytest.mark.parametrize("channel_last", [False, True])
@pytest.mark.parametrize("length", [1, 2, 8, 130, 784])
@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("dtype", list(CONV))
def test_causal_conv1d_fn(
    dtype: torch.dtype, width: int, length: int, channel_last: bool
) -> None:
    dim, states = 24, channel_last
    activation = None if length == 8 else "silu"
    values = {
        "x": conv_x(dtype, dim, length, channel_last),
        "weight": torch.randn(dim, width),
        "bias": torch.randn(dim),
    }
    if states:
        initial = torch.randn(2, width - 1, dim, dtype=dtype).transpose(1, 2)
        values["initial_states"] = initial
    ours, theirs = leaves(values), leaves(values)
    # leaves() are dense; the slice itself goes through the forward below.
    sliced = {**values, "x": values["x"]}
    options: dict[str, Any] = {"activation": activation, "return_final_states": states}
    got = conv.causal_conv1d_fn(**sliced, **options)
    want = conv.causal_conv1d_ref(**theirs, **options)
    got_leaf = conv.causal_conv1d_fn(**ours, **options)
    if states:
        (got, final), (want, want_final) = got, want
        got_leaf, final_leaf = got_leaf
        assert torch.equal(final, want_final) and torch.equal(final_leaf, want_final)
        # Upstream's tests: the loss sees the final states too.
        got_loss, want_loss = got_leaf + torch.sigmoid(final_leaf).sum(), want
        want_loss = want + torch.sigmoid(want_final).sum()
    else:
        got_loss, want_loss = got_leaf, want
    close(got, want, "out", CONV[dtype])
    close(got_leaf, want, "out of dense x", CONV[dtype])
    gradient = torch.randn_like(want)
    got_loss.backward(gradient)
    want_loss.backward(gradient)
    for name, leaf in ours.items():
        is_weight = name in ("weight", "bias")
        close(
            leaf.grad,
            theirs[name].grad,
            "d" + name,
            WEIGHTS if is_weight else CONV[dtype],
        )


def test_causal_conv1d_fn_of_sequences() -> None:
    """seq_idx equals one call per sequence, forward and backward."""
    dim, lengths = 16, (5, 1, 30, 2, 12)
    values = {
        "x": torch.randn(1, sum(lengths), dim).transpose(1, 2),
        "weight": torch.randn(dim, 4),
        "bias": torch.randn(dim),
    }
    ours, theirs = leaves(values), leaves(values)
    ids = torch.cat([torch.full((n,), i) for i, n in enumerate(lengths)]).int()[None]
    out = conv.causal_conv1d_fn(**ours, seq_idx=ids, activation="silu")
    x = theirs.pop("x")
    want = torch.cat(
        [
            conv.causal_conv1d_ref(part, **theirs, activation="silu")
            for part in x.split(list(lengths), dim=2)
        ],
        dim=2,
    )
    close(out, want, "out", CONV[F32])
    gradient = torch.randn_like(out)
    out.backward(gradient)
    want.backward(gradient)
    close(ours["x"].grad, x.grad, "dx", CONV[F32])
    for name in theirs:
        close(ours[name].grad, theirs[name].grad, "d" + name, WEIGHTS)


# ---- causal_conv1d_update --------------------------------------------------------


@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize("length", [0, 1, 4, 5])  # 0: x of two dimensions
@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("dtype", list(CONV))
def test_causal_conv1d_update(
    dtype: torch.dtype, width: int, length: int, ring: bool
) -> None:
    # Not fewer columns than positions: their reference scatters, and on a GPU which of
    # two values for one place stays is left to chance.
    batch, dim, columns = 5, 24, width + 3
    shape = (batch, dim, length) if length else (batch, dim)
    x, weight, bias = (
        torch.randn(shape, dtype=dtype),
        torch.randn(dim, width),
        torch.randn(dim),
    )
    state = torch.randn(batch, columns, dim, dtype=dtype).transpose(1, 2)
    state_ref = state.detach().clone()
    options: dict[str, Any] = {"activation": "silu"}
    if ring:
        options["cache_seqlens"] = torch.randint(0, 100, (batch,), dtype=torch.int32)
    out = conv.causal_conv1d_update(x, state, weight, bias, **options)
    want = conv.causal_conv1d_update_ref(x, state_ref, weight, bias, **options)
    assert torch.equal(state, state_ref)
    close(out, want, "out", CONV[dtype])


@pytest.mark.parametrize("dtype", list(CONV))
def test_causal_conv1d_update_of_named_rows(dtype: torch.dtype) -> None:
    """Each batch row names its state; below 0 is padding; the rest stays as it is."""
    dim, width = 24, 4
    rows = torch.tensor([7, -1, 2, 0], dtype=torch.int32)
    real = rows >= 0
    x, weight, bias = (
        torch.randn(4, dim, 1, dtype=dtype),
        torch.randn(dim, width),
        torch.randn(dim),
    )
    state = torch.randn(9, dim, width, dtype=dtype)
    state_ref, before = state[rows[real].long()], state.clone()
    out = conv.causal_conv1d_update(
        x, state, weight, bias, activation="silu", conv_state_indices=rows
    )
    want = conv.causal_conv1d_update_ref(
        x[real], state_ref, weight, bias, activation="silu"
    )
    close(out[real], want, "out", CONV[dtype])
    assert (out[~real] == 0).all()
    before[rows[real].long()] = state_ref
    assert torch.equal(state, before)


# ---- whole modules ---------------------------------------------------------------


def test_mamba_module_trains_the_same_both_ways() -> None:
    """The fused path and the one made of parts, with the same parameters."""
    fused, parts = mamba(), mamba(fast=False)
    parts.load_state_dict(fused.state_dict())
    x = torch.randn(2, 30, 16)
    results = [module(x) for module in (fused, parts)]
    close(results[0], results[1], "out", SCAN[F32])
    for result in results:
        (result**2).sum().backward()
    for (name, one), other in zip(fused.named_parameters(), parts.parameters()):
        largest = float(other.grad.abs().max())
        close(one.grad, other.grad, "d" + name, (1e-3, 1e-3 * largest))


def test_stepping_is_the_parallel_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mamba.step, with its scan of one position in torch: see the skips below."""
    module = mamba()
    monkeypatch.setattr(
        sys.modules[type(module).__module__], "selective_state_update", None
    )
    x = torch.randn(2, 9, 16)
    states = module.allocate_inference_cache(2, 9)
    with torch.no_grad():
        steps = [module.step(x[:, t : t + 1], *states)[0] for t in range(x.shape[1])]
        close(torch.cat(steps, dim=1), module(x), "out", SCAN[F32])
