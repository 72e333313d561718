# SPDX-License-Identifier: Apache-2.0
"""selective_scan.py - the params structs of the scan, and the functions of
selective_scan_cuda and of VMamba's four modules over them.
"""

from __future__ import annotations

from .. import _dynamo, _lib
from .._lib import CALL, TENSOR, WORKSPACE, ArgumentError, Params, expected
from .._signature import Overloads, Signature

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from torch import Tensor

_CHUNK = 2048  # positions per item of x, upstream's number
_MOST_STATES = 256

FWD = Params(
    "selective_scan_fwd",
    (
        ("call", CALL),
        ("u", TENSOR),
        ("delta", TENSOR),
        ("A", TENSOR),
        ("B", TENSOR),
        ("C", TENSOR),
        ("D", TENSOR),
        ("z", TENSOR),
        ("delta_bias", TENSOR),
        ("out", TENSOR),
        ("x", TENSOR),
        ("out_z", TENSOR),
        ("delta_softplus", "I"),
        ("reserved", "I"),
    ),
)
BWD = Params(
    "selective_scan_bwd",
    (
        ("call", CALL),
        ("u", TENSOR),
        ("delta", TENSOR),
        ("A", TENSOR),
        ("B", TENSOR),
        ("C", TENSOR),
        ("D", TENSOR),
        ("z", TENSOR),
        ("delta_bias", TENSOR),
        ("dout", TENSOR),
        ("x", TENSOR),
        ("out", TENSOR),
        ("du", TENSOR),
        ("ddelta", TENSOR),
        ("dA", TENSOR),
        ("dB", TENSOR),
        ("dC", TENSOR),
        ("dD", TENSOR),
        ("ddelta_bias", TENSOR),
        ("dz", TENSOR),
        ("out_z", TENSOR),
        ("workspace", WORKSPACE),
        ("delta_softplus", "I"),
        ("reserved", "I"),
    ),
)
PARAMS = (FWD, BWD)


# ---- selective_scan_cuda ----------------------------------------------------------


def fwd(*args: Any, **kwargs: Any) -> list[Tensor]:
    """The scan forward, as state-spaces/mamba's selective_scan_cuda.fwd.

    fwd(u, delta, A, B, C, D, z, delta_bias, delta_softplus) -> [out, x] or
    [out, x, out_z] if z is given; by position only.

        h[t] = exp(delta[t] A) h[t-1] + delta[t] B[t] u[t],  y[t] = C[t] h[t] + D u[t]

    u, delta (batch, dim, seqlen): float32, float16 or bfloat16. A (dim, dstate):
    float32 or complex64, dstate at most 256. B, C: variable (batch, groups, dstate,
    seqlen) in u's dtype, with complex A (.., 2 seqlen) holding (re, im) pairs; or
    constant (dim, dstate) in A's dtype. D, delta_bias (dim,): float32 or None. z as u,
    or None. delta_softplus: delta = softplus(delta + delta_bias). Any strides.

    out, ungated, in u's dtype with delta's layout; x (batch, dim, ceil(seqlen/2048),
    2 dstate) in A's dtype, contiguous, state after each chunk at [..., 1::2]; out_z =
    y silu(z) with z's layout. All are new; nothing else is allocated or written.

    TypeError: wrong count, type or a keyword. IndexError: A has one dimension.
    RuntimeError: dtype, shape or device, or nothing here can run it. No gradient is
    recorded. Source of the formulas: libmambarun/ops/selective_scan/README.md.
    """
    return _FWD(args, kwargs)  # type: ignore[no-any-return]


def bwd(*args: Any, **kwargs: Any) -> list[Tensor | None]:
    """The gradient of fwd, as state-spaces/mamba's selective_scan_cuda.bwd.

    bwd(u, delta, A, B, C, D, z, delta_bias, dout, x, out, dz, delta_softplus,
    recompute_out_z) -> [du, ddelta, dA, dB, dC, dD, ddelta_bias], then dz if z is
    given, then out_z (None without z) if recompute_out_z; by position only.

    The first eight as for fwd. dout: as u, the gradient of out, of out_z if z is given.
    x: fwd's, may be None if seqlen is at most 2048. out: fwd's, needed with z. dz:
    None, or a tensor like z that is written in place, through any strides, and comes
    back as the same object.

    Shapes, dtypes and layouts of the gradients are those of their arguments; dD and
    ddelta_bias are None where the argument is. Sums over batch and groups are fp32 and
    in a fixed order. The results are new, except dz; scratch lives during the call.
    Errors and source: see fwd.
    """
    return _BWD(args, kwargs)  # type: ignore[no-any-return]


def _fwd(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> list[Tensor]:
    _refuse_grouped_delta(u, delta)
    out = _lib.torch.empty_like(delta)
    x = _empty_states(u, A)
    out_z = None if z is None else _lib.torch.empty_like(z)
    FWD((u, delta, A, B, C, D, z, delta_bias, out, x, out_z), delta_softplus)
    return [out, x] if out_z is None else [out, x, out_z]


def _bwd(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    dout: Tensor,
    x: Tensor | None,
    out: Tensor | None,
    dz: Tensor | None,
    delta_softplus: bool,
    recompute_out_z: bool,
) -> list[Tensor | None]:
    _refuse_grouped_delta(u, delta)
    _refuse_other_dtype("dout", dout, u)
    empty_like = _lib.torch.empty_like
    out_z = None
    if z is None:  # then upstream looks at neither
        out = dz = None
    else:
        dz = empty_like(z) if dz is None else dz
    if out is not None:
        _refuse_other_dtype("out", out, u)
        out_z = empty_like(out) if recompute_out_z else None
    forward = (u, delta, A, B, C, D, z, delta_bias)
    gradients = _gradients(*forward, ddelta=empty_like(delta))
    BWD((*forward, dout, x, out, *gradients, dz, out_z), delta_softplus)
    if z is not None:
        gradients.append(dz)
    if recompute_out_z:
        gradients.append(out_z)
    return gradients


def _empty_states(u: Tensor, A: Tensor) -> Any:
    """x; None if u has another rank, which the library then refuses. An A of one
    dimension is an IndexError, as upstream."""
    dstate = A.size(1)
    if u.dim() != 3:
        return None
    batch, dim, seqlen = u.shape
    shape = (batch, dim, -(-seqlen // _CHUNK), 2 * dstate)
    return u.new_empty(shape, dtype=A.dtype)


def _gradients(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    *,
    ddelta: Tensor,
) -> list[Tensor | None]:
    """du, ddelta, dA, dB, dC, dD, ddelta_bias: new, but for ddelta."""
    A.size(1)  # an A of one dimension is an IndexError, as upstream
    empty_like = _lib.torch.empty_like
    return [
        empty_like(u),
        ddelta,
        empty_like(A),
        empty_like(B),
        empty_like(C),
        None if D is None else empty_like(D),
        None if delta_bias is None else empty_like(delta_bias),
    ]


def _refuse_grouped_delta(u: Tensor, delta: Tensor) -> None:
    """The library takes a delta with fewer rows than u; only VMamba's oflex does."""
    if delta.shape != u.shape:
        raise ArgumentError(
            "delta must have shape (batch_size, dim, seqlen): delta.shape is "
            f"{tuple(delta.shape)}, u.shape is {tuple(u.shape)}"
        )


def _refuse_other_dtype(name: str, tensor: Tensor, u: Tensor) -> None:
    """The library takes a float32 dout and out beside a 16-bit u; only oflex does."""
    if tensor.dtype != u.dtype:
        raise ArgumentError(
            f"{expected(name + '.scalar_type() == input_type')}: {name}.dtype is "
            f"{tensor.dtype}, u.dtype is {u.dtype}"
        )


# ---- VMamba's modules -------------------------------------------------------------
# No z. A is real, B and C are variable. nrows chose a kernel's template at some time
# and never changes a result.


def oflex_fwd(*args: Any, **kwargs: Any) -> list[Tensor]:
    """The scan forward, as VMamba's selective_scan_cuda_oflex.fwd.

    fwd(u, delta, A, B, C, D, delta_bias, delta_softplus, nrows, out_float) -> [out, x];
    by position only.

    As selective_scan_cuda.fwd without z, for float32 A and (batch, groups, dstate,
    seqlen) B and C, except: out is contiguous, and float32 if out_float, else u's
    dtype. delta and delta_bias may be grouped: delta (batch, delta_dim, seqlen) with
    dim divisible by delta_dim, channel d using row d // (dim / delta_dim). nrows is
    ignored.
    """
    return _OFLEX_FWD(args, kwargs)  # type: ignore[no-any-return]


def oflex_bwd(*args: Any, **kwargs: Any) -> list[Tensor | None]:
    """The gradient of oflex_fwd, as VMamba's selective_scan_cuda_oflex.bwd.

    bwd(u, delta, A, B, C, D, delta_bias, dout, x, delta_softplus, nrows) -> [du,
    ddelta, dA, dB, dC, dD, ddelta_bias]; by position only.

    As selective_scan_cuda.bwd without z, except: dout is float32 or of u's dtype;
    ddelta has delta's shape and the order of u's strides; the sum over the channels
    that share a row of delta is fp32 and rounded once.
    """
    return _OFLEX_BWD(args, kwargs)  # type: ignore[no-any-return]


def core_fwd(*args: Any, **kwargs: Any) -> list[Tensor]:
    """The scan forward, as VMamba's selective_scan_cuda_core.fwd.

    fwd(u, delta, A, B, C, D, delta_bias, delta_softplus[, nrows]) -> [out, x]; by
    position only.

    As selective_scan_cuda.fwd without z, for float32 A and (batch, groups, dstate,
    seqlen) B and C. nrows is ignored. An A of one dimension with a B of three is
    ndstate_fwd's call: builds of February 2024 gave that kernel this name.
    """
    return _CORE_FWD(args, kwargs)  # type: ignore[no-any-return]


def core_bwd(*args: Any, **kwargs: Any) -> list[Tensor | None]:
    """The gradient of core_fwd, as VMamba's selective_scan_cuda_core.bwd.

    bwd(u, delta, A, B, C, D, delta_bias, dout, x, delta_softplus[, nrows]) or, as in
    January 2024, bwd(.., dout, x, out, delta_softplus) -> [du, ddelta, dA, dB, dC, dD,
    ddelta_bias]; by position only. Of 11 arguments, the tenth being a tensor or None
    means the old list, whose out is not looked at.

    As selective_scan_cuda.bwd without z.
    """
    return _CORE_BWD(args, kwargs)  # type: ignore[no-any-return]


def nrow_fwd(*args: Any, **kwargs: Any) -> list[Tensor]:
    """The scan forward, as VMamba's selective_scan_cuda_nrow.fwd.

    fwd(u, delta, A, B, C, D, delta_bias, delta_softplus, nrows) -> [out, x]; by
    position only.

    As core_fwd. nrows: dim must be divisible by groups * nrows, and dstate at most 256
    / nrows.
    """
    return _NROW_FWD(args, kwargs)  # type: ignore[no-any-return]


def nrow_bwd(*args: Any, **kwargs: Any) -> list[Tensor | None]:
    """The gradient of nrow_fwd, as VMamba's selective_scan_cuda_nrow.bwd.

    bwd(u, delta, A, B, C, D, delta_bias, dout, x, delta_softplus, nrows) -> [du,
    ddelta, dA, dB, dC, dD, ddelta_bias]; by position only. See nrow_fwd.
    """
    return _NROW_BWD(args, kwargs)  # type: ignore[no-any-return]


def ndstate_fwd(*args: Any, **kwargs: Any) -> list[Tensor]:
    """The scan forward with one state, as VMamba's selective_scan_cuda_ndstate.fwd.

    fwd(u, delta, A, B, C, D, delta_bias, delta_softplus, nrows) -> [out, x]; by
    position only.

    As core_fwd with the axis of length dstate = 1 left out: A (dim,), B and C (batch,
    groups, seqlen). x (batch, dim, ceil(seqlen/2048), 2). nrows is ignored.
    """
    return _NDSTATE_FWD(args, kwargs)  # type: ignore[no-any-return]


def ndstate_bwd(*args: Any, **kwargs: Any) -> list[Tensor | None]:
    """The gradient of ndstate_fwd, as VMamba's selective_scan_cuda_ndstate.bwd.

    bwd(u, delta, A, B, C, D, delta_bias, dout, x, delta_softplus, nrows) -> [du,
    ddelta, dA, dB, dC, dD, ddelta_bias]; by position only. dA (dim,), dB and dC
    (batch, groups, seqlen).
    """
    return _NDSTATE_BWD(args, kwargs)  # type: ignore[no-any-return]


def _oflex_fwd(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    nrows: int,
    out_float: bool,
) -> list[Tensor]:
    _refuse_non_vmamba(A, B, C)
    out = u.new_empty(u.shape, dtype=_lib.torch.float32 if out_float else u.dtype)
    x = _empty_states(u, A)
    FWD((u, delta, A, B, C, D, None, delta_bias, out, x, None), delta_softplus)
    return [out, x]


def _oflex_bwd(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    dout: Tensor,
    x: Tensor | None,
    delta_softplus: bool,
    nrows: int,
) -> list[Tensor | None]:
    _refuse_non_vmamba(A, B, C)
    rows = u if delta.shape == u.shape else u[:, : delta.shape[1]]
    ddelta = _lib.torch.empty_like(rows)
    return _backward(
        (u, delta, A, B, C, D, None, delta_bias), dout, x, ddelta, delta_softplus
    )


def _core_fwd(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    nrows: int = 1,
) -> list[Tensor]:
    if A.dim() == 1 and B.dim() == 3:
        return _ndstate_fwd(u, delta, A, B, C, D, delta_bias, delta_softplus, nrows)
    _refuse_non_vmamba(A, B, C)
    return _fwd(u, delta, A, B, C, D, None, delta_bias, delta_softplus)


def _core_bwd(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    dout: Tensor,
    x: Tensor | None,
    delta_softplus: bool,
    nrows: int = 1,
) -> list[Tensor | None]:
    if A.dim() == 1 and B.dim() == 3:
        return _ndstate_bwd(
            u, delta, A, B, C, D, delta_bias, dout, x, delta_softplus, nrows
        )
    _refuse_non_vmamba(A, B, C)
    _refuse_grouped_delta(u, delta)
    _refuse_other_dtype("dout", dout, u)
    ddelta = _lib.torch.empty_like(delta)
    return _backward(
        (u, delta, A, B, C, D, None, delta_bias), dout, x, ddelta, delta_softplus
    )


def _core_bwd_with_out(*args: Any) -> list[Tensor | None]:
    """The list of January 2024: an `out` that nothing needs before delta_softplus. A
    tensor of another rank there is a delta_softplus, before today's nrows."""
    out, delta_softplus = args[9:]
    if out is not None and out.dim() != 3:
        delta_softplus = bool(out)
    current = (*args[:9], delta_softplus)
    return _core_bwd(*current)


def _nrow_fwd(*args: Any) -> list[Tensor]:
    u, _, A, B, C, *_, nrows = args
    _refuse_nrows(u, A, B, C, nrows)
    return _core_fwd(*args)


def _nrow_bwd(*args: Any) -> list[Tensor | None]:
    u, _, A, B, C, *_, nrows = args
    _refuse_nrows(u, A, B, C, nrows)
    return _core_bwd(*args)


def _ndstate_fwd(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    nrows: int,
) -> list[Tensor]:
    _refuse_states(A, B, C)
    A, B, C = A.unsqueeze(1), B.unsqueeze(2), C.unsqueeze(2)
    return _core_fwd(u, delta, A, B, C, D, delta_bias, delta_softplus)


def _ndstate_bwd(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    dout: Tensor,
    x: Tensor | None,
    delta_softplus: bool,
    nrows: int,
) -> list[Tensor | None]:
    _refuse_states(A, B, C)
    A, B, C = A.unsqueeze(1), B.unsqueeze(2), C.unsqueeze(2)
    gradients = _core_bwd(u, delta, A, B, C, D, delta_bias, dout, x, delta_softplus)
    for i, axis in ((2, 1), (3, 2), (4, 2)):
        gradients[i] = gradients[i].squeeze(axis)  # type: ignore[union-attr]
    return gradients


def _backward(
    forward: tuple[Any, ...],
    dout: Tensor,
    x: Tensor | None,
    ddelta: Tensor,
    delta_softplus: bool,
) -> list[Tensor | None]:
    gradients = _gradients(*forward, ddelta=ddelta)
    BWD((*forward, dout, x, None, *gradients, None, None), delta_softplus)
    return gradients


def _refuse_non_vmamba(A: Tensor, B: Tensor, C: Tensor) -> None:
    """The library takes a complex A and constant B and C; VMamba's modules do not."""
    if A.is_complex():
        raise ArgumentError(
            f"{expected('weight_type == at::ScalarType::Float')}: A.dtype is {A.dtype}"
        )
    for name, tensor in (("B", B), ("C", C)):
        if tensor.dim() != 4:
            raise ArgumentError(
                f"{name} must have shape (batch_size, n_groups, dstate, seqlen): "
                f"{name}.ndim is {tensor.dim()}"
            )


def _refuse_states(A: Tensor, B: Tensor, C: Tensor) -> None:
    if A.dim() != 1:
        raise ArgumentError(f"A must have shape (dim): A.ndim is {A.dim()}")
    for name, tensor in (("B", B), ("C", C)):
        if tensor.dim() != 3:
            raise ArgumentError(
                f"{name} must have shape (batch_size, n_groups, seqlen): "
                f"{name}.ndim is {tensor.dim()}"
            )


def _refuse_nrows(u: Tensor, A: Tensor, B: Tensor, C: Tensor, nrows: int) -> None:
    _refuse_non_vmamba(A, B, C)
    rows = B.size(1) * nrows
    if rows < 1 or u.size(1) % rows:
        raise ArgumentError(
            f"dims should be dividable by n_groups * nrows: dim is {u.size(1)}, "
            f"n_groups is {B.size(1)}, nrows is {nrows}"
        )
    most = _MOST_STATES // nrows
    if A.size(1) > most:
        raise ArgumentError(
            f"selective_scan only supports state dimension <= {_MOST_STATES}: "
            f"A.size(1) is {A.size(1)}, with nrows {nrows} at most {most}"
        )


# ---- the argument lists -----------------------------------------------------------

_LIST = "List[torch.Tensor]"
_SCAN = "u delta A B C D? z? delta_bias?"
_PLAIN = "u delta A B C D? delta_bias?"

_FWD = Overloads("fwd", Signature(f"{_SCAN} delta_softplus:b", _LIST, _fwd))
_BWD = Overloads(
    "bwd",
    Signature(
        f"{_SCAN} dout x? out? dz? delta_softplus:b recompute_out_z:b", _LIST, _bwd
    ),
)
_OFLEX_FWD = Overloads(
    "fwd",
    Signature(f"{_PLAIN} delta_softplus:b nrows:i out_float:b", _LIST, _oflex_fwd),
)
_OFLEX_BWD = Overloads(
    "bwd", Signature(f"{_PLAIN} dout x? delta_softplus:b nrows:i", _LIST, _oflex_bwd)
)
_CORE_FWD = Overloads(
    "fwd",
    Signature(f"{_PLAIN} delta_softplus:b nrows:i", _LIST, _core_fwd),
    Signature(f"{_PLAIN} delta_softplus:b", _LIST, _core_fwd),
)
_CORE_BWD = Overloads(
    "bwd",
    Signature(f"{_PLAIN} dout x? out? delta_softplus:b", _LIST, _core_bwd_with_out),
    Signature(f"{_PLAIN} dout x? delta_softplus:b nrows:i", _LIST, _core_bwd),
    Signature(f"{_PLAIN} dout x? delta_softplus:b", _LIST, _core_bwd),
)
_NROW_FWD = Overloads(
    "fwd", Signature(f"{_PLAIN} delta_softplus:b nrows:i", _LIST, _nrow_fwd)
)
_NROW_BWD = Overloads(
    "bwd", Signature(f"{_PLAIN} dout x? delta_softplus:b nrows:i", _LIST, _nrow_bwd)
)
_NDSTATE_FWD = Overloads(
    "fwd", Signature(f"{_PLAIN} delta_softplus:b nrows:i", _LIST, _ndstate_fwd)
)
_NDSTATE_BWD = Overloads(
    "bwd", Signature(f"{_PLAIN} dout x? delta_softplus:b nrows:i", _LIST, _ndstate_bwd)
)

_dynamo.hide(globals())
