# SPDX-License-Identifier: Apache-2.0
"""Cases of the causal convolution, by family. Each Conv row becomes two cases, NAME-fwd
and NAME-bwd; each Update row one, NAME-update."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from typing import Any, Callable, NamedTuple

import torch

from ...arrays import CONTIGUOUS, Array, Layout
from ...cases import Case, Maker, Tolerance
from ...pairs import Row, pairwise
from ...providers import Call, Plain
from .calls import BF16, F16, F32, Conv, Edit, Update, backward, forward, update

SHORT = {F32: "fp32", F16: "fp16", BF16: "bf16"}

# ---- tolerances ------------------------------------------------------------------

WHOLE = "a first-order bound for any order of the sums, with all inputs exact"
COPY = "inputs are copied: bit for bit"

#: upstream's tests/test_causal_conv1d.py; it has weights in fp32 only, others as x
_BASE = {F32: (3e-4, 1e-3), F16: (3e-3, 5e-3), BF16: (1e-2, 5e-2)}
_EQUAL = dict.fromkeys(_BASE, (0.0, 1e-30))
_WEIGHTS = {**_BASE, F32: (1e-3, 1e-3)}
TOLERANCES = {
    "out": Tolerance(1, WHOLE, _BASE),
    "final_states_out": Tolerance(0, COPY, _EQUAL),
    "dx": Tolerance(1, WHOLE, _BASE),
    "dinitial_states": Tolerance(1, WHOLE, _BASE),
    "dweight": Tolerance(1, WHOLE, _WEIGHTS),
    "dbias": Tolerance(1, WHOLE, _WEIGHTS),
    "conv_state": Tolerance(0, COPY, _EQUAL),
}

# ---- the rows --------------------------------------------------------------------

CHANNEL_LAST = Layout(order=(0, 2, 1))
CHANNEL_LAST_SLICE = Layout(order=(0, 2, 1), gap={1: 5})  # of a wider projection
LAYOUTS = {
    "channel-last": CHANNEL_LAST,
    "channel-last-slice": CHANNEL_LAST_SLICE,
    "time-slice": Layout(gap={2: 3}),
    "half": Layout(gap={1: 6}),
    "dim-first": Layout(order=(1, 0, 2)),
    "time-first": Layout(order=(2, 1, 0)),
    "every-other": Layout(step={2: 2}),
    "backwards": Layout(step={2: -1}),
    "odd-start": Layout(shift=1),
}
WIDE = ("x", "out", "dout", "dx")
STATES = ("initial_states", "final_states_out", "dfinal_states", "dinitial_states")


#: with W - 1 more columns in the backward: 509 and 1021 end a tile or a segment
SEGMENT_ENDS = (1, 2, 3, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 95, 127, 128, 129, 130)
LONG = (255, 256, 257, 372, 509, 511, 512, 513, 784, 1021, 1023, 1024, 1025, 1134)
LONG += (2047, 2048, 2049, 4096, 4097)
CHANNELS = (
    1,
    2,
    3,
    4,
    7,
    8,
    9,
    12,
    15,
    16,
    17,
    20,
    31,
    32,
    33,
    36,
    63,
    64,
    65,
    96,
    130,
)
FAR: dict[str, dict[str, int]] = {
    "length-1100000": {"batch": 1, "dim": 1, "length": 1_100_000},
    "dim-70000": {"batch": 1, "dim": 70_000, "length": 3},
    "batch-70000": {"batch": 70_000, "dim": 1, "length": 3},
}


LANES = 256  # of a block that goes along aligned rows, backward: 16 bytes each


def _whole_rows() -> dict[str, Conv]:
    """Rows that are whole runs of 16 bytes, all of them aligned, and enough of them for
    the backward to go along them in tiles of a block's lanes."""
    rows = {}
    for dtype, short in SHORT.items():
        run = 128 // torch.finfo(dtype).bits
        for width, silu in itertools.product((2, 3, 4), (False, True)):
            rows[f"runs-W{width}-{short}{'-silu' if silu else ''}"] = Conv(
                "rows of one tile, the last warp with a single run; no bias",
                batch=9,
                dim=2,
                length=33 * run,
                width=width,
                dtype=dtype,
                bias_dtype=None,
                silu=silu,
            )
        for batch, tiles in ((1, 8), (3, 3)):
            for more in (-run, 0, 1, run):
                length = tiles * LANES * run + more
                rows[f"runs-B{batch}-L{length}-{short}"] = Conv(
                    "tiles of aligned runs: the last one less a run, all of it, one "
                    "time more (no longer aligned), one run more",
                    batch=batch,
                    dim=2,
                    length=length,
                    width=2 + length // run % 3,
                    dtype=dtype,
                )
        rows[f"runs-batch140-{short}"] = Conv(
            "a block takes one batch row after the other",
            batch=140,
            dim=16,
            length=33 * run,
            dtype=dtype,
            layouts={"x": Layout(expand=(0,)), "dout": Layout(expand=(1,))},
            fwd="no",
        )
        rows[f"runs-tiles-{short}"] = Conv(
            "segments of two tiles: gradients are carried from one to the one before",
            batch=11,
            dim=32,
            length=(2 * LANES + 1) * run,
            dtype=dtype,
            layouts={"x": Layout(expand=(0,)), "dout": Layout(expand=(1,))},
            fwd="no",
        )
    return rows


def _size_rows() -> dict[str, Conv]:
    rows = _whole_rows()
    lengths = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129)
    for width, length in itertools.product((2, 3, 4), lengths):
        for name, layout in (("", CONTIGUOUS), ("-channel-last", CHANNEL_LAST)):
            rows[f"W{width}-L{length}{name}"] = Conv(
                "lengths around the width, a vector and a block",
                width=width,
                length=length,
                dim=5,
                silu=length % 2 == 0,
                layouts=dict.fromkeys(WIDE, layout),
            )
    for length, dtype in itertools.product(SEGMENT_ENDS, SHORT):
        rows[f"L{length}-D8-channel-last-{SHORT[dtype]}"] = Conv(
            "channels side by side, as many as move at once: around the segments of "
            "time (16 to 64 steps here, 64 and 128 upstream)",
            length=length,
            dim=8,
            dtype=dtype,
            width=2 + length % 3,
            layouts=dict.fromkeys(WIDE, CHANNEL_LAST),
        )
    for far, sizes in FAR.items():
        for name, layout in (("", CONTIGUOUS), ("-channel-last", CHANNEL_LAST)):
            rows[far + name] = Conv(
                "a size that 16 or 20 bits, or one axis of a launch, do not hold",
                layouts=dict.fromkeys(WIDE, layout),
                **sizes,
            )
    for length in LONG:
        for dtype, (name, layout) in itertools.product(
            SHORT, (("", CONTIGUOUS), ("-channel-last", CHANNEL_LAST))
        ):
            rows[f"L{length}-{SHORT[dtype]}{name}"] = Conv(
                "long: inputs and gradients are carried over blocks of time",
                length=length,
                dim=3,
                batch=1,
                dtype=dtype,
                layouts=dict.fromkeys(WIDE, layout),
            )
        rows[f"L{length}-sequences"] = Conv(
            "long, with sequences and padding",
            length=length,
            dim=2,
            batch=1,
            width=3,
            ids=(100, 7, -5, 300),
            layouts=dict.fromkeys(WIDE, CHANNEL_LAST),
        )
        rows[f"L{length}-states"] = Conv(
            "long, with states",
            length=length,
            dim=9,
            batch=1,
            initial=True,
            final=True,
            dinitial=True,
            dfinal=True,
        )
    return rows


def _channel_rows() -> dict[str, Conv]:
    rows = {}
    for dim in CHANNELS:
        for name, layout in (("", CONTIGUOUS), ("-channel-last", CHANNEL_LAST)):
            rows[f"D{dim}{name}"] = Conv(
                "channels around a vector and a block; upstream wants multiples of 8",
                dim=dim,
                length=19,
                layouts=dict.fromkeys(WIDE, layout),
            )
            if dim % 4 in (0, 1):
                rows[f"D{dim}-bf16-L70{name}"] = Conv(
                    "the same in 16 bits, over more than one segment of time",
                    dim=dim,
                    dtype=BF16,
                    length=70,
                    batch=1,
                    layouts=dict.fromkeys(WIDE, layout),
                )
    for batch in (1, 5, 33):
        for name, layout in (("", CONTIGUOUS), ("-channel-last", CHANNEL_LAST)):
            rows[f"batch{batch}{name}"] = Conv(
                "sums over an odd number of rows, and over many",
                batch=batch,
                dim=8,
                layouts=dict.fromkeys(WIDE, layout),
            )
    return rows


def _option_rows() -> dict[str, Conv]:
    rows = {}
    for x, weight, layout in itertools.product(
        SHORT, SHORT, (CONTIGUOUS, CHANNEL_LAST)
    ):
        name = "x-{}-weight-{}{}".format(
            SHORT[x], SHORT[weight], "-channel-last" if layout.order else ""
        )
        rows[name] = Conv(
            "x and weight have their own dtypes",
            dtype=x,
            weight_dtype=weight,
            bias_dtype=weight,
            layouts=dict.fromkeys(WIDE, layout),
        )
        rows[name + "-fp32-gradients"] = Conv(
            "gradients of weights in fp32, added to what is there",
            dtype=x,
            weight_dtype=weight,
            bias_dtype=weight,
            gradient_dtype=F32,
            accumulate=True,
            layouts=dict.fromkeys(WIDE, layout),
        )
    for bias in SHORT:
        rows[f"bias-{SHORT[bias]}"] = Conv(
            "Hugging Face hands in a bias in fp32 with 16-bit weights",
            dtype=BF16,
            weight_dtype=BF16,
            bias_dtype=bias,
        )
    for bias, silu, width in itertools.product((None, F32), (False, True), (2, 3, 4)):
        for dtype in SHORT:
            rows[
                "W{}-{}{}{}".format(
                    width,
                    SHORT[dtype],
                    "-bias" if bias else "",
                    "-silu" if silu else "",
                )
            ] = Conv(
                "bias and activation on and off",
                width=width,
                bias_dtype=bias,
                silu=silu,
                dtype=dtype,
            )
    return rows


def _state_rows() -> dict[str, Conv]:
    rows = {}
    for width, length in itertools.product((2, 3, 4), (1, 2, 3, 4, 33)):
        for name, layout in (("", CONTIGUOUS), ("-channel-last", CHANNEL_LAST)):
            rows[f"states-W{width}-L{length}{name}"] = Conv(
                "states in and out, also when time is shorter than they are",
                width=width,
                length=length,
                initial=True,
                final=True,
                dinitial=True,
                dfinal=True,
                layouts=dict.fromkeys(WIDE + STATES, layout),
            )
    for initial, final, dtype in itertools.product((False, True), (False, True), SHORT):
        rows[
            "states-{}{}{}".format(
                "initial-" if initial else "", "final-" if final else "", SHORT[dtype]
            )
        ] = Conv(
            "either state alone",
            initial=initial,
            final=final,
            dinitial=initial,
            dfinal=final,
            length=2,
            dtype=dtype,
            silu=False,
        )
    for length, dtype, final in itertools.product((1, 2, 17, 70), SHORT, (False, True)):
        kind = "-final" if final else ""
        rows[f"states{kind}-D8-L{length}-{SHORT[dtype]}-channel-last"] = Conv(
            "states beside channels that move several at once",
            length=length,
            dim=8,
            dtype=dtype,
            initial=True,
            dinitial=True,
            final=final,
            dfinal=final,
            layouts=dict.fromkeys(WIDE + STATES, CHANNEL_LAST),
        )
    rows["dinitial-not-wanted"] = Conv(
        "initial states whose gradient nobody asks for", initial=True
    )
    for dim in (65, 130):
        rows[f"dfinal-strided-D{dim}"] = Conv(
            "upstream mixes up dfinal_states here: channel stride not 1, many channels",
            dim=dim,
            length=9,
            dfinal=True,
            final=True,
            layouts={**dict.fromkeys(WIDE, CHANNEL_LAST), "dfinal_states": CONTIGUOUS},
        )
    for name, layout in LAYOUTS.items():
        rows[f"states-{name}"] = Conv(
            "states in any layout",
            initial=True,
            final=True,
            dinitial=True,
            dfinal=True,
            length=9,
            layouts=dict.fromkeys(STATES, layout),
        )
    return rows


def _sequence_rows() -> dict[str, Conv]:
    spans = {
        "one": (100,),
        "short": (1, 2, 3),
        "mixed": (5, 1, 9, 2),
        "ones": (1,),
        "padded": (7, -3),
        "padding-first": (-2, 6),
        "padding": (-1000,),
        "padding-between": (4, -1, 4, -2),
    }
    rows = {}
    for (name, ids), width in itertools.product(spans.items(), (2, 3, 4)):
        for layout_name, layout in (("", CONTIGUOUS), ("-channel-last", CHANNEL_LAST)):
            rows[f"sequences-{name}-W{width}{layout_name}"] = Conv(
                "a tap counts only within its sequence; below 0 is padding, which the "
                "forward zeroes and the backward takes for an id",
                ids=ids,
                width=width,
                layouts=dict.fromkeys(WIDE, layout),
            )
    for dtype in SHORT:
        rows[f"sequences-{SHORT[dtype]}"] = Conv(
            "the same in 16 bits, without activation",
            ids=(3, 8, -2, 1),
            dtype=dtype,
            silu=False,
            layouts=dict.fromkeys(WIDE, CHANNEL_LAST_SLICE),
        )
    for (name, ids), dtype in itertools.product(
        {"short": (1, 2, 3), "padded": (7, -3), "mixed": (50, 1, 90, -2)}.items(), SHORT
    ):
        for length, layout_name in itertools.product((65, 300), ("", "-channel-last")):
            rows[f"sequences-{name}-D8-L{length}-{SHORT[dtype]}{layout_name}"] = Conv(
                "sequences over segments of time, where several channels move at once",
                ids=ids,
                dim=8,
                length=length,
                dtype=dtype,
                layouts=dict.fromkeys(
                    WIDE, CHANNEL_LAST if layout_name else CONTIGUOUS
                ),
            )
    rows["sequences-ids-come-back"] = Conv(
        "only equality counts: an id back within W - 1 steps leaks, as upstream",
        ids=(1, 1),
        edit=lambda v: v["seq_idx"].remainder_(2),
    )
    rows["sequences-ids-fall"] = Conv(
        "ids need not rise",
        ids=(3, 4),
        edit=lambda v: v["seq_idx"].neg_().add_(1000),
    )
    rows["sequences-ids-large"] = Conv(
        "ids are 32 bits, and compared as such",
        ids=(3, 4),
        edit=lambda v: v["seq_idx"].mul_(2**24).add_(2**30),
    )
    rows["sequences-ids-below"] = Conv(
        "all that is below 0 is padding, and -2 is another id than -1",
        ids=(3, -2, 1),
        edit=lambda v: v["seq_idx"][:, 1::2].sub_((v["seq_idx"][:, 1::2] < 0).long()),
    )
    rows["sequences-of-one-step"] = Conv("L below W", ids=(1, 1), length=2)
    rows["sequences-final"] = Conv(
        "the last states do not care for sequences", ids=(3, 5), final=True, dfinal=True
    )
    rows["sequences-initial"] = Conv(
        "states before time 0 have id -1: they count for padding alone",
        ids=(-2, 5),
        initial=True,
        dinitial=True,
    )
    for length, dtype in itertools.product((2, 37), SHORT):
        rows[f"sequences-initial-D8-L{length}-{SHORT[dtype]}-channel-last"] = Conv(
            "the same where several channels move at once: no gradient comes from "
            "before time 0",
            ids=(-5, 5),
            dim=8,
            length=length,
            dtype=dtype,
            initial=True,
            dinitial=True,
            layouts=dict.fromkeys(WIDE + STATES, CHANNEL_LAST),
        )
    rows["sequences-strided"] = Conv(
        "seq_idx with gaps", ids=(3, 5), layouts={"seq_idx": Layout(step={1: 2})}
    )
    rows["sequences-expanded"] = Conv(
        "one seq_idx for the whole batch",
        ids=(3,),
        layouts={"seq_idx": Layout(expand=(0,))},
    )
    return rows


def _layout_rows() -> dict[str, Conv]:
    rows = {}
    for name, layout in LAYOUTS.items():
        for dtype in SHORT:
            rows[f"all-{name}-{SHORT[dtype]}"] = Conv(
                "no stride is refused for want of speed",
                dtype=dtype,
                dim=7,
                layouts=dict.fromkeys(WIDE, layout),
            )
        for one in WIDE:
            rows[f"{one}-{name}"] = Conv(
                "one array lies otherwise than the rest", dim=9, layouts={one: layout}
            )
            rows[f"{one}-{name}-rest-channel-last"] = Conv(
                "one array lies otherwise than the rest",
                dim=9,
                layouts={**dict.fromkeys(WIDE, CHANNEL_LAST), one: layout},
            )
        for one in WIDE:
            rows[f"{one}-{name}-D8-rest-channel-last"] = Conv(
                "the rest lets several channels move at once, this array does not",
                dim=8,
                length=70,
                dtype=BF16,
                layouts={**dict.fromkeys(WIDE, CHANNEL_LAST), one: layout},
            )
    for name, axes in (
        ("batch", (0,)),
        ("dim", (1,)),
        ("time", (2,)),
        ("all", (0, 1, 2)),
    ):
        rows[f"expanded-{name}"] = Conv(
            "stride 0 in an input; upstream misreads an expanded time",
            layouts=dict.fromkeys(("x", "dout"), Layout(expand=axes)),
        )
    for name, layout in (
        ("transposed", Layout(order=(1, 0))),
        ("every-other", Layout(step={1: 2})),
        ("backwards", Layout(step={0: -1, 1: -1})),
        ("odd-start", Layout(shift=1)),
    ):
        rows[f"weight-{name}"] = Conv(
            "weight with any strides",
            layouts=dict.fromkeys(("weight", "dweight"), layout),
            accumulate=True,
        )
    rows["weight-expanded"] = Conv(
        "one weight for all channels",
        layouts={"weight": Layout(expand=(0,)), "bias": Layout(expand=(0,))},
    )
    rows["bias-every-other"] = Conv(
        "bias with gaps", layouts=dict.fromkeys(("bias", "dbias"), Layout(step={0: 2}))
    )
    return rows


X_HALF = Layout(gap={1: 6})  # xz.chunk(2, dim=1)[0]
ZXBCDT = Layout(order=(0, 2, 1), gap={1: 24})  # columns of Mamba-2's projection


def _caller_rows() -> dict[str, Conv]:
    """Shapes and strides as the functions of contract.md 2.9 and 3.9 hand them in."""
    rows = {}
    for dtype, short in SHORT.items():
        for length in (64, 197):
            rows[f"mamba-inner-L{length}-{short}"] = Conv(
                "MambaInnerFn: x and dx halves of one buffer, the rest contiguous",
                dtype=dtype,
                weight_dtype=dtype,
                bias_dtype=dtype,
                length=length,
                layouts={"x": X_HALF, "dx": X_HALF},
            )
        rows[f"mamba2-{short}"] = Conv(
            "Mamba-2: columns of zxbcdt, with sequences, dx into columns of a gradient",
            dtype=dtype,
            weight_dtype=dtype,
            bias_dtype=dtype,
            dim=40,
            length=64,
            ids=(20, 9, 35),
            layouts={"x": ZXBCDT, "dx": ZXBCDT, "out": CHANNEL_LAST},
        )
        rows[f"mamba2-chunked-{short}"] = Conv(
            "prefill in pieces: states in, states out",
            dtype=dtype,
            weight_dtype=dtype,
            bias_dtype=dtype,
            dim=40,
            length=17,
            initial=True,
            final=True,
            dinitial=True,
            dfinal=True,
            layouts={
                **dict.fromkeys(WIDE, ZXBCDT),
                **dict.fromkeys(STATES, CHANNEL_LAST),
            },
        )
        rows[f"transformers-{short}"] = Conv(
            "Hugging Face: weight squeezed out of conv1d.weight, a bias in fp32",
            dtype=dtype,
            weight_dtype=dtype,
            bias_dtype=F32,
            dim=16,
            length=50,
            layouts={"x": X_HALF},
        )
    rows["vim"] = Conv("Vim: 197 tokens, width 4", dim=24, length=197, dtype=F16)
    rows["width-2-no-bias"] = Conv(
        "short convolutions without bias and gate", width=2, bias_dtype=None, silu=False
    )
    rows["one-token"] = Conv(
        "a prompt of one token, final states kept",
        length=1,
        dim=16,
        final=True,
        layouts=dict.fromkeys(WIDE + STATES, CHANNEL_LAST),
    )
    for axis in (0, 1, 2):
        rows[f"size-1-axis-{axis}"] = Conv(
            "the stride of an axis of length 1 means nothing",
            **{("batch", "dim", "length")[axis]: 1},
            layouts=dict.fromkeys(("x", "dout"), Layout(step={axis: 77})),
        )
    return rows


def _alignment_rows() -> dict[str, Conv]:
    """Where upstream's 16-byte accesses fault: L or D a multiple, an odd address."""
    rows = {}
    for (dtype, short), layout in itertools.product(
        SHORT.items(), (CONTIGUOUS, CHANNEL_LAST)
    ):
        fast, kind = (1, "-channel-last") if layout.order else (2, "")
        for one in (*WIDE, "all"):
            for shift, gap in ((1, 0), (0, 1), (2, 2)):
                odd = replace(layout, shift=shift, gap={fast: gap})
                names = WIDE if one == "all" else (one,)
                rows[f"misaligned-{one}-{shift}-{gap}-{short}{kind}"] = Conv(
                    "an address, or every other row, off a vector's alignment",
                    dtype=dtype,
                    dim=16,
                    length=64,
                    batch=1,
                    layouts={
                        **dict.fromkeys(WIDE, layout),
                        **dict.fromkeys(names, odd),
                    },
                )
    for one in STATES:
        rows[f"misaligned-{one}"] = Conv(
            "states are read by several channels at once only where they are aligned",
            dtype=BF16,
            dim=16,
            length=20,
            initial=True,
            final=True,
            dinitial=True,
            dfinal=True,
            layouts={
                **dict.fromkeys(WIDE + STATES, CHANNEL_LAST),
                one: replace(CHANNEL_LAST, shift=1),
            },
        )
    return rows


def _alias_rows() -> dict[str, Conv]:
    rows = {}
    over = {"out": "x"}
    for dtype, short in SHORT.items():
        for name, layout in {"contiguous": CONTIGUOUS, **LAYOUTS}.items():
            rows[f"out-in-x-{name}-{short}"] = Conv(
                "out may be the memory of x: a segment's history is read before",
                dtype=dtype,
                dim=9,
                length=140,
                layouts={"x": layout},
                same_memory=over,
                bwd="no",
            )
    for length, dim in ((1025, 3), (2100, 8), (4097, 2), (513, 64)):
        for name, layout in (("", CONTIGUOUS), ("-channel-last", CHANNEL_LAST)):
            rows[f"out-in-x-L{length}-D{dim}{name}"] = Conv(
                "the same over many tiles and segments",
                dim=dim,
                length=length,
                batch=1,
                layouts={"x": layout},
                same_memory=over,
                bwd="no",
            )
    for length in (1, 2, 3, 5, 40):
        for name, layout in (("", CONTIGUOUS), ("-channel-last", CHANNEL_LAST)):
            rows[f"final-in-initial-L{length}{name}"] = Conv(
                "the last states over the first, also when some of them stay",
                length=length,
                dim=8,
                initial=True,
                final=True,
                layouts=dict.fromkeys(WIDE + STATES, layout),
                same_memory={"final_states_out": "initial_states", **over},
                bwd="no",
            )
    rows["out-in-x-sequences"] = Conv(
        "with sequences and padding",
        length=140,
        ids=(30, 5, -4),
        same_memory=over,
        bwd="no",
    )
    return rows


def _set(name: str, index: Any, value: float) -> Edit:
    def edit(values: dict[str, torch.Tensor]) -> None:
        values[name][index] = value

    return edit


def _scale(name: str, factor: float) -> Edit:
    return lambda values: values[name].mul_(factor)


def _value_rows() -> dict[str, Conv]:
    rows = {}
    for dtype, silu in itertools.product(SHORT, (False, True)):
        kind = SHORT[dtype] + ("-silu" if silu else "")
        rows[f"large-{kind}"] = Conv(
            "activation far from 0, on both sides",
            dtype=dtype,
            silu=silu,
            edit=_scale("x", 1e3),
        )
        rows[f"small-{kind}"] = Conv(
            "activation close to 0",
            dtype=dtype,
            silu=silu,
            bias_dtype=None,
            edit=_scale("x", 1e-6),
        )
    rows["overflow"] = Conv(
        "beyond the greatest float is infinite, of the right sign",
        silu=False,
        bias_dtype=None,
        width=2,
        edit=lambda v: (
            v["x"].abs_().mul_(1e38).clamp_(1e38, 3e38),
            v["weight"].abs_().add_(8),
        ),
    )
    rows["overflow-fp16"] = Conv(
        "beyond the greatest half is infinite, of the right sign",
        dtype=F16,
        silu=False,
        edit=_scale("x", 4e4),
    )
    rows["zeros"] = Conv("all zero in", edit=_scale("x", 0))
    for size, dtype in itertools.product((10.0, 87.0, 89.0, 104.0), SHORT):
        rows[f"silu-at-{size:g}-{SHORT[dtype]}"] = Conv(
            "exp at the ends of fp32 on both sides of the gate",
            dtype=dtype,
            edit=_at_the_gate(size),
        )
    for dtype in SHORT:
        rows[f"subnormal-{SHORT[dtype]}"] = Conv(
            "inputs below the least normal number of their dtype, or close to it",
            dtype=dtype,
            silu=False,
            bias_dtype=None,
            edit=_scale("x", 2.0**-20 if dtype == F16 else 2.0**-120),
        )
        rows[f"dout-large-{SHORT[dtype]}"] = Conv(
            "gradients at the end of the range",
            dtype=dtype,
            edit_given=lambda v: v["dout"].mul_(1e4),
            fwd="no",
        )
    rows["bias-dwarfs"] = Conv("one term dwarfs the others", edit=_scale("bias", 1e6))
    rows["cancels"] = Conv(
        "taps that cancel: what is left are the last digits",
        silu=False,
        bias_dtype=None,
        length=130,
        edit=lambda v: (v["weight"].copy_(CANCELLING), v["x"].mul_(1e-3).add_(1)),
    )
    return rows


CANCELLING = torch.tensor([1.0, -1.0, 1.0, -1.0])


def _at_the_gate(size: float) -> Edit:
    def edit(values: dict[str, torch.Tensor]) -> None:
        values["weight"].zero_()[:, -1] = 1
        values["x"].sign_().mul_(size)
        values["bias"].mul_(1e-2)

    return edit


NAN, INF = float("nan"), float("inf")


def _nonfinite_rows() -> dict[str, Conv]:
    """NaN and inf in: out where a tap reaches them, nowhere else."""
    rows = {}
    layouts = {"": CONTIGUOUS, "-channel-last": CHANNEL_LAST}
    for value, where, (name, layout) in itertools.product(
        (NAN, INF, -INF), (0, 20, 36), layouts.items()
    ):
        for dtype, silu in ((F32, False), (BF16, value != -INF)):
            options: dict[str, Any] = {
                "dtype": dtype,
                "silu": silu,
                "layouts": dict.fromkeys(WIDE, layout),
            }
            kind = f"{value}-t{where}-{SHORT[dtype]}{name}"
            rows[f"x-{kind}"] = Conv(
                "reaches W outputs and no more",
                edit=_set("x", (1, 2, where), value),
                **options,
            )
            rows[f"dout-{kind}"] = Conv(
                "reaches W gradients, and the sums of its channel",
                edit_given=_set("dout", (1, 2, where), value),
                fwd="no",
                **options,
            )
            rows[f"x-{kind}-sequences"] = Conv(
                "does not reach another sequence: skipped, not multiplied by 0",
                ids=(7, 5, -3),
                edit=_set("x", (1, 2, where), value),
                **options,
            )
    for name, index in (("weight", (2, 1)), ("bias", (2,))):
        for value in (NAN, INF):
            rows[f"{name}-{value}"] = Conv(
                "stays in its channel",
                silu=False,
                edit=_set(name, index, value),
                # Such a tap also meets the zeros that stand for the gradient after the
                # last step: upstream's NaN there, which the room's README has.
                bwd="no" if name == "weight" else "",
            )
    for length, (name, layout) in itertools.product((2, 30), layouts.items()):
        states: dict[str, Any] = {
            "initial": True,
            "final": True,
            "dinitial": True,
            "dfinal": True,
            "dim": 8,
            "length": length,
            "silu": False,
            "layouts": dict.fromkeys(WIDE + STATES, layout),
        }
        rows[f"initial-nan-L{length}{name}"] = Conv(
            "in a state: as any input before time 0",
            edit=_set("initial_states", (1, 2, 1), NAN),
            **states,
        )
        rows[f"dfinal-nan-L{length}{name}"] = Conv(
            "in a state's gradient: one element of dx, or of dinitial_states",
            edit_given=_set("dfinal_states", (1, 2, 1), NAN),
            fwd="no",
            **states,
        )
    for dtype in SHORT:
        rows[f"nan-long-{SHORT[dtype]}"] = Conv(
            "over the end of a tile, a segment and no further",
            dtype=dtype,
            length=1100,
            dim=3,
            batch=1,
            edit=lambda v: v["x"].index_fill_(2, torch.tensor([511, 1023]), NAN),
        )
    return rows


def _update_rows() -> dict[str, Update]:
    rows = {}
    for width, columns, length in itertools.product(
        (2, 3, 4), (1, 2, 3, 4, 5, 8), (1, 2, 3, 4, 5, 9)
    ):
        if columns >= width - 1:
            rows[f"W{width}-S{columns}-L{length}"] = Update(
                "states as short as allowed and longer, steps shorter and longer",
                width=width,
                columns=columns,
                length=length,
                silu=length % 2 == 0,
            )
    for dim in (1, 3, 4, 5, 8, 15, 16, 17, 33, 64, 65, 127, 128, 129, 300):
        rows[f"D{dim}"] = Update("channels around a vector and a block", dim=dim)
    for batch in (1, 2, 43, 257):
        rows[f"batch{batch}"] = Update(
            "batch rows around a block", batch=batch, dim=3, silu=False
        )
    for x, weight in itertools.product(SHORT, SHORT):
        for bias in (None, weight, F32):
            rows[
                "x-{}-weight-{}-bias-{}".format(
                    SHORT[x], SHORT[weight], SHORT[bias] if bias else "none"
                )
            ] = Update(
                "x, weight and bias have their own dtypes",
                dtype=x,
                weight_dtype=weight,
                bias_dtype=bias,
                length=2,
            )
    for length in (17, 64, 130, 600):
        for name, layout in (("", CONTIGUOUS), ("-channel-last", CHANNEL_LAST)):
            rows[f"L{length}{name}"] = Update(
                "a prompt by way of the update: more steps than a tile",
                length=length,
                dim=9,
                columns=5,
                layouts=dict.fromkeys(("x", "out"), layout),
            )
    rows["vectors-strided"] = Update(
        "weight, bias and the integers with gaps",
        seen=(1, 2, 3),
        rows=(2, 1, 0),
        layouts={
            "weight": Layout(order=(1, 0)),
            "bias": Layout(step={0: 2}),
            "cache_seqlens": Layout(step={0: 2}),
            "conv_state_indices": Layout(step={0: -1}),
        },
    )
    rows["vectors-expanded"] = Update(
        "one weight and bias for all channels, one length for all rows",
        seen=(3, 3, 3),
        layouts={
            "weight": Layout(expand=(0,)),
            "bias": Layout(expand=(0,)),
            "cache_seqlens": Layout(expand=(0,)),
        },
    )
    rows["x-expanded"] = Update(
        "stride 0 in an input", length=3, layouts={"x": Layout(expand=(0, 2))}
    )
    return rows


def _update_layout_rows() -> dict[str, Update]:
    rows = {}
    for ring, (name, layout) in itertools.product((None, (4, 9, 0)), LAYOUTS.items()):
        kind = "-ring" if ring else ""
        for dtype in SHORT:
            rows[f"all-{name}-{SHORT[dtype]}{kind}"] = Update(
                "any strides",
                length=3,
                columns=5,
                dtype=dtype,
                seen=ring,
                dim=9,
                layouts=dict.fromkeys(("x", "out", "conv_state"), layout),
            )
        for one in ("x", "out", "conv_state"):
            rows[f"{one}-{name}{kind}"] = Update(
                "one array lies otherwise than the rest",
                length=3,
                columns=5,
                seen=ring,
                dim=9,
                layouts={one: layout},
            )
    for dtype in SHORT:
        for name, layout in (
            ("contiguous", CONTIGUOUS),
            ("channel-last", CHANNEL_LAST),
        ):
            for length in (1, 3, 40):
                rows[f"out-in-x-{name}-L{length}-{SHORT[dtype]}"] = Update(
                    "out may be the memory of x",
                    dtype=dtype,
                    length=length,
                    dim=9,
                    columns=5,
                    layouts={"x": layout},
                    same_memory={"out": "x"},
                )
    rows["decode-of-a-view"] = Update(
        "conv_state a slice of a cache of all layers, x a column of xz",
        dtype=BF16,
        dim=16,
        layouts={
            "conv_state": Layout(order=(0, 2, 1), gap={1: 16, 2: 3}),
            "x": Layout(gap={1: 16}),
        },
    )
    return rows


def _ring_rows() -> dict[str, Update]:
    rows = {}
    for width, columns, length in itertools.product(
        (2, 3, 4), (1, 2, 3, 4, 5, 8), (1, 2, 3, 4, 5, 9)
    ):
        if columns >= width - 1:
            rows[f"W{width}-S{columns}-L{length}-ring"] = Update(
                "a ring that wraps within, before and after the step",
                width=width,
                columns=columns,
                length=length,
                silu=length % 2 == 1,
                seen=(0, columns - 1, 3 * columns + 1),
            )
    for dim in (1, 3, 4, 5, 8, 15, 16, 17, 33, 64, 65, 129):
        rows[f"D{dim}-ring"] = Update(
            "channels around a vector", dim=dim, seen=(5, 0, 2)
        )
    for columns in (3, 4, 7):
        for dtype in SHORT:
            rows[f"S{columns}-every-start-{SHORT[dtype]}"] = Update(
                "every place that a step may begin at",
                batch=2 * columns,
                columns=columns,
                length=2,
                dtype=dtype,
                seen=tuple(range(2 * columns)),
            )
    rows["ring-far"] = Update(
        "lengths up to the greatest of 32 bits",
        columns=5,
        length=3,
        seen=(2**31 - 1, 2**31 - 2, 2**30),
    )
    rows["ring-long"] = Update(
        "more steps than a tile: the last ones stay",
        columns=7,
        length=600,
        seen=(0, 3, 6),
    )
    return rows


def _indexed_rows() -> dict[str, Update]:
    rows = {}
    for ring, dtype in itertools.product((None, (4, 9, 0)), SHORT):
        kind = f"{SHORT[dtype]}{'-ring' if ring else ''}"
        more: dict[str, Any] = {"seen": ring, "dtype": dtype}
        rows[f"rows-{kind}"] = Update(
            "each batch row names its state; the others stay as they are",
            rows=(5, 0, 2),
            row_count=7,
            **more,
        )
        rows[f"rows-padding-{kind}"] = Update(
            "a negative row is padding: out is 0, no state is touched",
            rows=(-1, 3, -100),
            row_count=5,
            length=3,
            **more,
        )
        rows[f"rows-fewer-{kind}"] = Update(
            "fewer states than batch rows, the rest is padding",
            rows=(1, -1, 0),
            row_count=2,
            **more,
        )
        rows[f"rows-all-padding-{kind}"] = Update(
            "nothing but padding", rows=(-1, -1, -(2**31)), row_count=1, **more
        )
    for dim in (1, 5, 16, 65, 130):
        rows[f"rows-D{dim}"] = Update(
            "states far apart, in no order",
            dim=dim,
            batch=4,
            rows=(40, 7, -1, 0),
            row_count=41,
            columns=6,
            length=2,
        )
    rows["rows-padding-seen"] = Update(
        "what cache_seqlens says of a padded row does not matter",
        rows=(-1, 1, 0),
        row_count=2,
        seen=(-7, 2, 9),
    )
    rows["rows-strided-states"] = Update(
        "an indexed cache whose rows are part of something larger",
        rows=(2, 0, 1),
        row_count=3,
        columns=5,
        dim=9,
        layouts={"conv_state": Layout(order=(0, 2, 1), gap={1: 7, 2: 2})},
    )
    return rows


def _update_value_rows() -> dict[str, Update]:
    rows = {}
    for dtype, value in itertools.product(SHORT, (NAN, INF)):
        kind = f"{value}-{SHORT[dtype]}"
        rows[f"state-{kind}"] = Update(
            "reaches the outputs whose taps meet it, and moves with the state",
            dtype=dtype,
            silu=False,
            columns=6,
            length=2,
            edit=_set("conv_state", (1, 2, 4), value),
        )
        rows[f"state-unread-{kind}"] = Update(
            "older columns than the taps reach say nothing",
            dtype=dtype,
            silu=False,
            columns=6,
            length=2,
            edit=_set("conv_state", (1, 2, 0), value),
        )
        rows[f"x-{kind}"] = Update(
            "reaches W outputs, and is kept bit for bit",
            dtype=dtype,
            silu=False,
            length=3,
            edit=_set("x", (1, 2, 1), value),
        )
    for dtype in SHORT:
        rows[f"nan-beside-rows-{SHORT[dtype]}"] = Update(
            "states that no row names are not looked at",
            dtype=dtype,
            rows=(3, -1, 0),
            row_count=4,
            edit=lambda v: v["conv_state"][1:3].fill_(NAN),
        )
        rows[f"subnormal-{SHORT[dtype]}"] = Update(
            "a state is copied, not computed: subnormals and -0 stay",
            dtype=dtype,
            columns=6,
            length=2,
            edit=lambda v: v["conv_state"].mul_(1e-42).neg_(),
        )
    return rows


def _pair_rows() -> dict[str, Conv]:
    """Options pairwise: any two values of any two options meet in a row."""
    options: dict[str, Any] = {
        "dtype": tuple(SHORT),
        "weight_dtype": tuple(SHORT),
        "bias_dtype": (None, F32, F16, BF16),
        "width": (2, 3, 4),
        "silu": (False, True),
        "ids": (None, (1, 2, 3), (9, -4)),
        "initial": (False, True),
        "final": (False, True),
        "dinitial": (False, True),
        "dfinal": (False, True),
        "gradient_dtype": (None, F32),
        "accumulate": (False, True),
        "length": (1, 2, 16, 63, 130, 1030),
        "dim": (1, 8, 33, 64),
        "layout": ("contiguous", "channel-last", "half", "odd-start", "backwards"),
        "state_layout": ("contiguous", "channel-last", "odd-start"),
    }

    def allowed(row: Row) -> bool:
        return not row["dinitial"] or row["initial"]

    rows = {}
    for number, row in enumerate(pairwise(options, allowed)):
        layouts = {"contiguous": CONTIGUOUS, **LAYOUTS}
        layout, states = layouts[row.pop("layout")], layouts[row.pop("state_layout")]
        rows[f"pairs-{number}"] = Conv(
            "two options that are right alone and wrong together",
            layouts={**dict.fromkeys(WIDE, layout), **dict.fromkeys(STATES, states)},
            **row,
        )
    return rows


def _update_pair_rows() -> dict[str, Update]:
    options: dict[str, Any] = {
        "dtype": tuple(SHORT),
        "weight_dtype": tuple(SHORT),
        "bias_dtype": (None, F32, F16, BF16),
        "width": (2, 3, 4),
        "columns": (3, 4, 5, 8),
        "silu": (False, True),
        "seen": (None, (0, 7, 30)),
        "rows": (None, (4, 0, 2), (-1, 3, 1)),
        "length": (1, 2, 5, 33),
        "dim": (1, 8, 33),
        "layout": ("contiguous", "channel-last", "half", "odd-start"),
        "state_layout": ("contiguous", "channel-last", "time-slice", "odd-start"),
    }
    rows = {}
    for number, row in enumerate(pairwise(options)):
        layouts = {"contiguous": CONTIGUOUS, **LAYOUTS}
        layout, state = layouts[row.pop("layout")], layouts[row.pop("state_layout")]
        rows[f"pairs-{number}"] = Update(
            "two options that are right alone and wrong together",
            row_count=5 if row["rows"] else 0,
            layouts={"x": layout, "out": layout, "conv_state": state},
            **row,
        )
    return rows


MODULE = "causal_conv1d_cuda"


def _signature_rows() -> dict[str, Conv | Update]:
    """Every argument list that the module had, in its dtypes, with and without what is
    optional."""
    states = {"initial": True, "final": True, "dinitial": True, "dfinal": True}
    lists: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("fwd/4", "bwd/6", {}),
        ("fwd/5", "bwd/7", {}),
        ("fwd/5", "bwd/7", {"ids": (5, 9)}),
        ("fwd/7", "bwd/10", {}),
        ("fwd/7", "bwd/10", {"ids": (5, 9)}),
        ("fwd/7", "bwd/10", states),
        ("fwd/8", "bwd/12", {}),
        ("fwd/8", "bwd/12", {"ids": (5, 9)}),
        ("fwd/8", "bwd/12", {**states, "length": 2}),
        ("fwd/8", "bwd/12", {"accumulate": True, "gradient_dtype": F32}),
    )
    rows: dict[str, Conv | Update] = {}
    for number, (fwd, bwd, options) in enumerate(lists):
        for dtype, bare in itertools.product(SHORT, (False, True)):
            newest = bwd == "bwd/12"  # takes its gradients in fp32, and adds to them
            rows[f"{fwd.replace('/', '')}-{number}-{SHORT[dtype]}{'-bare' * bare}"] = (
                Conv(
                    "an argument list of some release, by position",
                    dim=16,
                    dtype=dtype,
                    weight_dtype=F32 if newest else dtype,
                    bias_dtype=None if bare else F32 if newest else dtype,
                    silu=not bare,
                    fwd=f"{MODULE}.causal_conv1d_{fwd}",
                    bwd=f"{MODULE}.causal_conv1d_{bwd}",
                    layouts=dict.fromkeys(WIDE + STATES, CHANNEL_LAST),
                    **options,
                )
            )
    steps: tuple[tuple[str, dict[str, Any]], ...] = (
        ("update/5", {}),
        ("update/6", {"length": 3, "columns": 5}),
        ("update/6", {"seen": (4, 9, 0)}),
        ("update/7", {"length": 3, "columns": 5}),
        ("update/7", {"rows": (2, -1, 0), "row_count": 4}),
        ("update/8", {"length": 3, "columns": 5}),
        ("update/8", {"rows": (2, -1, 0), "row_count": 4, "seen": (4, 9, 0)}),
    )
    for number, (name, options) in enumerate(steps):
        for dtype, bare in itertools.product(SHORT, (False, True)):
            kind = f"{name.replace('/', '')}-{number}-{SHORT[dtype]}{'-bare' * bare}"
            rows[kind] = Update(
                "an argument list of some release, by position",
                dim=16,
                dtype=dtype,
                weight_dtype=dtype,
                bias_dtype=None if bare else dtype,
                silu=not bare,
                signature=f"{MODULE}.causal_conv1d_{name}",
                **options,
            )
    return rows


CALLS = {
    "stream": "on the current stream, not the default one",
    "graph": "captured, and replayed twice",
    "thread": "from another thread, as autograd does",
    "device1": "on the tensors' device, not the current one",
}


def _call_rows() -> dict[str, Conv | Update]:
    """How it is called: where else than on the thread, stream and device at hand."""
    rows: dict[str, Conv | Update] = {}
    for (how, why), dtype in itertools.product(CALLS.items(), SHORT):
        for name, layout in (("", CONTIGUOUS), ("-channel-last", CHANNEL_LAST)):
            rows[f"{how}-{SHORT[dtype]}{name}"] = Conv(
                why,
                dtype=dtype,
                dim=16,
                length=100,
                initial=True,
                final=True,
                how=how,
                layouts=dict.fromkeys(WIDE + STATES, layout),
            )
        rows[f"{how}-step-{SHORT[dtype]}"] = Update(
            why, dtype=dtype, seen=(4, 9, 0), rows=(2, -1, 0), row_count=4, how=how
        )
    return rows


def _determinism_rows() -> dict[str, Conv]:
    rows = {}
    for dtype, (name, layout) in itertools.product(
        SHORT, {"": CONTIGUOUS, "-channel-last": CHANNEL_LAST, **LAYOUTS}.items()
    ):
        if name in ("", "-channel-last", "every-other"):
            rows[f"repeats-{SHORT[dtype]}{name}"] = Conv(
                "sums over batch and time come in the same order each time",
                dtype=dtype,
                batch=9,
                dim=40,
                length=300,
                how="deterministic",
                layouts=dict.fromkeys(WIDE, layout),
            )
    return rows


def _random_conv(seed: int) -> Conv:
    chance = random.Random(seed)
    pick, coin = chance.choice, lambda: chance.random() < 0.5
    layouts = [CONTIGUOUS, *LAYOUTS.values()]
    sequences = chance.random() < 0.3
    states = not sequences and coin()
    final = coin()
    weight = pick(list(SHORT))
    return Conv(
        "seeded chance",
        batch=pick((1, 2, 3)),
        dim=chance.randint(1, 70),
        length=chance.randint(1, 90),
        width=pick((2, 3, 4)),
        dtype=pick(list(SHORT)),
        weight_dtype=weight,
        bias_dtype=pick((None, F32, weight)),
        silu=coin(),
        initial=states,
        dinitial=states and coin(),
        final=final,
        dfinal=final,
        ids=[pick((-2, 1, 2, 3, 5, 8, 13)) for _ in range(9)] if sequences else None,
        gradient_dtype=pick((None, F32)),
        accumulate=coin(),
        layouts={name: pick(layouts) for name in WIDE + STATES},
    )


def _random_update(seed: int) -> Update:
    chance = random.Random(seed)
    pick, coin = chance.choice, lambda: chance.random() < 0.5
    layouts = [CONTIGUOUS, *LAYOUTS.values()]
    batch, width = chance.randint(1, 4), pick((2, 3, 4))
    weight = pick(list(SHORT))
    rows = chance.sample(range(6), batch) if coin() else None
    return Update(
        "seeded chance",
        batch=batch,
        dim=chance.randint(1, 70),
        length=chance.randint(1, 7),
        width=width,
        columns=chance.randint(width - 1, 9),
        dtype=pick(list(SHORT)),
        weight_dtype=weight,
        bias_dtype=pick((None, F32, weight)),
        silu=coin(),
        seen=[chance.randint(0, 30) for _ in range(batch)] if coin() else None,
        rows=[r if chance.random() < 0.8 else -1 for r in rows] if rows else None,
        row_count=6 if rows else 0,
        layouts={name: pick(layouts) for name in ("x", "out", "conv_state")},
    )


# ---- what must be refused ----------------------------------------------------------

IS = "Expected {} to be true, but got false."
NOTHING = "CUDA error: invalid configuration argument"
DTYPES = IS.format(
    " || ".join(
        f"{{0}}_type == at::ScalarType::{n}" for n in ("Float", "Half", "BFloat16")
    )
)
F64, I64 = torch.float64, torch.int64


def _like(name: str, **change: Any) -> Callable[[Call], None]:
    """Another array in place of one: its dtype, or its shape."""

    def edit(call: Call) -> None:
        side = call.outputs if name in call.outputs else call.inputs
        old = side[name]
        shape = change.get("shape", old.shape)
        if "longer" in change:
            shape = tuple(n + (i == change["longer"]) for i, n in enumerate(shape))
        array = Array(shape, change.get("dtype", old.dtype))
        side[name] = array.fill(torch.zeros(shape, dtype=torch.float64))

    return edit


def _without(name: str) -> Callable[[Call], None]:
    def edit(call: Call) -> None:
        del (call.outputs if name in call.outputs else call.inputs)[name]

    return edit


class Wrong(NamedTuple):
    """What is done to a call that was right, and how it is refused. of: fwd, bwd and
    update, those that have such an argument."""

    edit: Callable[[Call], None]
    text: str
    row: dict[str, Any] = {}
    of: str = "fwd bwd update"
    error: str = "RuntimeError"


_STATES: dict[str, Any] = {
    "initial": True,
    "final": True,
    "dinitial": True,
    "dfinal": True,
}
_IDS: dict[str, Any] = {"ids": (3, 5)}
_SEEN: dict[str, Any] = {"seen": (0, 1, 2)}
_ROWS: dict[str, Any] = {"rows": (0, 1, 2)}
_SHAPE = "{} must have shape ({})"
_BEFORE = "batch_size, dim, width - 1"
WRONG = {
    "x-float64": Wrong(_like("x", dtype=F64), DTYPES.format("input")),
    "weight-float64": Wrong(_like("weight", dtype=F64), DTYPES.format("weight")),
    "weight-longer": Wrong(
        _like("weight", longer=0), _SHAPE.format("weight", "dim, width")
    ),
    "width-1": Wrong(
        _like("weight", shape=(16, 1)),
        "causal_conv1d only supports width between 2 and 4",
    ),
    "width-5": Wrong(
        _like("weight", shape=(16, 5)),
        "causal_conv1d only supports width between 2 and 4",
        {"columns": 8},
    ),
    "bias-longer": Wrong(_like("bias", longer=0), _SHAPE.format("bias", "dim")),
    "bias-float64": Wrong(
        _like("bias", dtype=F64), IS.format("bias.scalar_type() == weight_type")
    ),
    "seq_idx-float": Wrong(
        _like("seq_idx", dtype=F32),
        IS.format("seq_idx.scalar_type() == torch::kInt32"),
        _IDS,
        "fwd bwd",
    ),
    "seq_idx-longer": Wrong(
        _like("seq_idx", longer=1),
        _SHAPE.format("seq_idx", "batch_size, seqlen"),
        _IDS,
        "fwd bwd",
    ),
    "initial_states-half": Wrong(
        _like("initial_states", dtype=F16),
        IS.format("initial_states.scalar_type() == input_type"),
        _STATES,
        "fwd bwd",
    ),
    "initial_states-longer": Wrong(
        _like("initial_states", longer=2),
        _SHAPE.format("initial_states", _BEFORE),
        _STATES,
        "fwd bwd",
    ),
    "final_states_out-half": Wrong(
        _like("final_states_out", dtype=F16),
        IS.format("final_states.scalar_type() == input_type"),
        _STATES,
        "fwd",
    ),
    "dfinal_states-half": Wrong(
        _like("dfinal_states", dtype=F16),
        IS.format("dfinal_states.scalar_type() == input_type"),
        _STATES,
        "bwd",
    ),
    "dfinal_states-longer": Wrong(
        _like("dfinal_states", longer=2),
        _SHAPE.format("dfinal_states", _BEFORE),
        _STATES,
        "bwd",
    ),
    "dout-longer": Wrong(
        _like("dout", longer=2),
        _SHAPE.format("dout", "batch_size, dim, seqlen"),
        of="bwd",
    ),
    "dx-half": Wrong(
        _like("dx", dtype=F16), IS.format("dx.scalar_type() == input_type"), of="bwd"
    ),
    "dx-longer": Wrong(
        _like("dx", longer=2), _SHAPE.format("dx", "batch_size, dim, seqlen"), of="bwd"
    ),
    "dbias-missing": Wrong(
        _without("dbias"),
        IS.format("bias_.has_value() == dbias_.has_value()"),
        of="bwd",
    ),
    "conv_state-half": Wrong(
        _like("conv_state", dtype=F16),
        IS.format("conv_state.scalar_type() == input_type"),
        of="update",
    ),
    "conv_state-of-two-dimensions": Wrong(
        _like("conv_state", shape=(3, 16)),
        "Dimension out of range (expected to be in range of [-2, 1], but got 2)",
        of="update",
        error="IndexError",
    ),
    "conv_state-short": Wrong(
        _like("conv_state", shape=(3, 16, 2)),
        IS.format("conv_state_len >= width - 1"),
        of="update",
    ),
    "conv_state-more-rows": Wrong(
        _like("conv_state", longer=0),
        _SHAPE.format("conv_state", "batch_size, dim, conv_state_len"),
        of="update",
    ),
    "conv_state-more-channels": Wrong(
        _like("conv_state", longer=1),
        _SHAPE.format("conv_state", "conv_state_entries, dim, conv_state_len"),
        _ROWS,
        "update",
    ),
    "cache_seqlens-float": Wrong(
        _like("cache_seqlens", dtype=F32),
        IS.format("cache_seqlens.scalar_type() == torch::kInt32"),
        _SEEN,
        "update",
    ),
    "cache_seqlens-longer": Wrong(
        _like("cache_seqlens", longer=0),
        _SHAPE.format("cache_seqlens", "batch_size"),
        _SEEN,
        "update",
    ),
    "conv_state_indices-float": Wrong(
        _like("conv_state_indices", dtype=F32),
        IS.format("conv_state_indices.scalar_type() == torch::kInt32"),
        _ROWS,
        "update",
    ),
    "conv_state_indices-longer": Wrong(
        _like("conv_state_indices", longer=0),
        _SHAPE.format("conv_state_indices", "batch_size"),
        _ROWS,
        "update",
    ),
    "batch-0": Wrong(lambda call: None, NOTHING, {"batch": 0}),
    "dim-0": Wrong(lambda call: None, NOTHING, {"dim": 0}),
    "length-0": Wrong(lambda call: None, NOTHING, {"length": 0}),
}


def _row(kind: Any, why: str, **options: Any) -> Any:
    """A row of this kind, from those of the options that it has."""
    known = kind.__dataclass_fields__
    return kind(why, **{n: value for n, value in options.items() if n in known})


def _refused(name: str, wrong: Wrong, of: str, signature: str) -> Case:
    kind, build = {
        "fwd": (Conv, forward),
        "bwd": (Conv, backward),
        "update": (Update, update),
    }[of]
    layouts = dict.fromkeys(WIDE + STATES, CHANNEL_LAST)
    row = _row(kind, "", **{"dim": 16, "layouts": layouts, **wrong.row})

    def make(maker: Maker) -> Call:
        call: Call = build(row, maker)
        wrong.edit(call)
        return call

    return Case(
        f"refused-{name}{'-module' if signature else ''}-{of}",
        "refused before anything is written, in upstream's words",
        make,
        refusal=wrong.text,
        error=wrong.error,
        signature=signature,
    )


def _misused(function: str, count: int) -> list[Case]:
    """Calls that pybind11 refuses, whatever the values: by name, too few, too many, of
    a wrong type."""

    def case(name: str, change: Callable[[list[Any]], Any]) -> Case:
        def make(maker: Maker) -> Plain:
            args: list[Any] = [Array((2, 8, 4), F32).fill(torch.ones(()))] * count
            named = change(args)
            named = named if isinstance(named, dict) else {}
            return Plain(MODULE, function, tuple(args), named)

        return Case(
            f"misused-{function}-{name}",
            "pybind11 refuses it: a TypeError in its words, which users search for",
            make,
            refusal=f"{function}(): incompatible function arguments.",
            error="TypeError",
            signature=f"{MODULE}.{function}",
        )

    return [
        case("by-name", lambda args: {"x": args.pop(0)}),
        case("no-arguments", lambda args: args.clear()),
        case("many-more", lambda args: args.extend(args[:1] * 9)),
        case("none-for-x", lambda args: args.__setitem__(0, None)),
        case("a-list-for-x", lambda args: args.__setitem__(0, [1.0])),
        case("a-word-for-bias", lambda args: args.__setitem__(2, "bias")),
    ]


def _refusals() -> list[Case]:
    found = []
    lists = {"fwd": "fwd/8", "bwd": "bwd/12", "update": "update/8"}
    for name, wrong in WRONG.items():
        for of in wrong.of.split():
            for signature in ("", f"{MODULE}.causal_conv1d_{lists[of]}"):
                found.append(_refused(name, wrong, of, signature))
    for function, count in (("fwd", 8), ("bwd", 12), ("update", 8)):
        found += _misused("causal_conv1d_" + function, count)
    return found


# ---- all of them -------------------------------------------------------------------

RANDOM = 120
QUICK_SIZE = 200_000  # batch * dim * length

Rows = Callable[[], "dict[str, Any]"]

#: family -> its rows; every how manieth of them is quick; what it is about
_TABLE: dict[str, tuple[Rows, int, str]] = {
    "lengths": (_size_rows, 12, "time around every width, vector, tile and segment"),
    "channels": (_channel_rows, 5, "channels and batch around a vector and a block"),
    "options": (_option_rows, 8, "dtypes of weight and bias, bias and gate on and off"),
    "pairs": (_pair_rows, 5, "all options pairwise"),
    "states": (_state_rows, 8, "states in and out, and their gradients"),
    "sequences": (_sequence_rows, 8, "seq_idx and padding"),
    "layouts": (_layout_rows, 12, "any strides, in one array and in all"),
    "callers": (_caller_rows, 3, "shapes and strides as real callers hand them in"),
    "alignment": (_alignment_rows, 12, "addresses and rows off a vector's alignment"),
    "aliasing": (_alias_rows, 6, "out in the memory of x, last states in the first's"),
    "values": (_value_rows, 5, "the largest, the smallest, the ends of the gate"),
    "nonfinite": (_nonfinite_rows, 10, "NaN and inf, where a tap meets them and only"),
    "update": (_update_rows, 10, "the step on a line"),
    "update-pairs": (_update_pair_rows, 4, "the step's options pairwise"),
    "update-layouts": (_update_layout_rows, 8, "the step with any strides, in place"),
    "update-values": (_update_value_rows, 4, "the step with NaN, inf and subnormals"),
    "ring": (_ring_rows, 8, "the step on a ring: cache_seqlens"),
    "indexed": (_indexed_rows, 3, "the step with conv_state_indices"),
    "signatures": (_signature_rows, 6, "every argument list the module ever had"),
    "calls": (_call_rows, 4, "other streams, graphs, threads and devices"),
    "determinism": (_determinism_rows, 3, "the same bits each time"),
}
FAMILIES = {
    **{family: text for family, (_, _, text) in _TABLE.items()},
    "refusals": "what must be refused: the exception's type and text",
    "random": "everything above at once, by seeded chance",
}


def _cases(name: str, row: Conv | Update, family: str, quick: bool) -> list[Case]:
    made: tuple[tuple[str, str, Callable[[Any, Maker], Call]], ...] = (
        (("update", row.signature, update),)
        if isinstance(row, Update)
        else (("fwd", row.fwd, forward), ("bwd", row.bwd, backward))
    )
    return [
        Case(
            f"{name}-{direction}",
            row.why,
            lambda maker, make=make: make(row, maker),  # type: ignore[misc]
            family=family,
            quick=quick,
            how=row.how,
            signature=signature,
        )
        for direction, signature, make in made
        if signature != "no"
    ]


def cases(seed: int) -> list[Case]:
    """Hand-written corners, then random ones that the seed chooses."""
    found: list[Case] = []
    for family, (rows, quick, _) in _TABLE.items():
        for number, (name, row) in enumerate(rows().items()):
            small = row.batch * row.dim * row.length < QUICK_SIZE
            found += _cases(name, row, family, number % quick == 0 and small)
    for number, case in enumerate(_refusals()):
        found.append(replace(case, family="refusals", quick=number % 4 == 0))
    for number in range(seed, seed + RANDOM):
        for row in (_random_conv(number), _random_update(number)):
            quick = number < seed + 20
            found += _cases(f"random-{number}", row, "random", quick)
    return found
