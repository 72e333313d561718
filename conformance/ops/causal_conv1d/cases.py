# SPDX-License-Identifier: Apache-2.0
"""Cases of the causal convolution. Each Conv row becomes two cases, NAME-fwd and
NAME-bwd; each Update row one, NAME-update."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Dict, Optional, Sequence

import torch

from ...arrays import CONTIGUOUS, Array, Layout
from ...cases import Case, Maker, Tolerance
from ...providers import Call

F32, F16, BF16, I32 = torch.float32, torch.float16, torch.bfloat16, torch.int32
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

# ---- from a row to a call --------------------------------------------------------

Edit = Optional[Callable[[Dict[str, torch.Tensor]], Any]]  # changes values in place


@dataclass(frozen=True)
class Conv:
    """One way to call forward and backward."""

    why: str
    batch: int = 2
    dim: int = 6
    length: int = 37
    width: int = 4
    dtype: torch.dtype = F32
    weight_dtype: torch.dtype = F32
    bias_dtype: torch.dtype | None = F32  # None: no bias
    silu: bool = True
    initial: bool = False
    final: bool = False
    dinitial: bool = False
    dfinal: bool = False
    ids: Sequence[int] | None = None  # lengths of the sequences; negative: padding
    gradient_dtype: torch.dtype | None = None  # of dweight; None: the weight's
    accumulate: bool = False
    layouts: dict[str, Layout] = field(default_factory=dict)
    edit: Edit = None


def _place(row: Any, name: str, values: torch.Tensor, dtype: torch.dtype) -> Array:
    array = Array(values.shape, dtype, row.layouts.get(name, CONTIGUOUS))
    for axis in array.layout.expand:
        values = values.narrow(axis, 0, 1)
    return array.fill(values)


def _sequence_ids(row: Conv) -> torch.Tensor:
    """(B, L): 0 0 0 1 1 2 ..., the lengths repeated as often as needed; each batch row
    starts with another of them."""
    assert row.ids
    ids = torch.zeros(row.batch, row.length, dtype=torch.int64)
    for b in range(row.batch):
        t = 0
        for number in itertools.count():
            span = row.ids[(number + b) % len(row.ids)]
            ids[b, t : t + abs(span)] = number if span > 0 else -1
            t += abs(span)
            if t >= row.length:
                break
    return ids


def _inputs(row: Conv, maker: Maker) -> dict[str, Array]:
    states = (row.batch, row.dim, row.width - 1)
    values = {
        "x": maker.normal(row.batch, row.dim, row.length),
        "weight": maker.normal(row.dim, row.width),
    }
    dtypes = {"x": row.dtype, "weight": row.weight_dtype}
    if row.bias_dtype:
        values["bias"], dtypes["bias"] = maker.normal(row.dim), row.bias_dtype
    if row.initial:
        values["initial_states"] = maker.normal(*states)
        dtypes["initial_states"] = row.dtype
    if row.ids:
        values["seq_idx"], dtypes["seq_idx"] = _sequence_ids(row), I32
    if row.edit:
        row.edit(values)
    return {name: _place(row, name, v, dtypes[name]) for name, v in values.items()}


def _output(row: Any, name: str, shape: Sequence[int], dtype: torch.dtype) -> Array:
    return Array(shape, dtype, row.layouts.get(name, CONTIGUOUS))


def _forward(row: Conv, maker: Maker) -> Call:
    inputs = _inputs(row, maker)
    outputs = {"out": _output(row, "out", inputs["x"].shape, row.dtype)}
    if row.final:
        shape = (row.batch, row.dim, row.width - 1)
        outputs["final_states_out"] = _output(row, "final_states_out", shape, row.dtype)
    return Call(
        "causal_conv1d_fwd", inputs, outputs, {"silu_activation": int(row.silu)}
    )


def _backward(row: Conv, maker: Maker) -> Call:
    inputs = _inputs(row, maker)
    states = (row.batch, row.dim, row.width - 1)
    dout = maker.normal(*inputs["x"].shape)
    inputs["dout"] = _place(row, "dout", dout, row.dtype)
    if row.dfinal:
        dfinal = maker.normal(*states)
        inputs["dfinal_states"] = _place(row, "dfinal_states", dfinal, row.dtype)

    weight = inputs["weight"]
    gradient = row.gradient_dtype or weight.dtype
    outputs = {
        "dx": _output(row, "dx", inputs["x"].shape, row.dtype),
        "dweight": _output(row, "dweight", weight.shape, gradient),
    }
    if row.bias_dtype:
        gradient = row.gradient_dtype or row.bias_dtype
        outputs["dbias"] = _output(row, "dbias", (row.dim,), gradient)
    if row.dinitial:
        outputs["dinitial_states"] = _output(row, "dinitial_states", states, row.dtype)
    if row.accumulate:
        for name in ("dweight", "dbias"):
            if name in outputs:
                outputs[name].fill(maker.normal(*outputs[name].shape))
    scalars = {"silu_activation": int(row.silu), "accumulate": int(row.accumulate)}
    return Call("causal_conv1d_bwd", inputs, outputs, scalars)


def _pair(name: str, row: Conv) -> list[Case]:
    return [
        Case(name + "-fwd", row.why, lambda maker: _forward(row, maker)),
        Case(name + "-bwd", row.why, lambda maker: _backward(row, maker)),
    ]


@dataclass(frozen=True)
class Update:
    """One way to step."""

    why: str
    batch: int = 3
    dim: int = 6
    length: int = 1
    width: int = 4
    columns: int = 4  # S
    dtype: torch.dtype = F32
    weight_dtype: torch.dtype = F32
    bias_dtype: torch.dtype | None = F32
    silu: bool = True
    seen: Sequence[int] | None = None  # cache_seqlens; None: a line, not a ring
    rows: Sequence[int] | None = None  # conv_state_indices
    row_count: int = 0  # rows of conv_state; 0: batch
    layouts: dict[str, Layout] = field(default_factory=dict)


def _update(row: Update, maker: Maker) -> Call:
    inputs = {
        "x": _place(row, "x", maker.normal(row.batch, row.dim, row.length), row.dtype),
        "weight": _place(
            row, "weight", maker.normal(row.dim, row.width), row.weight_dtype
        ),
    }
    if row.bias_dtype:
        inputs["bias"] = _place(row, "bias", maker.normal(row.dim), row.bias_dtype)
    for name, numbers in (
        ("cache_seqlens", row.seen),
        ("conv_state_indices", row.rows),
    ):
        if numbers is not None:
            inputs[name] = _place(row, name, torch.tensor(numbers), I32)
    state = maker.normal(row.row_count or row.batch, row.dim, row.columns)
    outputs = {
        "out": _output(row, "out", inputs["x"].shape, row.dtype),
        "conv_state": _place(row, "conv_state", state, row.dtype),
    }
    return Call(
        "causal_conv1d_update", inputs, outputs, {"silu_activation": int(row.silu)}
    )


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


FAR: dict[str, dict[str, int]] = {
    "length-1100000": {"batch": 1, "dim": 1, "length": 1_100_000},
    "dim-70000": {"batch": 1, "dim": 70_000, "length": 3},
    "batch-70000": {"batch": 70_000, "dim": 1, "length": 3},
}


def _size_rows() -> dict[str, Conv]:
    rows = {}
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
    for far, sizes in FAR.items():
        for name, layout in (("", CONTIGUOUS), ("-channel-last", CHANNEL_LAST)):
            rows[far + name] = Conv(
                "a size that 16 or 20 bits, or one axis of a launch, do not hold",
                layouts=dict.fromkeys(WIDE, layout),
                **sizes,
            )
    for length in (255, 257, 511, 513, 1023, 1025, 2047, 2049, 4097):
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
    for dim in (1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 65, 130):
        for name, layout in (("", CONTIGUOUS), ("-channel-last", CHANNEL_LAST)):
            rows[f"D{dim}{name}"] = Conv(
                "channels around a vector and a block; upstream wants multiples of 8",
                dim=dim,
                length=19,
                layouts=dict.fromkeys(WIDE, layout),
            )
    for batch in (1, 5):
        rows[f"batch{batch}"] = Conv("sums over an odd number of rows", batch=batch)
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
    rows["sequences-final"] = Conv(
        "the last states do not care for sequences", ids=(3, 5), final=True, dfinal=True
    )
    rows["sequences-initial"] = Conv(
        "states before time 0 have id -1: they count for padding alone",
        ids=(-2, 5),
        initial=True,
        dinitial=True,
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
        rows[f"nan-{kind}"] = Conv(
            "NaN reaches W outputs and no more",
            dtype=dtype,
            silu=silu,
            edit=_set("x", (1, 2, 20), float("nan")),
        )
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
    rows["infinite"] = Conv(
        "infinity reaches W outputs and no more",
        silu=False,
        edit=_set("x", (0, 3, 11), float("inf")),
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
    return rows


def _update_rows() -> dict[str, Update]:
    rows = {}
    for width, columns, length in itertools.product(
        (2, 3, 4), (1, 2, 3, 4, 5, 8), (1, 2, 3, 4, 5, 9)
    ):
        if columns < width - 1:
            continue
        name = f"W{width}-S{columns}-L{length}"
        rows[name] = Update(
            "states as short as allowed and longer, steps shorter and longer than they",
            width=width,
            columns=columns,
            length=length,
            silu=length % 2 == 0,
        )
        rows[name + "-ring"] = Update(
            "a ring that wraps within, before and after the step",
            width=width,
            columns=columns,
            length=length,
            silu=length % 2 == 1,
            seen=(0, columns - 1, 3 * columns + 1),
        )
    for dim in (1, 3, 4, 5, 8, 15, 16, 17, 33, 64, 65):
        rows[f"D{dim}"] = Update("channels around a vector's width", dim=dim)
        rows[f"D{dim}-ring"] = Update(
            "channels around a vector's width", dim=dim, seen=(5, 0, 2)
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
    for ring in (None, (4, 9, 0)):
        kind = "-ring" if ring else ""
        rows[f"rows{kind}"] = Update(
            "each batch row names its state; the others stay as they are",
            rows=(5, 0, 2),
            row_count=7,
            seen=ring,
        )
        rows[f"rows-padding{kind}"] = Update(
            "a negative row is padding: out is 0, no state is touched",
            rows=(-1, 3, -100),
            row_count=5,
            length=3,
            seen=ring,
        )
        rows[f"rows-fewer{kind}"] = Update(
            "fewer states than batch rows, the rest is padding",
            rows=(1, -1, 0),
            row_count=2,
            seen=ring,
        )
        for name, layout in LAYOUTS.items():
            for dtype in (F32, BF16):
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
    rows["x-expanded"] = Update(
        "stride 0 in an input", length=3, layouts={"x": Layout(expand=(0, 2))}
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


def _refusals() -> list[Case]:
    invalid = "CUDA error: invalid configuration argument"
    found = []
    for name in ("batch", "dim", "length"):
        why = f"an empty {name} is refused, in upstream's words"
        pair = _pair("empty-" + name, Conv(why, **{name: 0}))
        found += [replace(case, refusal=invalid) for case in pair]
    return found


def cases(seed: int) -> list[Case]:
    """Hand-written corners, then random ones that the seed chooses."""
    rows: dict[str, Conv] = {}
    for family in (
        _size_rows,
        _option_rows,
        _state_rows,
        _sequence_rows,
        _layout_rows,
        _value_rows,
    ):
        rows.update(family())
    updates = _update_rows()
    for number in range(seed, seed + 60):
        rows[f"random-{number}"] = _random_conv(number)
        updates[f"random-{number}"] = _random_update(number)
    found = [case for name, row in rows.items() for case in _pair(name, row)]
    for name, row in updates.items():
        found.append(
            Case(name + "-update", row.why, lambda maker, row=row: _update(row, maker))
        )
    return found + _refusals()
