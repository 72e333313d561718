# SPDX-License-Identifier: Apache-2.0
"""causal_conv1d.py - the params structs of the convolution, and the functions of
causal_conv1d_cuda in each of their generations.
"""

from __future__ import annotations

from .._lib import CALL, TENSOR, WORKSPACE, Params

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
