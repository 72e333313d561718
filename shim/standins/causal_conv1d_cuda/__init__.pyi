from typing import Optional, overload

from torch import Tensor

@overload
def causal_conv1d_fwd(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    seq_idx: Optional[Tensor],
    initial_states: Optional[Tensor],
    out: Tensor,
    final_states_out: Optional[Tensor],
    silu_activation: bool,
    /,
) -> None: ...
@overload
def causal_conv1d_fwd(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    seq_idx: Optional[Tensor],
    initial_states: Optional[Tensor],
    final_states_out: Optional[Tensor],
    silu_activation: bool,
    /,
) -> Tensor: ...
@overload
def causal_conv1d_fwd(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    seq_idx: Optional[Tensor],
    silu_activation: bool,
    /,
) -> Tensor: ...
@overload
def causal_conv1d_fwd(
    x: Tensor, weight: Tensor, bias: Optional[Tensor], silu_activation: bool, /
) -> Tensor: ...
@overload
def causal_conv1d_bwd(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    dout: Tensor,
    seq_idx: Optional[Tensor],
    initial_states: Optional[Tensor],
    dfinal_states: Optional[Tensor],
    dx: Tensor,
    dweight: Tensor,
    dbias: Optional[Tensor],
    dinitial_states: Optional[Tensor],
    silu_activation: bool,
    /,
) -> None: ...
@overload
def causal_conv1d_bwd(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    dout: Tensor,
    seq_idx: Optional[Tensor],
    initial_states: Optional[Tensor],
    dfinal_states: Optional[Tensor],
    dx: Optional[Tensor],
    return_dinitial_states: bool,
    silu_activation: bool,
    /,
) -> list[Optional[Tensor]]: ...
@overload
def causal_conv1d_bwd(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    dout: Tensor,
    seq_idx: Optional[Tensor],
    dx: Optional[Tensor],
    silu_activation: bool,
    /,
) -> list[Optional[Tensor]]: ...
@overload
def causal_conv1d_bwd(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    dout: Tensor,
    dx: Optional[Tensor],
    silu_activation: bool,
    /,
) -> list[Optional[Tensor]]: ...
@overload
def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    out: Tensor,
    silu_activation: bool,
    cache_seqlens: Optional[Tensor],
    conv_state_indices: Optional[Tensor],
    /,
) -> None: ...
@overload
def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Optional[Tensor],
    silu_activation: bool,
    cache_seqlens: Optional[Tensor] = ...,
    conv_state_indices: Optional[Tensor] = ...,
    /,
) -> Tensor: ...
