# SPDX-License-Identifier: Apache-2.0
"""causal_conv1d_cuda - mambarun's stand-in for the extension of Dao-AILab's package."""

from mambarun import _hook

__all__ = ["causal_conv1d_bwd", "causal_conv1d_fwd", "causal_conv1d_update"]

if _hook.ours(__name__):
    from mambarun.ops.causal_conv1d import (
        causal_conv1d_bwd,
        causal_conv1d_fwd,
        causal_conv1d_update,
    )
