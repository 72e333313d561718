from typing import Optional

from torch import Tensor

def fwd(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Optional[Tensor],
    z: Optional[Tensor],
    delta_bias: Optional[Tensor],
    delta_softplus: bool,
    /,
) -> list[Tensor]: ...
def bwd(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Optional[Tensor],
    z: Optional[Tensor],
    delta_bias: Optional[Tensor],
    dout: Tensor,
    x: Optional[Tensor],
    out: Optional[Tensor],
    dz: Optional[Tensor],
    delta_softplus: bool,
    recompute_out_z: bool,
    /,
) -> list[Optional[Tensor]]: ...
