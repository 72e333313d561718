# SPDX-License-Identifier: Apache-2.0
"""selective_scan.py - the params structs of the scan, and the functions of
selective_scan_cuda and of VMamba's four modules over them.
"""

from __future__ import annotations

from .._lib import CALL, TENSOR, WORKSPACE, Params

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
