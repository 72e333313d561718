# SPDX-License-Identifier: Apache-2.0
"""Cases of the selective scan. Each Scan row below becomes two cases: NAME-fwd and
NAME-bwd, where bwd gets what the forward returned, rounded as it returns it."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field, replace
from typing import Any, Callable

import torch

from ...arrays import CONTIGUOUS, Array, Layout
from ...cases import Case, Maker, Tolerance
from ...providers import Call

F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
CHUNK = 2048  # positions per entry of x
FAR: dict[str, dict[str, int]] = {
    "length-1100000": {"batch": 1, "dim": 1, "length": 1_100_000},
    "dim-70000": {"batch": 1, "dim": 70_000, "length": 2},
    "batch-70000": {"batch": 70_000, "dim": 1, "length": 2},
}

# ---- tolerances ------------------------------------------------------------------

WHOLE = "a first-order bound for any order of the sums, with all inputs exact"


def _upstream(rtol: float, atol: float) -> dict[torch.dtype, tuple[float, float]]:
    """Factors on the base tolerance of upstream's tests/ops/test_selective_scan.py."""
    base = {F32: (6e-4, 2e-3), F16: (3e-3, 5e-3), BF16: (3e-2, 5e-2)}
    return {dtype: (rtol * r, atol * a) for dtype, (r, a) in base.items()}


def _weights(factor: float = 1) -> dict[torch.dtype, tuple[float, float]]:
    return {F32: (1e-3, 1e-3 * factor), torch.complex64: (1e-3, 1e-3 * factor)}


_BASE = _upstream(1, 1)
TOLERANCES = {
    "out": Tolerance(1, WHOLE, _BASE),
    "out_z": Tolerance(1, WHOLE, _BASE),
    "x": Tolerance(1, WHOLE, {**_BASE, torch.complex64: _BASE[F32]}),
    "du": Tolerance(1, WHOLE, _upstream(2, 2)),
    "ddelta": Tolerance(1, WHOLE, _upstream(5, 10)),
    "dA": Tolerance(1, WHOLE, _weights(5)),
    "dB": Tolerance(1, WHOLE, {**_BASE, torch.complex64: (1e-3, 1e-3)}),
    "dC": Tolerance(1, WHOLE, {**_BASE, torch.complex64: (1e-3, 1e-3)}),
    "dD": Tolerance(1, WHOLE, _weights()),
    "ddelta_bias": Tolerance(1, WHOLE, _weights()),
    "dz": Tolerance(
        1, WHOLE, {F32: (1e-3, 1e-3), F16: (3e-3, 5e-3), BF16: (3e-2, 5e-2)}
    ),
}

# ---- from a row to a call --------------------------------------------------------


@dataclass(frozen=True)
class Scan:
    """One way to call forward and backward. Defaults: what mamba_ssm does."""

    why: str
    batch: int = 2
    dim: int = 6
    length: int = 70
    states: int = 16
    groups: int = 1
    delta_dim: int = 0  # 0: dim
    dtype: torch.dtype = F32
    out_dtype: torch.dtype | None = None  # None: dtype
    dout_dtype: torch.dtype | None = None
    complex: bool = False
    constant_B: bool = False
    constant_C: bool = False
    D: bool = True
    z: bool = False
    bias: bool = True
    softplus: bool = True
    recompute: bool = False  # bwd: out_z again
    keep_x: bool = True  # bwd: hand x over
    layouts: dict[str, Layout] = field(default_factory=dict)
    same_memory: dict[str, str] = field(default_factory=dict)  # output -> input or out
    delta: tuple[float, float] = (0.0, 0.5)
    A: tuple[float, float] = (-0.5, 0.0)
    edit: Callable[[dict[str, torch.Tensor]], Any] | None = None  # in place


def _coefficient_shape(row: Scan, constant: bool) -> tuple[int, ...]:
    if constant:
        return (row.dim, row.states)
    twice = 2 if row.complex else 1
    return (row.batch, row.groups, row.states, twice * row.length)


def _inputs(row: Scan, maker: Maker) -> dict[str, Array]:
    """The arguments that forward and backward share."""
    wide = (row.batch, row.dim, row.length)
    rows = row.delta_dim or row.dim
    values: dict[str, torch.Tensor] = {}
    values["u"] = maker.normal(*wide)
    values["delta"] = maker.uniform(
        row.batch, rows, row.length, low=row.delta[0], high=row.delta[1]
    )
    A = maker.uniform(row.dim, row.states, low=row.A[0], high=row.A[1])
    values["A"] = torch.complex(A, maker.normal(*A.shape)) if row.complex else A
    for name, constant in (("B", row.constant_B), ("C", row.constant_C)):
        shape = _coefficient_shape(row, constant)
        values[name] = maker.normal(*shape)
        if constant and row.complex:
            values[name] = torch.complex(values[name], maker.normal(*shape))
    if row.D:
        values["D"] = maker.normal(row.dim)
    if row.z:
        values["z"] = maker.normal(*wide)
    if row.bias:
        values["delta_bias"] = maker.uniform(rows, low=0, high=0.5)
    if row.edit:
        row.edit(values)

    weight = torch.complex64 if row.complex else F32
    dtypes = dict.fromkeys(values, row.dtype)
    dtypes.update(A=weight, D=F32, delta_bias=F32)
    for name, constant in (("B", row.constant_B), ("C", row.constant_C)):
        if constant:
            dtypes[name] = weight
    return {name: _array(row, name, v, dtypes[name]) for name, v in values.items()}


def _array(row: Scan, name: str, values: torch.Tensor, dtype: torch.dtype) -> Array:
    array = Array(values.shape, dtype, row.layouts.get(name, CONTIGUOUS))
    for axis in array.layout.expand:
        values = values.narrow(axis, 0, 1)
    return array.fill(values)


def _output(row: Scan, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Array:
    return Array(shape, dtype, row.layouts.get(name, CONTIGUOUS))


def _forward(row: Scan, inputs: dict[str, Array]) -> Call:
    wide, weight = (row.batch, row.dim, row.length), inputs["A"].dtype
    chunks = -(-row.length // CHUNK)
    outputs = {
        "out": _output(row, "out", wide, row.out_dtype or row.dtype),
        "x": Array((row.batch, row.dim, chunks, 2 * row.states), weight),
    }
    if row.z:
        outputs["out_z"] = _output(row, "out_z", wide, row.out_dtype or row.dtype)
        outputs["out_z"].in_memory_of(inputs.get(row.same_memory.get("out_z", "")))
    return Call(
        "selective_scan_fwd", inputs, outputs, {"delta_softplus": int(row.softplus)}
    )


def _backward(row: Scan, inputs: dict[str, Array], maker: Maker) -> Call:
    forward = _forward(replace(row, same_memory={}), inputs)
    results = maker.answer(forward)
    given = dict(inputs)
    dout = maker.normal(row.batch, row.dim, row.length)
    given["dout"] = _array(row, "dout", dout, row.dout_dtype or row.dtype)
    if row.keep_x:
        given["x"] = forward.outputs["x"].fill(results["x"])
    if row.z:
        given["out"] = forward.outputs["out"].fill(results["out"])

    wanted = {
        "u": "du",
        "delta": "ddelta",
        "A": "dA",
        "B": "dB",
        "C": "dC",
        "D": "dD",
        "delta_bias": "ddelta_bias",
        "z": "dz",
    }
    outputs = {
        gradient: _output(row, gradient, inputs[name].shape, inputs[name].dtype)
        for name, gradient in wanted.items()
        if name in inputs
    }
    if row.recompute:
        outputs["out_z"] = _output(row, "out_z", given["out"].shape, given["out"].dtype)
    for name in ("dz", "out_z"):
        if name in outputs:
            outputs[name].in_memory_of(given.get(row.same_memory.get(name, "")))
    return Call(
        "selective_scan_bwd", given, outputs, {"delta_softplus": int(row.softplus)}
    )


def _pair(name: str, row: Scan) -> list[Case]:
    return [
        Case(name + "-fwd", row.why, lambda maker: _forward(row, _inputs(row, maker))),
        Case(
            name + "-bwd",
            row.why,
            lambda maker: _backward(row, _inputs(row, maker), maker),
        ),
    ]


# ---- the rows --------------------------------------------------------------------

TIME_SLICE = Layout(gap={2: 3})  # x[..., :L] of something longer
CHANNEL_LAST = Layout(order=(0, 2, 1))
CHUNK_OF_TWO = Layout(gap={1: 6})  # xz.chunk(2, dim=1)[0]
DIM_FIRST = Layout(order=(1, 0, 2))  # "d (b l) -> b d l"
EVERY_OTHER = Layout(step={2: 2})
BACKWARDS = Layout(step={2: -1})
ODD_START = Layout(shift=1)


def _length_rows() -> dict[str, Scan]:
    rows = {}
    for dtype, short in ((F32, "fp32"), (F16, "fp16"), (BF16, "bf16")):
        for length in (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129):
            rows[f"{short}-L{length}"] = Scan(
                "one less, equal and one more than a vector, a block, a launch size",
                length=length,
                dtype=dtype,
                dim=3,
                states=8,
                z=length % 2 == 1,
            )
        for length in (2047, 2048, 2049, 4097):
            rows[f"{short}-L{length}"] = Scan(
                "around the chunks of x: state carried over, x of every chunk",
                length=length,
                dtype=dtype,
                batch=1,
                dim=2,
                states=4,
                z=True,
            )
    return rows


def _size_rows() -> dict[str, Scan]:
    rows = {}
    for states in (1, 2, 3, 4, 8, 15, 16, 17, 32, 64, 255, 256):
        rows[f"N{states}"] = Scan(
            "states around a vector's width and at the limit",
            states=states,
            dim=3,
            length=37,
            batch=1,
        )
    for dim in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33):
        rows[f"D{dim}"] = Scan(
            "channels around a vector's width", dim=dim, length=19, states=4, z=True
        )
    for batch in (1, 3, 5):
        rows[f"batch{batch}"] = Scan(
            "sums over an odd number of rows", batch=batch, dim=5, length=33, states=3
        )
    for length, groups, dim, states in (
        (257, 2, 34, 16),
        (600, 1, 17, 8),
        (2100, 3, 9, 5),
    ):
        rows[f"L{length}-G{groups}-D{dim}"] = Scan(
            "many blocks of time and of channels at once",
            length=length,
            groups=groups,
            dim=dim,
            states=states,
            batch=1,
            z=True,
            delta_dim=groups,
            dtype=F16,
        )
    for groups, dim in ((2, 6), (3, 6), (6, 6), (4, 32), (32, 32), (2, 34)):
        for dtype, short in ((F32, "fp32"), (BF16, "bf16")):
            rows[f"G{groups}-D{dim}-{short}"] = Scan(
                "each channel reads and sums into its own group",
                groups=groups,
                dim=dim,
                length=40,
                states=5,
                dtype=dtype,
            )
    return rows


def _option_rows() -> dict[str, Scan]:
    rows = {}
    switches = ("D", "z", "bias", "softplus")
    for on in itertools.product((False, True), repeat=4):
        name = "options-" + ("+".join(s for s, o in zip(switches, on) if o) or "none")
        rows[name] = Scan(
            "each optional argument present and absent, in every combination",
            length=45,
            states=4,
            recompute=on[1],
            **dict(zip(switches, on)),
        )
    for B, C in itertools.product((False, True), repeat=2):
        for complex in (False, True):
            for groups in (1, 2):
                if groups == 2 and B:  # C has one group then, says upstream
                    continue
                for dtype, short in ((F32, "fp32"), (F16, "fp16"), (BF16, "bf16")):
                    name = "{}-{}B-{}C-G{}-{}".format(
                        "complex" if complex else "real",
                        "constant" if B else "variable",
                        "constant" if C else "variable",
                        groups,
                        short,
                    )
                    rows[name] = Scan(
                        "constant and variable B and C, independently; complex groups",
                        complex=complex,
                        constant_B=B,
                        constant_C=C,
                        groups=groups,
                        dtype=dtype,
                        length=41,
                        states=5,
                        z=groups == 2,
                    )
    for dtype, short in ((F32, "fp32"), (F16, "fp16"), (BF16, "bf16")):
        for delta_dim in (1, 2, 3):
            rows[f"grouped-delta{delta_dim}-{short}"] = Scan(
                "VMamba: several channels share a row of delta",
                delta_dim=delta_dim,
                dtype=dtype,
                states=1,
                length=50,
            )
        rows[f"out-fp32-{short}"] = Scan(
            "VMamba: the unrounded output, and a gradient in fp32",
            dtype=dtype,
            out_dtype=F32,
            dout_dtype=F32,
            states=3,
            delta_dim=2,
            groups=2,
        )
        rows[f"recompute-{short}"] = Scan(
            "out_z again from the rounded out",
            dtype=dtype,
            z=True,
            recompute=True,
            states=4,
        )
    rows["chunks-complex"] = Scan(
        "x of several chunks, complex",
        complex=True,
        length=2100,
        states=2,
        dim=2,
        batch=1,
        groups=2,
    )
    rows["chunks-constant-B"] = Scan(
        "upstream's quirk: with a constant B the state in x is without B",
        constant_B=True,
        length=2100,
        states=2,
        dim=2,
        batch=1,
    )
    rows["chunks-constant-B-C"] = Scan(
        "the same with constant C",
        constant_B=True,
        constant_C=True,
        length=4100,
        states=3,
        dim=2,
        batch=1,
    )
    rows["no-x"] = Scan("x may be absent if there is one chunk", keep_x=False, z=True)
    for name, sizes in FAR.items():
        rows[name] = Scan(
            "a size that 16 or 20 bits, or one axis of a launch, do not hold",
            states=1,
            **sizes,
        )
    rows["wide"] = Scan(
        "a realistic layer",
        batch=2,
        dim=64,
        length=200,
        states=16,
        z=True,
        dtype=BF16,
        recompute=True,
    )
    return rows


def _layout_rows() -> dict[str, Scan]:
    every = {
        "channel-last": CHANNEL_LAST,
        "time-slice": TIME_SLICE,
        "dim-first": DIM_FIRST,
        "chunk-of-two": CHUNK_OF_TWO,
        "every-other": EVERY_OTHER,
        "backwards": BACKWARDS,
        "odd-start": ODD_START,
    }
    rows = {}
    three = ("u", "delta", "z", "out", "out_z", "dout", "du", "ddelta", "dz")
    for name, layout in every.items():
        for dtype, short in ((F32, "fp32"), (F16, "fp16"), (BF16, "bf16")):
            rows[f"all-{name}-{short}"] = Scan(
                "no stride is refused for want of speed",
                dtype=dtype,
                z=True,
                recompute=True,
                states=4,
                length=35,
                dim=5,
                layouts=dict.fromkeys(three, layout),
            )
        for one in ("u", "delta", "z", "out", "dout", "du", "dz"):
            rows[f"{one}-{name}"] = Scan(
                "one array lies otherwise than the rest: no stride is mixed up",
                z=True,
                states=3,
                length=33,
                layouts={one: layout},
            )
    coefficients = {
        "time-first": Layout(order=(0, 1, 3, 2)),
        "time-slice": Layout(gap={3: 5}),
        "batch-inner": Layout(order=(1, 2, 0, 3)),
        "every-other": Layout(step={3: 2}),
        "backwards": Layout(step={3: -1}),
        "odd-start": Layout(shift=3),
        "slice-of-states": Layout(gap={2: 4}),
    }
    for name, layout in coefficients.items():
        for complex in (False, True):
            kind = "complex" if complex else "real"
            rows[f"BC-{name}-{kind}"] = Scan(
                "B and C and their gradients in every order",
                groups=2,
                complex=complex,
                states=5,
                length=29,
                layouts=dict.fromkeys(("B", "C", "dB", "dC"), layout),
            )
    for name, axes in (
        ("batch", (0,)),
        ("groups", (1,)),
        ("states", (2,)),
        ("time", (3,)),
        ("all", (0, 1, 2, 3)),
    ):
        rows[f"BC-expanded-{name}"] = Scan(
            "stride 0 in an input",
            groups=2,
            states=4,
            length=29,
            layouts=dict.fromkeys(("B", "C"), Layout(expand=axes)),
        )
    for name, axes in (
        ("batch", (0,)),
        ("dim", (1,)),
        ("time", (2,)),
        ("all", (0, 1, 2)),
    ):
        rows[f"inputs-expanded-{name}"] = Scan(
            "stride 0 in an input; dout of a sum is expanded",
            z=True,
            states=4,
            length=29,
            layouts=dict.fromkeys(("u", "delta", "z", "dout"), Layout(expand=axes)),
        )
    small = {
        "transposed": Layout(order=(1, 0)),
        "every-other": Layout(step={1: 2}),
        "backwards": Layout(step={0: -1, 1: -1}),
        "odd-start": Layout(shift=1),
    }
    for name, layout in small.items():
        for constant in (False, True):
            names = ("A", "dA") + (("B", "C", "dB", "dC") if constant else ())
            rows["A-{}{}".format(name, "-constant" if constant else "")] = Scan(
                "A, and constant B and C, with any strides",
                constant_B=constant,
                constant_C=constant,
                states=5,
                length=23,
                layouts=dict.fromkeys(names, layout),
            )
    rows["A-expanded"] = Scan(
        "one A for all channels",
        states=5,
        length=23,
        layouts={"A": Layout(expand=(0,))},
    )
    rows["vectors-every-other"] = Scan(
        "D and delta_bias with gaps; upstream's wrapper does not make the bias dense",
        states=3,
        length=23,
        layouts=dict.fromkeys(
            ("D", "delta_bias", "dD", "ddelta_bias"), Layout(step={0: 3})
        ),
    )
    rows["vectors-expanded"] = Scan(
        "D and delta_bias shared by all channels",
        states=3,
        length=23,
        layouts=dict.fromkeys(("D", "delta_bias"), Layout(expand=(0,))),
    )
    rows["mamba-inner"] = Scan(
        "as MambaInnerFn calls: delta and dout (D,B,L), z and dz halves of one buffer",
        z=True,
        recompute=True,
        layouts={
            "delta": DIM_FIRST,
            "ddelta": DIM_FIRST,
            "dout": DIM_FIRST,
            "out": DIM_FIRST,
            "z": CHUNK_OF_TWO,
            "dz": CHUNK_OF_TWO,
            "out_z": CHUNK_OF_TWO,
        },
    )
    for output, owner in (
        ("dz", "z"),
        ("dz", "dout"),
        ("dz", "out"),
        ("out_z", "out"),
        ("out_z", "z"),
        ("out_z", "dout"),
    ):
        rows[f"{output}-in-{owner}"] = Scan(
            "dz and out_z may be the memory of z, dout or out",
            z=True,
            recompute=output == "out_z",
            states=4,
            length=83,
            same_memory={output: owner},
        )
    return rows


def _set(
    name: str, index: Any, value: float
) -> Callable[[dict[str, torch.Tensor]], None]:
    def edit(values: dict[str, torch.Tensor]) -> None:
        values[name][index] = value

    return edit


def _value_rows() -> dict[str, Scan]:
    rows = {}
    for low, high in (
        (1e-8, 1e-7),
        (1e-4, 1e-3),
        (1, 4),
        (10, 30),
        (19.9, 20.1),
        (50, 200),
        (1e3, 1e4),
        (-30, -10),
        (-200, -50),
        (-1, 1),
    ):
        for softplus in (False, True):
            if not softplus and low < 0:
                continue
            rows[
                "delta-{:g}-{:g}{}".format(low, high, "-softplus" if softplus else "")
            ] = Scan(
                "steps from nothing to enormous, around the switch of softplus at 20",
                delta=(low, high),
                softplus=softplus,
                bias=False,
                states=4,
                length=67,
                z=True,
            )
    rows["delta-negative"] = Scan(
        "without softplus a step may be negative: the state grows",
        delta=(-0.2, 0.2),
        softplus=False,
        bias=False,
        states=4,
        length=67,
    )
    rows["delta-exactly-20"] = Scan(
        "softplus switches above 20, not at it",
        delta=(20.0, 20.0),
        bias=False,
        states=2,
        length=9,
    )
    for low, high in ((-1e-6, 0), (-8, -1), (-100, -10), (-1e4, -1e3), (0, 0.05)):
        rows[f"A{low:g}-{high:g}"] = Scan(
            "from a state that never forgets to one that forgets at once, and growth",
            A=(low, high),
            states=4,
            length=131,
            z=True,
        )
        rows[f"A{low:g}-{high:g}-complex"] = Scan(
            "the same with a complex A",
            A=(low, high),
            states=4,
            length=67,
            complex=True,
        )
    rows["never-forgets-long"] = Scan(
        "rounding errors of 4097 steps add up",
        A=(-1e-7, 0),
        length=4097,
        batch=1,
        dim=2,
        states=2,
    )
    rows["huge-u"] = Scan(
        "states near the greatest float",
        states=2,
        length=33,
        edit=lambda v: v["u"].mul_(1e35),
    )
    rows["overflow"] = Scan(
        "out beyond the greatest float is infinite, of the right sign",
        states=1,
        length=33,
        D=False,
        edit=lambda v: (v["u"].mul_(1e38), v["B"].mul_(1e4)),
    )
    rows["overflow-fp16"] = Scan(
        "out beyond the greatest half is infinite, of the right sign",
        states=1,
        length=33,
        dtype=F16,
        edit=lambda v: (v["u"].mul_(1e3), v["B"].mul_(1e3)),
    )
    rows["underflow"] = Scan(
        "products below the least float vanish and do no harm",
        states=2,
        length=33,
        edit=lambda v: (v["u"].mul_(1e-30), v["B"].mul_(1e-12)),
    )
    rows["zeros"] = Scan(
        "all zero in, all zero out",
        states=2,
        length=33,
        z=True,
        edit=lambda v: [v[name].zero_() for name in ("u", "B", "C", "z")],
    )
    for name in ("u", "delta", "z"):
        for value in (float("nan"), float("inf")):
            rows[f"{name}-{value}"] = Scan(
                "what is not a number stays in its channel, and in the times after it",
                z=True,
                states=2,
                length=37,
                dim=5,
                softplus=value != value,
                edit=_set(name, (1, 2, 20), value),
            )
    rows["B-nan"] = Scan(
        "NaN in B reaches its group from its time on",
        groups=2,
        states=3,
        length=37,
        edit=_set("B", (0, 1, 1, 20), float("nan")),
    )
    rows["C-nan"] = Scan(
        "NaN in C reaches its group at its time only",
        groups=2,
        states=3,
        length=37,
        edit=_set("C", (0, 1, 1, 20), float("nan")),
    )
    rows["A-nan"] = Scan(
        "NaN in A stays in its channel",
        states=3,
        length=37,
        edit=_set("A", (2, 1), float("nan")),
    )
    rows["D-nan"] = Scan(
        "NaN in D stays in its channel",
        states=3,
        length=37,
        edit=_set("D", (2,), float("nan")),
    )
    return rows


def _random_row(seed: int) -> Scan:
    """A Scan drawn from everything above at once."""
    chance = random.Random(seed)
    pick, coin = chance.choice, lambda: chance.random() < 0.5
    complex = chance.random() < 0.25
    constant_B = chance.random() < 0.2
    constant_C = chance.random() < 0.2
    groups = 1 if constant_B else pick((1, 1, 2, 3))
    per_group = pick((1, 2, 3, 4, 6))
    dim = groups * per_group
    delta_dim = pick([d for d in range(1, dim + 1) if dim % d == 0]) if coin() else 0
    three = [
        CONTIGUOUS,
        CHANNEL_LAST,
        TIME_SLICE,
        DIM_FIRST,
        CHUNK_OF_TWO,
        EVERY_OTHER,
        BACKWARDS,
        ODD_START,
    ]
    names = ("u", "delta", "z", "out", "out_z", "dout", "du", "ddelta", "dz")
    layouts = {name: pick(three) for name in names}
    four = [
        CONTIGUOUS,
        Layout(order=(0, 1, 3, 2)),
        Layout(gap={3: 5}),
        Layout(order=(1, 2, 0, 3)),
        Layout(step={3: 2}),
        Layout(shift=1),
    ]
    if not constant_B:
        layouts.update(B=pick(four), dB=pick(four))
    if not constant_C:
        layouts.update(C=pick(four), dC=pick(four))
    dtype = pick((F32, F16, BF16))
    float_out = dtype != F32 and coin()
    z = coin() and not float_out
    return Scan(
        "seeded chance",
        batch=pick((1, 2, 3)),
        dim=dim,
        length=chance.randint(1, 150),
        states=pick((1, 2, 3, 4, 5, 8, 16, 17)),
        groups=groups,
        delta_dim=delta_dim,
        dtype=dtype,
        out_dtype=F32 if float_out else None,
        dout_dtype=F32 if float_out else None,
        complex=complex,
        constant_B=constant_B,
        constant_C=constant_C,
        D=coin(),
        z=z,
        bias=coin(),
        softplus=coin(),
        recompute=z and coin(),
        keep_x=coin(),
        layouts=layouts,
        delta=pick(((0, 0.5), (1e-3, 0.1), (-3, 3))) if coin() else (0.0, 0.5),
        A=pick(((-0.5, 0.0), (-16, -1), (-1e-3, 0))),
    )


def _refusals() -> list[Case]:
    invalid = "CUDA error: invalid configuration argument"

    def case(name: str, **sizes: int) -> list[Case]:
        row = Scan("an empty batch or dim is refused, in upstream's words", **sizes)
        return [replace(c, refusal=invalid) for c in _pair(name, row)]

    return case("empty-batch", batch=0) + case("empty-dim", dim=0)


def cases(seed: int) -> list[Case]:
    """Hand-written corners, then random ones that the seed chooses."""
    rows: dict[str, Scan] = {}
    for family in (_length_rows, _size_rows, _option_rows, _layout_rows, _value_rows):
        rows.update(family())
    rows["L0"] = Scan(
        "no time at all: empty results, gradients of weights zero", length=0, z=True
    )
    rows.update({f"random-{seed + i}": _random_row(seed + i) for i in range(60)})
    return [c for name, row in rows.items() for c in _pair(name, row)] + _refusals()
