# SPDX-License-Identifier: Apache-2.0
"""Argument lists of causal_conv1d_cuda, newest first: the number of arguments names the
generation."""

from __future__ import annotations

from typing import Any

from ...modules import Form
from ...providers import Call

MODULE = "causal_conv1d_cuda"
INPUT = "x weight bias?"
STATE = "x conv_state weight bias?"


def _gradients(call: Call) -> list[str | None]:
    return ["dx", "dweight", "dbias" if "bias" in call.inputs else None]


def _all_gradients(call: Call) -> list[str | None]:
    wanted = "dinitial_states" in call.outputs
    return [*_gradients(call), "dinitial_states" if wanted else None]


def _weight_dtypes(call: Call) -> str:
    """Gradients of weight and bias come back in their dtypes."""
    for name in ("weight", "bias"):
        if name not in call.inputs:
            continue
        if call.outputs["d" + name].dtype != call.inputs[name].dtype:
            return f"d{name} has {name}'s dtype here"
    return ""


def _one_position(call: Call) -> str:
    if call.outputs["conv_state"].shape[2] != call.inputs["weight"].shape[1]:
        return "conv_state is as long as the width here"
    return ""


def _wants_states(call: Call) -> bool:
    return "dinitial_states" in call.outputs


def _fwd(names: str, since: str, returns: bool = True) -> Form:
    return Form(
        MODULE,
        "causal_conv1d_fwd",
        "causal_conv1d_fwd",
        f"{INPUT} {names} silu_activation:b",
        lambda call: "out" if returns else None,
        since,
        like={"out": "x"},
    )


def _bwd(names: str, since: str, results: Any = _gradients, **more: Any) -> Form:
    return Form(
        MODULE,
        "causal_conv1d_bwd",
        "causal_conv1d_bwd",
        f"{INPUT} dout {names} silu_activation:b",
        results,
        since,
        like={"dx": "x", "dweight": "weight"},
        **more,
    )


def _update(names: str, since: str, returns: bool = True, **more: Any) -> Form:
    return Form(
        MODULE,
        "causal_conv1d_update",
        "causal_conv1d_update",
        f"{STATE} {names}",
        lambda call: "out" if returns else None,
        since,
        like={"out": "x"},
        **more,
    )


FORMS = [
    _fwd("seq_idx? initial_states? out final_states_out?", "1.5.1", returns=False),
    _fwd("seq_idx? initial_states? final_states_out?", "1.2.0"),
    _fwd("seq_idx?", "1.1.0"),
    _fwd("", "1.0.0"),
    _bwd(
        "seq_idx? initial_states? dfinal_states? dx dweight dbias? dinitial_states?",
        "1.5.1",
        results=lambda call: None,
        adds=("dweight", "dbias"),
    ),
    _bwd(
        "seq_idx? initial_states? dfinal_states? dx? return_dinitial_states:b",
        "1.2.0",
        results=_all_gradients,
        lacks=_weight_dtypes,
        extra={"return_dinitial_states": _wants_states},
    ),
    _bwd("seq_idx? dx?", "1.1.0", lacks=_weight_dtypes),
    _bwd("dx?", "1.0.0", lacks=_weight_dtypes),
    _update(
        "out silu_activation:b cache_seqlens? conv_state_indices?",
        "1.5.1",
        returns=False,
    ),
    _update("silu_activation:b cache_seqlens? conv_state_indices?", "1.5.0"),
    _update("silu_activation:b cache_seqlens?", "1.4.0"),
    _update("silu_activation:b", "1.0.0", lacks=_one_position, drop={"x": 2, "out": 2}),
]
