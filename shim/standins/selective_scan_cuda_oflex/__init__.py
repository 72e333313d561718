# SPDX-License-Identifier: Apache-2.0
"""selective_scan_cuda_oflex - mambarun's stand-in for the extension of VMamba."""

from mambarun import _hook

__all__ = ["bwd", "fwd"]

if _hook.ours(__name__):
    from mambarun.ops.selective_scan import oflex_bwd as bwd
    from mambarun.ops.selective_scan import oflex_fwd as fwd
