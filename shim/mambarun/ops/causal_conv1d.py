# SPDX-License-Identifier: Apache-2.0
"""causal_conv1d.py - the params structs of the convolution, and the functions of
causal_conv1d_cuda in each of their generations.
"""

from __future__ import annotations

import os

from .. import _dynamo, _lib
from .._lib import CALL, TENSOR, WORKSPACE, ArgumentError, Params
from .._signature import Overloads, Signature

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from torch import Tensor

FWD = Params(
    "causal_conv1d_fwd",
    (
        ("call", CALL),
        ("x", TENSOR),
        ("weight", TENSOR),
        ("bias", TENSOR),
        ("seq_idx", TENSOR),
        ("initial_states", TENSOR),
        ("out", TENSOR),
        ("final_states_out", TENSOR),
        ("silu_activation", "I"),
        ("reserved", "I"),
    ),
)
BWD = Params(
    "causal_conv1d_bwd",
    (
        ("call", CALL),
        ("x", TENSOR),
        ("weight", TENSOR),
        ("bias", TENSOR),
        ("dout", TENSOR),
        ("seq_idx", TENSOR),
        ("initial_states", TENSOR),
        ("dfinal_states", TENSOR),
        ("dx", TENSOR),
        ("dweight", TENSOR),
        ("dbias", TENSOR),
        ("dinitial_states", TENSOR),
        ("workspace", WORKSPACE),
        ("silu_activation", "I"),
        ("accumulate", "I"),
    ),
)
UPDATE = Params(
    "causal_conv1d_update",
    (
        ("call", CALL),
        ("x", TENSOR),
        ("conv_state", TENSOR),
        ("weight", TENSOR),
        ("bias", TENSOR),
        ("cache_seqlens", TENSOR),
        ("conv_state_indices", TENSOR),
        ("out", TENSOR),
        ("silu_activation", "I"),
        ("reserved", "I"),
    ),
)
PARAMS = (FWD, BWD, UPDATE)


# ---- causal_conv1d_cuda -----------------------------------------------------------
# The number of arguments names the generation; all of them are taken. Names below are
# those of the rows above.


def causal_conv1d_fwd(*args: Any, **kwargs: Any) -> Tensor | None:
    """The convolution forward, as Dao-AILab's causal_conv1d_cuda.causal_conv1d_fwd.

    causal_conv1d_fwd(x, weight, bias, silu_activation) -> out                  (1.0)
    (x, weight, bias, seq_idx, silu_activation) -> out                          (1.1)
    (x, weight, bias, seq_idx, initial_states, final_states_out,
     silu_activation) -> out                                             (1.2 to 1.5.0)
    (x, weight, bias, seq_idx, initial_states, out, final_states_out,
     silu_activation) -> None, out is written                       (1.5.1 and later)
    by position only.

        out[d, t] = act(bias[d] + sum over w of weight[d, w] x[d, t - (W - 1) + w])

    x (batch, dim, seqlen), weight (dim, width) with width 2 to 4, bias (dim,) or None:
    float32, float16 or bfloat16, each by itself. seq_idx (batch, seqlen) int32 or None:
    only taps of the same id count, and out is 0 where it is negative. initial_states
    (batch, dim, width - 1), what came before x, and final_states_out of that shape,
    written with what comes last: x's dtype, or None. Any strides.

    A returned out is new, of x's dtype and layout; nothing else is allocated.

    TypeError: wrong count, type or a keyword. RuntimeError: dtype, shape or device, an
    empty x, or nothing here can run it. No gradient is recorded. Source of the
    formulas: libmambarun/ops/causal_conv1d/README.md.
    """
    return _FWD(args, kwargs)  # type: ignore[no-any-return]


def causal_conv1d_bwd(*args: Any, **kwargs: Any) -> list[Tensor | None] | None:
    """The gradient of the convolution, as causal_conv1d_cuda.causal_conv1d_bwd.

    causal_conv1d_bwd(x, weight, bias, dout, dx, silu_activation)               (1.0)
    (x, weight, bias, dout, seq_idx, dx, silu_activation)                       (1.1)
        -> [dx, dweight, dbias]
    (x, weight, bias, dout, seq_idx, initial_states, dfinal_states, dx,
     return_dinitial_states, silu_activation)                            (1.2 to 1.5.0)
        -> [dx, dweight, dbias, dinitial_states]
    (x, weight, bias, dout, seq_idx, initial_states, dfinal_states, dx, dweight, dbias,
     dinitial_states, silu_activation)                              (1.5.1 and later)
        -> None; dx and dinitial_states are written, dweight and dbias added to
    by position only.

    Tensors as for causal_conv1d_fwd. dout: as x. dx: None, or a tensor like x that is
    written in place, through any strides, and comes back as the same object. dweight,
    dbias: float32 or the dtype of weight, bias; summed in fp32 and rounded once. dbias
    is None where bias is. dinitial_states (batch, dim, width - 1) with strides (dim
    (width - 1), 1, dim), or None. Results are new, except dx; scratch lives during the
    call.

    CAUSAL_CONV1D_DETERMINISTIC: 1 or 0 asks for a fixed order of sums or not; otherwise
    torch.use_deterministic_algorithms does. On the CPU the order is always fixed.
    Errors and source: see causal_conv1d_fwd.
    """
    return _BWD(args, kwargs)  # type: ignore[no-any-return]


def causal_conv1d_update(*args: Any, **kwargs: Any) -> Tensor | None:
    """One step or a few of the convolution, as causal_conv1d_cuda.causal_conv1d_update.

    causal_conv1d_update(x, conv_state, weight, bias, silu_activation) -> out
        with x (batch, dim) and conv_state (batch, dim, width)           (1.0 to 1.3)
    (x, conv_state, weight, bias, silu_activation, cache_seqlens) -> out        (1.4)
    (x, conv_state, weight, bias, silu_activation, cache_seqlens,
     conv_state_indices) -> out                                               (1.5.0)
    (x, conv_state, weight, bias, out, silu_activation, cache_seqlens,
     conv_state_indices) -> None, out is written                     (1.5.1 and later)
    by position only.

    x (batch, dim, seqlen). conv_state (batch, dim, state_len) of x's dtype, state_len
    at least width - 1: its last columns come before x, and it is shifted and gets x, in
    place. cache_seqlens (batch,) int32 or None: conv_state is a ring instead, x[t] goes
    to column (cache_seqlens[b] + t) % state_len. conv_state_indices (batch,) int32 or
    None: the row of conv_state for each row of x; below 0 out is 0 and no state is
    touched. Others as for causal_conv1d_fwd. Any strides.

    A returned out is new, of x's shape, dtype and layout; nothing else is allocated.
    IndexError: conv_state has fewer than three dimensions. Other errors and source: see
    causal_conv1d_fwd.
    """
    return _UPDATE(args, kwargs)  # type: ignore[no-any-return]


# Below, a function's suffix is the release that brought its argument list.


def _fwd_1_0(
    x: Tensor, weight: Tensor, bias: Tensor | None, silu_activation: bool
) -> Tensor:
    return _fwd_1_2(x, weight, bias, None, None, None, silu_activation)


def _fwd_1_1(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    seq_idx: Tensor | None,
    silu_activation: bool,
) -> Tensor:
    return _fwd_1_2(x, weight, bias, seq_idx, None, None, silu_activation)


def _fwd_1_2(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    seq_idx: Tensor | None,
    initial_states: Tensor | None,
    final_states_out: Tensor | None,
    silu_activation: bool,
) -> Tensor:
    out = _lib.torch.empty_like(x)
    FWD(
        (x, weight, bias, seq_idx, initial_states, out, final_states_out),
        silu_activation,
    )
    return out  # type: ignore[no-any-return]


def _fwd_1_5_1(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    seq_idx: Tensor | None,
    initial_states: Tensor | None,
    out: Tensor,
    final_states_out: Tensor | None,
    silu_activation: bool,
) -> None:
    FWD(
        (x, weight, bias, seq_idx, initial_states, out, final_states_out),
        silu_activation,
    )


def _bwd_1_0(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dout: Tensor,
    dx: Tensor | None,
    silu_activation: bool,
) -> list[Tensor | None]:
    return _bwd_1_1(x, weight, bias, dout, None, dx, silu_activation)


def _bwd_1_1(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dout: Tensor,
    seq_idx: Tensor | None,
    dx: Tensor | None,
    silu_activation: bool,
) -> list[Tensor | None]:
    results = _bwd_1_2(
        x, weight, bias, dout, seq_idx, None, None, dx, False, silu_activation
    )
    return results[:3]


def _bwd_1_2(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dout: Tensor,
    seq_idx: Tensor | None,
    initial_states: Tensor | None,
    dfinal_states: Tensor | None,
    dx: Tensor | None,
    return_dinitial_states: bool,
    silu_activation: bool,
) -> list[Tensor | None]:
    empty_like = _lib.torch.empty_like
    results = [
        empty_like(x) if dx is None else dx,
        empty_like(weight),
        None if bias is None else empty_like(bias),
        _empty_states(x, weight) if return_dinitial_states else None,
    ]
    BWD(
        (x, weight, bias, dout, seq_idx, initial_states, dfinal_states, *results),
        silu_activation,
        False,
        deterministic=_deterministic(),
    )
    return results


def _bwd_1_5_1(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dout: Tensor,
    seq_idx: Tensor | None,
    initial_states: Tensor | None,
    dfinal_states: Tensor | None,
    dx: Tensor,
    dweight: Tensor,
    dbias: Tensor | None,
    dinitial_states: Tensor | None,
    silu_activation: bool,
) -> None:
    results = (dx, dweight, dbias, dinitial_states)
    BWD(
        (x, weight, bias, dout, seq_idx, initial_states, dfinal_states, *results),
        silu_activation,
        True,
        deterministic=_deterministic(),
    )


def _update_1_0(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    silu_activation: bool,
) -> Tensor:
    if x.dim() != 2:
        raise ArgumentError(f"x must have shape (batch_size, dim): x.ndim is {x.dim()}")
    if conv_state.size(2) != weight.size(-1):
        raise ArgumentError(
            "conv_state must have shape (batch_size, dim, width): conv_state.shape[2] "
            f"is {conv_state.size(2)}, width is {weight.size(-1)}"
        )
    out = _lib.torch.empty_like(x)
    columns = x.unsqueeze(2), out.unsqueeze(2)
    UPDATE(
        (columns[0], conv_state, weight, bias, None, None, columns[1]), silu_activation
    )
    return out  # type: ignore[no-any-return]


def _update_1_4(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    silu_activation: bool,
    cache_seqlens: Tensor | None,
    conv_state_indices: Tensor | None = None,
) -> Tensor:
    out = _lib.torch.empty_like(x)
    _update_1_5_1(
        x,
        conv_state,
        weight,
        bias,
        out,
        silu_activation,
        cache_seqlens,
        conv_state_indices,
    )
    return out  # type: ignore[no-any-return]


def _update_1_5_1(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    silu_activation: bool,
    cache_seqlens: Tensor | None,
    conv_state_indices: Tensor | None,
) -> None:
    conv_state.size(2)  # a state without that axis is an IndexError, as upstream
    UPDATE(
        (x, conv_state, weight, bias, cache_seqlens, conv_state_indices, out),
        silu_activation,
    )


def _empty_states(x: Tensor, weight: Tensor) -> Tensor | None:
    """dinitial_states, channels next to each other. The library refuses other ranks."""
    if x.dim() != 3:
        return None
    batch, dim, _ = x.shape
    width = weight.size(-1)
    states = x.new_empty((batch, width - 1, dim))
    return states.transpose(1, 2)


def _deterministic() -> bool | None:
    """What the environment says, read at each call as upstream's; None: ask torch."""
    setting = os.environ.get("CAUSAL_CONV1D_DETERMINISTIC", "")
    return {"1": True, "0": False}.get(setting[:1])


# ---- the argument lists -----------------------------------------------------------

_INPUT = "x weight bias?"
_UPDATED = "x conv_state weight bias?"
_TENSOR = "torch.Tensor"
_LIST = "List[torch.Tensor]"

_FWD = Overloads(
    "causal_conv1d_fwd",
    Signature(
        f"{_INPUT} seq_idx? initial_states? out final_states_out? silu_activation:b",
        "None",
        _fwd_1_5_1,
    ),
    Signature(
        f"{_INPUT} seq_idx? initial_states? final_states_out? silu_activation:b",
        _TENSOR,
        _fwd_1_2,
    ),
    Signature(f"{_INPUT} seq_idx? silu_activation:b", _TENSOR, _fwd_1_1),
    Signature(f"{_INPUT} silu_activation:b", _TENSOR, _fwd_1_0),
)
_BWD = Overloads(
    "causal_conv1d_bwd",
    Signature(
        f"{_INPUT} dout seq_idx? initial_states? dfinal_states? dx dweight dbias? "
        "dinitial_states? silu_activation:b",
        "None",
        _bwd_1_5_1,
    ),
    Signature(
        f"{_INPUT} dout seq_idx? initial_states? dfinal_states? dx? "
        "return_dinitial_states:b silu_activation:b",
        _LIST,
        _bwd_1_2,
    ),
    Signature(f"{_INPUT} dout seq_idx? dx? silu_activation:b", _LIST, _bwd_1_1),
    Signature(f"{_INPUT} dout dx? silu_activation:b", _LIST, _bwd_1_0),
)
_UPDATE = Overloads(
    "causal_conv1d_update",
    Signature(
        f"{_UPDATED} out silu_activation:b cache_seqlens? conv_state_indices?",
        "None",
        _update_1_5_1,
    ),
    Signature(
        f"{_UPDATED} silu_activation:b cache_seqlens? conv_state_indices?",
        _TENSOR,
        _update_1_4,
    ),
    Signature(f"{_UPDATED} silu_activation:b cache_seqlens?", _TENSOR, _update_1_4),
    Signature(f"{_UPDATED} silu_activation:b", _TENSOR, _update_1_0),
)

_dynamo.hide(globals())
