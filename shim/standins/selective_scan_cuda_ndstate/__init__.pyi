from typing import Optional

from torch import Tensor

def fwd(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Optional[Tensor],
    delta_bias: Optional[Tensor],
    delta_softplus: bool,
    nrows: int,
    /,
) -> list[Tensor]: ...
def bwd(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Optional[Tensor],
    delta_bias: Optional[Tensor],
    dout: Tensor,
    x: Optional[Tensor],
    delta_softplus: bool,
    nrows: int,
    /,
) -> list[Optional[Tensor]]: ...
