# SPDX-License-Identifier: Apache-2.0
"""selective_scan_cuda_core - mambarun's stand-in for the extension of VMamba."""

from mambarun import _hook

__all__ = ["bwd", "fwd"]

if _hook.ours(__name__):
    from mambarun.ops.selective_scan import core_bwd as bwd
    from mambarun.ops.selective_scan import core_fwd as fwd
