# SPDX-License-Identifier: Apache-2.0
"""selective_scan_cuda - mambarun's stand-in for the extension of state-spaces/mamba."""

from mambarun import _hook

__all__ = ["bwd", "fwd"]

if _hook.ours(__name__):
    from mambarun.ops.selective_scan import bwd, fwd
