# SPDX-License-Identifier: Apache-2.0
"""Where the original causal_conv1d_cuda is known to deviate, and why. Files and lines
are those of Dao-AILab/causal-conv1d v1.6.1, in csrc/."""

from __future__ import annotations

import torch

from ...modules import Known, aligned
from ...providers import Call

ALL = ("causal_conv1d_cuda",)
STATES = ("initial_states", "final_states_out", "dfinal_states", "dinitial_states")
GRID_Y = 65_535
BLOCK_OF_TIME = 64  # channel-last
CHUNK_OF_CHANNELS = {4: 32, 2: 64}  # by the bytes of an element


def _steps(call: Call) -> bool:
    return call.entry.endswith("_update")


def _channel_last(call: Call) -> bool:
    strides = call.inputs["x"].strides
    return strides[1] == 1 and strides[2] > 1


def _copied(call: Call, name: str) -> bool:
    """A dout that lies otherwise than x does is copied first."""
    axis = 1 if _channel_last(call) else 2
    return name == "dout" and call.inputs["dout"].strides[axis] != 1


def _layout(call: Call) -> bool:
    """x lies otherwise than by channel or by time, or by time with odd strides."""
    x = call.inputs["x"]
    if _steps(call):
        return False
    if not _channel_last(call):
        return 1 not in x.strides[1:]
    wide = [n for n in ("x", "dout") if n in call.inputs and not _copied(call, n)]
    odd = [call.inputs[n].strides[axis] % 8 for n in wide for axis in (0, 2)]
    return bool(x.shape[1] % 8 or any(odd))


def _dtypes_of_bias(call: Call) -> bool:
    bias = call.inputs.get("bias")
    return bias is not None and bias.dtype != call.inputs["weight"].dtype


def _vectors(call: Call) -> bool:
    """bias, seq_idx, cache_seqlens and conv_state_indices with gaps."""
    names = ("bias", "seq_idx", "cache_seqlens", "conv_state_indices")
    given = [call.inputs[n] for n in names if n in call.inputs]
    return any(array.strides[-1] != 1 for array in given) or (
        "seq_idx" in call.inputs
        and call.inputs["seq_idx"].strides[0] != call.inputs["seq_idx"].shape[1]
    )


def _needs_channel_last(call: Call) -> bool:
    special = {"seq_idx", *STATES} & {*call.arrays()}
    return not _steps(call) and bool(special) and not _channel_last(call)


def _strides_of_states(call: Call) -> bool:
    named = [n for n in STATES if n in call.arrays() and n != "dfinal_states"]
    return any(call.arrays()[n].strides[1] != 1 for n in named)


def _unlike_x(call: Call) -> bool:
    """An out or dx, which nothing checks, in another layout than x."""
    names = [n for n in ("out", "dx") if n in call.outputs]
    axis = 1 if _channel_last(call) else 2
    return not _steps(call) and any(
        call.outputs[n].strides[axis] != 1 and call.outputs[n].shape[axis] > 1
        for n in names
    )


def _misaligned(call: Call) -> bool:
    if _steps(call):
        return False
    arrays, x = call.arrays(), call.inputs["x"]
    names = ["x", "out", "dout", "dx"]
    if _channel_last(call):
        names += STATES
    elif x.shape[2] % (16 // x.flat().element_size()):
        return False
    seen = [n for n in names if n in arrays and not _copied(call, n)]
    return not all(aligned(arrays[n]) for n in seen)


def _gradient_dtypes(call: Call) -> bool:
    names = [n for n in ("dweight", "dbias") if n in call.outputs]
    return any(call.outputs[n].dtype != torch.float32 for n in names)


def _not_finite_by_time(call: Call) -> bool:
    wide = [a for n, a in call.inputs.items() if n in ("x", "dout")]
    finite = all(torch.isfinite(array.values()).all() for array in wide)
    return call.entry.endswith("_bwd") and not finite and not _channel_last(call)


def _short_last_chunk(call: Call) -> bool:
    """Fewer positions than a vector's remain for the last of several chunks."""
    x = call.inputs["x"]
    vector = 16 // x.flat().element_size()
    chunk = 128 * vector
    rest = x.shape[2] % chunk
    alone = x.shape[2] < chunk or _channel_last(call) or not call.entry.endswith("_bwd")
    silu = call.scalars["silu_activation"]
    return bool(silu) and not alone and 0 < rest < vector


def _in_place(call: Call) -> bool:
    """By channel, over an input, in more than one block of time."""
    inputs = {array.buffer.data_ptr() for array in call.inputs.values()}
    over = any(array.buffer.data_ptr() in inputs for array in call.outputs.values())
    longer = call.inputs["x"].shape[2] > BLOCK_OF_TIME
    return over and longer and not _steps(call) and _channel_last(call)


def _strided_dfinal(call: Call) -> bool:
    states = call.inputs.get("dfinal_states")
    if states is None or states.strides[1] == 1:
        return False
    return states.shape[1] > CHUNK_OF_CHANNELS[states.flat().element_size()]


KNOWN = [
    Known(
        ALL,
        "refuses",
        "causal_conv1d.cpp:175: x must lie by time or by channel, by channel with a "
        "number of channels and strides that 8 divides",
        _layout,
    ),
    Known(
        ALL,
        "refuses",
        "causal_conv1d.cpp:158: bias must have weight's dtype",
        _dtypes_of_bias,
    ),
    Known(
        ALL,
        "refuses",
        "causal_conv1d.cpp:158: bias and the integers must lie dense",
        _vectors,
    ),
    Known(
        ALL,
        "refuses",
        "causal_conv1d.cpp:158: seq_idx and states want an x that lies by channel",
        _needs_channel_last,
    ),
    Known(
        ALL,
        "refuses",
        "causal_conv1d.cpp:158: the channels of states must lie side by side",
        _strides_of_states,
    ),
    Known(
        ALL,
        "refuses",
        "a launch has a block for each channel along grid.y, which ends at 65535",
        lambda call: not _channel_last(call) and call.inputs["x"].shape[1] > GRID_Y,
    ),
    Known(
        ALL,
        "not asked",
        "nothing checks that out and dx lie as x does",
        _unlike_x,
    ),
    Known(
        ALL,
        "not asked",
        "causal_conv1d_fwd.cu:142: nothing checks that vectors begin at 16 bytes",
        _misaligned,
    ),
    Known(
        ALL,
        "not asked",
        "dweight and dbias are written as fp32 whatever they are",
        _gradient_dtypes,
    ),
    Known(
        ALL,
        "not asked",
        "causal_conv1d.cpp:175: a time with stride 0 is read as if it had stride 1",
        lambda call: call.inputs["x"].strides[1:] == (1, 0),
    ),
    Known(
        ALL,
        "not asked",
        "causal_conv1d_fwd.cu: a block of time reads inputs that the one before it may "
        "have overwritten",
        _in_place,
    ),
    Known(
        ALL,
        "words",
        "CUDA 13 calls an empty grid an invalid argument, CUDA 12 an invalid "
        "configuration argument",
        lambda call: 0 in call.inputs["x"].shape,
    ),
    Known(
        ALL,
        "accepts",
        "a step of length 0 makes no empty grid: its blocks find nothing to do",
        lambda call: _steps(call) and call.inputs["x"].shape[2] == 0,
    ),
    Known(
        ALL,
        "differs",
        "causal_conv1d_bwd.cu:167: what reads inputs before a chunk, for silu again, "
        "asks whether positions of the chunk exist: fewer than a vector of them may",
        _short_last_chunk,
        outputs=("dx", "dweight", "dbias"),
    ),
    Known(
        ALL,
        "differs",
        "causal_conv1d_bwd.cu:227 sums dweight over inputs, not over outputs: times a "
        "zero behind the last output, not before the first input, which is NaN where "
        "the other factor is not finite",
        _not_finite_by_time,
        outputs=("dweight",),
    ),
    Known(
        ALL,
        "differs",
        "causal_conv1d_bwd.cu:371: the offset of dfinal_states leaves out the stride "
        "of its channels",
        _strided_dfinal,
        outputs=("dx", "dinitial_states"),
    ),
    Known(
        ALL,
        "differs",
        "setup.py:238 compiles with --use_fast_math: approximate exp and division; "
        "denormals are zero",
        lambda call: True,
        within="upstream",
    ),
    Known(
        ALL,
        "repeats",
        "before 1.6.0 weights' gradients are summed by atomicAdd, whatever torch was "
        "asked for",
        lambda call: call.entry.endswith("_bwd"),
        outputs=("dweight", "dbias"),
    ),
]
