# SPDX-License-Identifier: Apache-2.0
"""Cases of the selective scan, by family. Each Scan row becomes two cases: NAME-fwd and
NAME-bwd, where bwd gets what the forward returned, rounded as it returns it."""

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
from .calls import BF16, F16, F32, Edit, Given, Scan, backward, forward

FAR: dict[str, dict[str, int]] = {
    "length-1100000": {"batch": 1, "dim": 1, "length": 1_100_000},
    "dim-70000": {"batch": 1, "dim": 70_000, "length": 2},
    "batch-70000": {"batch": 70_000, "dim": 1, "length": 2},
}
SHORT = {F32: "fp32", F16: "fp16", BF16: "bf16"}
TILE_ENDS = (191, 192, 193, 255, 256, 257, 319, 384, 511, 512, 513, 1023, 1024, 1025)
STATE_ENDS = (
    15,
    16,
    17,
    24,
    31,
    32,
    33,
    47,
    48,
    49,
    63,
    64,
    65,
    127,
    128,
    129,
    255,
    256,
)
CHUNK_ENDS = (2047, 2048, 2049, 2303, 3072, 4095, 4096, 4097, 6145)

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

# ---- the rows --------------------------------------------------------------------

TIME_SLICE = Layout(gap={2: 3})  # x[..., :L] of something longer
CHANNEL_LAST = Layout(order=(0, 2, 1))
CHUNK_OF_TWO = Layout(gap={1: 6})  # xz.chunk(2, dim=1)[0]
DIM_FIRST = Layout(order=(1, 0, 2))  # "d (b l) -> b d l"
EVERY_OTHER = Layout(step={2: 2})
BACKWARDS = Layout(step={2: -1})
ODD_START = Layout(shift=1)
WIDE = ("u", "delta", "z", "out", "out_z", "dout", "du", "ddelta", "dz")
LAYOUTS = {
    "channel-last": CHANNEL_LAST,
    "time-slice": TIME_SLICE,
    "dim-first": DIM_FIRST,
    "chunk-of-two": CHUNK_OF_TWO,
    "every-other": EVERY_OTHER,
    "backwards": BACKWARDS,
    "odd-start": ODD_START,
}


def _length_rows() -> dict[str, Scan]:
    rows = {}
    for dtype, short in SHORT.items():
        for length in (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129):
            rows[f"{short}-L{length}"] = Scan(
                "one less, equal and one more than a vector, a block, a launch size",
                length=length,
                dtype=dtype,
                dim=3,
                states=8,
                z=length % 2 == 1,
            )
        for length in TILE_ENDS:
            rows[f"{short}-L{length}"] = Scan(
                "around a tile of the GPU's layouts (64, 128, 256), of the CPU's (256) "
                "and a launch size of upstream's (256, 512, 1024)",
                length=length,
                dtype=dtype,
                batch=1,
                dim=3,
                states=3,
                z=length % 2 == 0,
            )
        for length in CHUNK_ENDS:
            rows[f"{short}-L{length}"] = Scan(
                "around the chunks of x: state carried over, x of every chunk",
                length=length,
                dtype=dtype,
                batch=1,
                dim=2,
                states=4,
                z=True,
            )
        for length in (1, 3, 4, 5, 31, 32, 33, 36, 63, 64, 65, 96, 127, 128):
            rows[f"{short}-N16-L{length}"] = Scan(
                "around the tiles (32) and steps (4) of a GPU's layout for 16 states, "
                "one channel more than in its blocks",
                length=length,
                dtype=dtype,
                batch=1,
                dim=17,
                states=16,
                z=length % 2 == 0,
            )
        for length in (63, 64, 127, 128, 255, 256, 257):
            for name, layout in (("", CONTIGUOUS), ("-odd-start", ODD_START)):
                rows[f"{short}-N1-L{length}{name}"] = Scan(
                    "the same for a GPU's layout for one state, whose rows go in "
                    "words unless they are whole pieces: all words of the last lane",
                    length=length,
                    dtype=dtype,
                    dim=3,
                    states=1,
                    layouts=dict.fromkeys((*WIDE, "B", "C"), layout),
                )
        for length in (63, 64, 65, 127, 128, 129, 255, 256, 257, 512, 513, 1025, 2049):
            rows[f"complex-{short}-L{length}"] = Scan(
                "the same ends with a complex A, whose tiles are shorter",
                length=length,
                dtype=dtype,
                complex=True,
                batch=1,
                dim=3,
                states=2,
                z=length % 2 == 0,
            )
    for states, tile in ((16, 128), (32, 64), (64, 32), (128, 16), (200, 16)):
        for length in (tile - 1, tile, tile + 1, 2 * tile + 1):
            rows[f"N{states}-L{length}"] = Scan(
                "the CPU's tiles of time get shorter with the states",
                states=states,
                length=length,
                batch=1,
                dim=2,
            )
    for states, tile in ((8, 128), (16, 64), (32, 32), (64, 16)):
        for length in (tile - 1, tile + 1):
            rows[f"complex-N{states}-L{length}"] = Scan(
                "the same with a complex A: a state is two numbers",
                states=states,
                length=length,
                complex=True,
                batch=1,
                dim=2,
            )
    for dtype, short in SHORT.items():
        for length in (65, 129, 257):
            rows[f"{short}-rows3200-L{length}"] = Scan(
                "rows enough that a GPU gives each few lanes: its other layouts",
                batch=8,
                dim=400,
                length=length,
                states=1,
                dtype=dtype,
            )
    for dtype, length, groups, layout in (
        (F32, 97, 1, TIME_SLICE),
        (F16, 70, 2, ODD_START),
        (BF16, 129, 1, CONTIGUOUS),
    ):
        rows[f"{SHORT[dtype]}-rows5040-N16-L{length}"] = Scan(
            "rows enough that a GPU takes 16 states step by step, both ways, over "
            "several tiles (32); channels that do not fill a group's last block",
            batch=140,
            dim=36,
            length=length,
            groups=groups,
            dtype=dtype,
            z=groups == 1,
            layouts=dict.fromkeys(WIDE, layout),
        )
    for name, sizes in FAR.items():
        rows[name] = Scan(
            "a size that 16 or 20 bits, or one axis of a launch, do not hold",
            states=1,
            **sizes,
        )
    return rows


def _size_rows() -> dict[str, Scan]:
    rows = {}
    for states in (*range(1, 10), 12, *STATE_ENDS):
        rows[f"N{states}"] = Scan(
            "states around a vector's width, what a GPU's block holds (32, 48), and at "
            "the limit",
            states=states,
            dim=3,
            length=37,
            batch=1,
        )
    for states in (1, 3, 4, 7, 8, 17, 33, 49, 128, 256):
        rows[f"complex-N{states}"] = Scan(
            "the same with a complex A",
            states=states,
            complex=True,
            dim=3,
            length=19,
            batch=1,
        )
        rows[f"constant-N{states}"] = Scan(
            "the same with a constant B and C, which take more of a block's memory",
            states=states,
            constant_B=True,
            constant_C=True,
            dim=3,
            length=19,
            batch=1,
            dtype=BF16,
        )
    for dim in (600, 2100):
        rows[f"D{dim}-slices"] = Scan(
            "more partial sums of dB and dC than one thread adds up",
            dim=dim,
            length=130 if dim == 600 else 3,
            states=1,
            batch=1,
        )
    rows["partial-sums-64MB"] = Scan(
        "partial sums of dB and dC so large that blocks share them",
        dim=516,
        length=129,
        states=256,
        batch=1,
        delta=(0.0, 0.01),
    )
    for dim in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129):
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
    return rows


def _group_rows() -> dict[str, Scan]:
    rows = {}
    for groups, width in itertools.product((2, 3, 8), (1, 3, 4, 5, 8, 15, 16, 17)):
        for dtype, short in SHORT.items():
            if dtype is F16 and width % 2:
                continue
            rows[f"G{groups}-width{width}-{short}"] = Scan(
                "each channel reads and sums into its own group, whatever share of a "
                "vector or of a warp a group is",
                groups=groups,
                dim=groups * width,
                length=40,
                states=5,
                dtype=dtype,
                batch=2 if groups < 8 else 1,
            )
    for groups in (2, 5):
        for length in (129, 2049):
            for complex in (False, True):
                kind = "-complex" if complex else ""
                rows[f"G{groups}-L{length}{kind}"] = Scan(
                    "groups over several tiles and chunks",
                    groups=groups,
                    dim=groups * 3,
                    length=length,
                    states=2,
                    batch=2,
                    complex=complex,
                    z=True,
                )
    rows["G32-D32-bf16"] = Scan(
        "as many groups as channels", groups=32, dim=32, length=40, states=5, dtype=BF16
    )
    for groups, rows_of_delta, dim in (
        (1, 7, 35),
        (5, 7, 35),
        (7, 5, 35),
        (3, 1, 24),
        (3, 6, 24),
        (2, 17, 34),
        (4, 96, 192),
    ):
        for length in (9, 70, 300):
            rows[f"G{groups}-delta{rows_of_delta}-D{dim}-L{length}"] = Scan(
                "rows of delta that begin and end inside of groups and of vectors",
                groups=groups,
                delta_dim=rows_of_delta,
                dim=dim,
                length=length,
                states=2,
                batch=2,
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
    for dtype, short in SHORT.items():
        rows[f"recompute-{short}"] = Scan(
            "out_z again from the rounded out",
            dtype=dtype,
            z=True,
            recompute=True,
            states=4,
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


def _constant_rows() -> dict[str, Scan]:
    rows = {}
    for B, C in itertools.product((False, True), repeat=2):
        for complex in (False, True):
            for groups in (1, 2):
                if groups == 2 and B:  # C has one group then, says upstream
                    continue
                for dtype, short in SHORT.items():
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
            for length in (8, 65, 129, 257):
                rows[
                    "{}-{}B-{}C-L{}".format(
                        "complex" if complex else "real",
                        "constant" if B else "variable",
                        "constant" if C else "variable",
                        length,
                    )
                ] = Scan(
                    "the same over several tiles, without skip and gate",
                    complex=complex,
                    constant_B=B,
                    constant_C=C,
                    D=False,
                    length=length,
                    states=17,
                    dim=5,
                    batch=2,
                )
    return rows


def _vmamba_rows() -> dict[str, Scan]:
    rows = {}
    for dtype, short in SHORT.items():
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
        for name in ("deltas24", "groups4"):
            rows[f"cross-scan-{name}-{short}"] = Scan(
                "VMamba's test and its four scan directions in one call",
                dtype=dtype,
                out_dtype=F32,
                dout_dtype=F32,
                batch=2,
                dim=96,
                groups=4 if name == "groups4" else 2,
                delta_dim=24 if name == "deltas24" else 0,
                length=64 if name == "deltas24" else 49,
                states=1,
            )
    return rows


def _state_rows() -> dict[str, Scan]:
    """What x holds, and what the backward makes of it."""
    rows = {}
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
    for length in (1, 2047, 2048):
        rows[f"no-x-L{length}"] = Scan(
            "up to 2048 steps there is one chunk, and x may be absent",
            keep_x=False,
            length=length,
            batch=1,
            dim=2,
            states=2,
        )
    for length, complex in itertools.product((2049, 4100), (False, True)):
        for B, C in ((False, False), (True, False), (False, True), (True, True)):
            rows[
                "chunks-L{}{}{}{}".format(
                    length,
                    "-complex" if complex else "",
                    "-constantB" if B else "",
                    "-constantC" if C else "",
                )
            ] = Scan(
                "the state carried over chunks, the product from the very beginning",
                length=length,
                complex=complex,
                constant_B=B,
                constant_C=C,
                states=3,
                dim=3,
                batch=2,
                dtype=BF16 if C else F32,
                A=(-0.05, 0.0),
            )
    for complex in (False, True):
        rows["x-products-unread" + ("-complex" if complex else "")] = Scan(
            "the backward takes states from x; the products beside them need only be "
            "finite",
            length=4100,
            complex=complex,
            states=2,
            dim=2,
            batch=1,
            edit_given=_spoil_products,
        )
    return rows


def _products(x: Array) -> torch.Tensor:
    """Where the products stand among the entries of x."""
    places = x.index.reshape(*x.shape[:-1], -1, 2)
    return places[..., 0].reshape(-1)


def _spoil_products(given: dict[str, Array]) -> None:
    given["x"].flat()[_products(given["x"])] = 1e30


def _layout_rows() -> dict[str, Scan]:
    rows = {}
    for name, layout in LAYOUTS.items():
        for dtype, short in SHORT.items():
            rows[f"all-{name}-{short}"] = Scan(
                "no stride is refused for want of speed",
                dtype=dtype,
                z=True,
                recompute=True,
                states=4,
                length=35,
                dim=5,
                layouts=dict.fromkeys(WIDE, layout),
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
    return rows


XZ = {"z": CHUNK_OF_TWO, "dz": CHUNK_OF_TWO, "out_z": CHUNK_OF_TWO}
INNER = {
    "delta": DIM_FIRST,
    "ddelta": DIM_FIRST,
    "dout": DIM_FIRST,
    "out": DIM_FIRST,
    **XZ,
}
SLICED = Layout(order=(0, 2, 1), gap={1: 14})  # "b l d" columns of a wider projection
X_DBL = Layout(order=(0, 3, 1, 2), gap={2: 23})  # B or C of x_dbl, time slowest


def _caller_rows() -> dict[str, Scan]:
    """Shapes and strides as the functions of contract.md 2.9 and 4.5 hand them in."""
    rows = {}
    for dtype, short in SHORT.items():
        rows[f"mamba-inner-{short}"] = Scan(
            "MambaInnerFn: delta and dout (D, B, L), z and dz halves of one buffer",
            z=True,
            recompute=True,
            dtype=dtype,
            layouts=INNER,
        )
        rows[f"mamba-inner-L128-{short}"] = Scan(
            "the same where upstream goes over to vectors",
            z=True,
            recompute=True,
            dtype=dtype,
            length=128,
            dim=4,
            states=8,
            layouts=INNER,
        )
        rows[f"scan-fn-{short}"] = Scan(
            "SelectiveScanFn: everything contiguous, dout of a sum over time expanded",
            z=True,
            dtype=dtype,
            length=64,
            layouts={"dout": Layout(expand=(2,))},
        )
        rows[f"block-channel-last-{short}"] = Scan(
            "u, delta and z as columns of (b, l, d) projections",
            z=True,
            dtype=dtype,
            length=33,
            dim=16,
            layouts=dict.fromkeys(("u", "delta", "z", "dout", "du", "ddelta"), SLICED),
        )
        rows[f"x-dbl-{short}"] = Scan(
            "B and C as columns of x_dbl, not made contiguous",
            dtype=dtype,
            length=50,
            layouts=dict.fromkeys(("B", "C"), X_DBL),
        )
        rows[f"vmamba-core-{short}"] = Scan(
            "csms6s with backend core or mamba: K directions are groups",
            dtype=dtype,
            batch=2,
            dim=4 * 12,
            groups=4,
            length=49,
            states=1,
        )
    rows["vim-flipped"] = Scan(
        "Vim and VideoMamba: the second direction, all but weights flipped and dense",
        z=True,
        length=197,
        dim=8,
        batch=1,
        recompute=True,
        layouts=INNER,
    )
    rows["decode-one-step"] = Scan(
        "a prompt of one token", z=True, length=1, dim=16, layouts=INNER, recompute=True
    )
    rows["falcon-mamba"] = Scan(
        "Hugging Face's copy of MambaInnerFn, N 16, bias of dt in fp32",
        dtype=BF16,
        z=True,
        recompute=True,
        dim=24,
        length=37,
        layouts=INNER,
    )
    for name, axis in (("u", 0), ("delta", 1), ("z", 2), ("dout", 2)):
        rows[f"{name}-size-1-axis-{axis}"] = Scan(
            "the stride of an axis of length 1 means nothing",
            z=True,
            states=3,
            **{("batch", "dim", "length")[axis]: 1},
            layouts={name: Layout(step={axis: 77})},
        )
    return rows


def _alignment_rows() -> dict[str, Scan]:
    """Where upstream's vectors fault: L a multiple of its block, an odd address."""
    rows = {}
    names = ("u", "delta", "z", "B", "C", "dout", "out", "out_z", "du", "ddelta", "dz")
    for (dtype, short), length in itertools.product(SHORT.items(), (128, 256, 512)):
        for kind in ("start", "rows"):
            rows[f"misaligned-{kind}-L{length}-{short}"] = Scan(
                "every address, or every second row, off a vector's alignment",
                dtype=dtype,
                length=length,
                batch=1,
                dim=5,
                states=3,
                z=True,
                recompute=True,
                layouts={
                    name: Layout(shift=1)
                    if kind == "start"
                    else Layout(gap={3 if name in "BC" else 2: 1})
                    for name in names
                },
            )
    for name in names:
        for dtype in (F32, BF16):
            last = 3 if name in "BC" else 2
            rows[f"misaligned-{name}-{SHORT[dtype]}"] = Scan(
                "one array is not aligned for vectors, the rest is: each is asked",
                dtype=dtype,
                length=256,
                batch=1,
                dim=5,
                states=3,
                z=True,
                recompute=True,
                layouts={name: Layout(shift=3, gap={last: 5})},
            )
    return rows


def _alias_rows() -> dict[str, Scan]:
    rows = {}
    for dtype, short in SHORT.items():
        for output, owner in (
            ("dz", "z"),
            ("dz", "dout"),
            ("dz", "out"),
            ("out_z", "out"),
            ("out_z", "z"),
            ("out_z", "dout"),
        ):
            rows[f"{output}-in-{owner}-{short}"] = Scan(
                "dz and out_z may be the memory of z, dout or out",
                z=True,
                recompute=output == "out_z",
                dtype=dtype,
                states=4,
                length=83,
                same_memory={output: owner},
            )
    for (dz, out_z), layout in itertools.product(
        (("z", "out"), ("dout", "z"), ("out", "dout"), ("z", "dout")),
        ("contiguous", "chunk-of-two", "channel-last"),
    ):
        rows[f"dz-in-{dz}-out_z-in-{out_z}-{layout}"] = Scan(
            "both at once, over several tiles, in place through strides",
            z=True,
            recompute=True,
            states=4,
            length=300,
            batch=2,
            dim=5,
            same_memory={"dz": dz, "out_z": out_z},
            layouts=dict.fromkeys(
                ("z", "out", "dout"), {"contiguous": CONTIGUOUS, **LAYOUTS}[layout]
            ),
        )
    rows["out_z-in-z-long"] = Scan(
        "out_z over z in the forward, over chunks",
        z=True,
        states=2,
        length=2100,
        batch=1,
        dim=3,
        same_memory={"out_z": "z"},
        bwd="no",
    )
    return rows


def _set(name: str, index: Any, value: complex) -> Edit:
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
    for dtype in (F16, BF16):
        short = SHORT[dtype]
        for low, high in ((1e-8, 1e-6), (1e-3, 0.1), (19.5, 20.5), (1e3, 1e4)):
            for softplus in (False, True):
                kind = "-softplus" if softplus else ""
                rows[f"delta-{low:g}-{high:g}{kind}-{short}"] = Scan(
                    "steps that 16 bits hold badly, and around softplus's switch",
                    dtype=dtype,
                    delta=(low, high),
                    softplus=softplus,
                    bias=False,
                    states=4,
                    length=67,
                    z=True,
                )
        rows[f"A-1e4-{short}"] = Scan(
            "all is forgotten at once", A=(-1e4, -1e3), dtype=dtype, states=4, length=67
        )
        rows[f"subnormal-{short}"] = Scan(
            "inputs below the least normal number of their dtype",
            dtype=dtype,
            states=2,
            length=33,
            z=True,
            edit=lambda v: [v[n].mul_(2.0**-20) for n in ("u", "z", "B", "C")],
        )
    for bias in (0.0, 19.999, 20.0, 20.001):
        rows[f"switch-with-bias-{bias:g}"] = Scan(
            "softplus switches on the sum of delta and its bias",
            delta=(-1e-3, 1e-3),
            states=2,
            length=33,
            edit=lambda v, bias=bias: v["delta_bias"].fill_(bias),
        )
    for low, high in ((-90, -86), (-104, -100)):
        rows[f"softplus{low}-{high}"] = Scan(
            "exp of delta at the edge of fp32: a step that is nearly or wholly nothing",
            delta=(low, high),
            bias=False,
            states=2,
            length=33,
        )
    rows["A-zero"] = Scan(
        "A of 0, and of -0: nothing is ever forgotten, and A has a gradient",
        states=4,
        length=131,
        edit=lambda v: (v["A"].zero_(), v["A"][:, 1].neg_()),
    )
    rows["A-1e4-delta-1e-8"] = Scan(
        "a product of the largest and the smallest",
        A=(-1e4, -1e3),
        delta=(1e-8, 1e-7),
        softplus=False,
        bias=False,
        states=4,
        length=67,
    )
    for dtype, short in SHORT.items():
        for states in (1, 2):
            rows[f"grows-within-a-tile-N{states}-{short}"] = Scan(
                "decays whose product is infinite over half a tile of a GPU (256), "
                "though not over a lane of it, while state and gradient are 0",
                dtype=dtype,
                length=300,
                states=states,
                delta=(-0.5, 0.0),
                A=(1.0, 1.0),
                softplus=False,
                bias=False,
                edit=_grow,
                edit_given=_without_dout,
                # A GPU's forward of several states only scans: 0 times infinite there.
                fwd="no" if states > 1 else "",
            )
    for factor in (1e-3, 30.0, 100.0, 1000.0):
        rows[f"z-times-{factor:g}"] = Scan(
            "a gate wide open, shut, and hardly there",
            z=True,
            recompute=True,
            states=2,
            length=33,
            edit=_scaled("z", factor),
        )
    for name in ("D", "B", "C"):
        rows[f"{name}-times-1e6"] = Scan(
            "one term dwarfs the others",
            states=2,
            length=33,
            edit=_scaled(name, 1e6),
        )
    for dtype, short in SHORT.items():
        rows[f"dout-large-{short}"] = Scan(
            "gradients at the end of the range, some of them beyond it",
            dtype=dtype,
            states=2,
            length=33,
            z=True,
            edit_given=_scaled_dout(1e4),
            fwd="no",
        )
        rows[f"dout-small-{short}"] = Scan(
            "gradients that vanish in 16 bits",
            dtype=dtype,
            states=2,
            length=33,
            z=True,
            edit_given=_scaled_dout(1e-6),
            fwd="no",
        )
    rows["cancels"] = Scan(
        "channels in pairs whose parts of dB and dC cancel",
        states=3,
        length=37,
        dim=8,
        D=False,
        edit=_mirror_channels,
    )
    return rows


GROWS = slice(96, 264)


def _grow(values: dict[str, torch.Tensor]) -> None:
    """By 2^9 in 8 positions, between steps that forget everything."""
    values["u"][..., GROWS] = 0
    values["delta"][..., GROWS] = -200
    values["delta"][..., 104:256] = 0.78125


def _without_dout(given: dict[str, Array]) -> None:
    given["dout"].flat()[given["dout"].index[..., GROWS]] = 0


def _scaled(name: str, factor: float) -> Edit:
    def edit(values: dict[str, torch.Tensor]) -> None:
        values[name].mul_(factor)

    return edit


def _scaled_dout(factor: float) -> Given:
    def edit(given: dict[str, Array]) -> None:
        given["dout"].fill(given["dout"].wide() * factor)

    return edit


def _mirror_channels(values: dict[str, torch.Tensor]) -> None:
    for name in ("u", "delta", "A", "delta_bias"):
        whole = values[name]
        axis = {"A": 0, "delta_bias": 0}.get(name, 1)
        half = whole.index_select(axis, torch.arange(0, whole.shape[axis], 2))
        sign = -1 if name == "u" else 1
        whole.index_copy_(axis, torch.arange(1, whole.shape[axis], 2), sign * half)


NAN, INF = float("nan"), float("inf")


def _nonfinite_rows() -> dict[str, Scan]:
    """NaN and inf in: NaN and inf where the formulas make them, nowhere else. The odd
    sizes leave idle lanes beside the spoilt one."""
    rows = {}
    places = {
        "first": (0, 0, 0),
        "middle": (1, 2, 20),
        "last": (1, 4, 36),
    }
    for (where, at), value in itertools.product(places.items(), (NAN, INF, -INF)):
        for name in ("u", "delta", "z", "dout"):
            if name == "z" and value == -INF:  # inf / inf in one formula, 0 in another
                continue
            edits: dict[str, Any] = {"edit": _set(name, at, value)}
            if name == "dout":
                edits = {"edit_given": _set_dout(at, value), "fwd": "no"}
            rows[f"{name}-{value}-{where}"] = Scan(
                "stays in its channel, and in the times after it or before it",
                z=True,
                states=2,
                length=37,
                dim=5,
                # Without softplus -inf is a decay of inf, and the scan, which is not
                # associative then, has several right answers.
                softplus=value != INF or name != "delta",
                **edits,
            )
        late = (at[0], 0, min(at[1], 1), at[2])
        for name in ("B", "C"):
            rows[f"{name}-{value}-{where}"] = Scan(
                "reaches its group, from its time on or at it",
                groups=2,
                states=3,
                length=37,
                edit=_set(name, late, value),
            )
    for value in (NAN, INF, -INF):
        for name in ("D", "delta_bias"):
            rows[f"{name}-{value}"] = Scan(
                "stays in its channel",
                states=3,
                length=37,
                dim=5,
                softplus=value != -INF,
                edit=_set(name, (2,), value),
            )
    for name in ("B", "C"):
        # An infinite one gives inf where the sum over time is multiplied with it, NaN
        # where each term is, or the zeros after the last step: all are right.
        rows[f"constant-{name}-nan"] = Scan(
            "stays in its channel and state",
            constant_B=True,
            constant_C=name == "C",
            states=3,
            length=37,
            dim=5,
            edit=_set(name, (2, 1), NAN),
        )
    for dtype, short in SHORT.items():
        rows[f"constant-C-inf-{short}"] = Scan(
            "all terms of one sign: an infinite factor, not NaN from behind the end",
            constant_C=True,
            D=False,
            bias=False,
            states=3,
            length=37,
            dim=5,
            dtype=dtype,
            edit=_infinite_C,
            edit_given=lambda given: given["dout"].fill(given["dout"].wide().abs()),
        )
    rows["A-nan"] = Scan(
        "NaN in A stays in its channel",
        states=3,
        length=37,
        edit=_set("A", (2, 1), NAN),
    )
    rows["A-nan-complex"] = Scan(
        "NaN in a complex A stays in its channel",
        states=3,
        length=37,
        complex=True,
        edit=_set("A", (2, 1), complex(NAN, 1)),
    )
    for dtype, short in SHORT.items():
        for length in (300, 2100):
            rows[f"u-nan-L{length}-{short}"] = Scan(
                "NaN before the end of a tile or chunk: carried over it, not back",
                dtype=dtype,
                length=length,
                dim=5,
                batch=2,
                states=2,
                z=True,
                edit=_set("u", (1, 2, length - 60), NAN),
            )
        rows[f"dout-nan-L300-{short}"] = Scan(
            "NaN in dout goes back over tiles, not forward",
            dtype=dtype,
            length=300,
            dim=5,
            batch=2,
            states=2,
            z=True,
            edit_given=_set_dout((1, 2, 270), NAN),
            fwd="no",
        )
    rows["all-nan"] = Scan(
        "all of u",
        states=2,
        length=37,
        dim=5,
        edit=lambda v: v["u"].fill_(NAN),
    )
    return rows


def _infinite_C(values: dict[str, torch.Tensor]) -> None:
    for name in ("u", "B", "C"):
        values[name].abs_()
    values["C"][2, 1] = INF


def _set_dout(at: tuple[int, ...], value: float) -> Given:
    def edit(given: dict[str, Array]) -> None:
        given["dout"].flat()[given["dout"].index[at]] = value

    return edit


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


def _pair_rows() -> dict[str, Scan]:
    """Options pairwise: any two values of any two options meet in a row."""
    options: dict[str, Any] = {
        "dtype": tuple(SHORT),
        "float_out": (False, True),
        "complex": (False, True),
        "constant_B": (False, True),
        "constant_C": (False, True),
        "groups": (1, 2, 3),
        "per_delta_row": (1, 2, 12),
        "D": (False, True),
        "z": (False, True),
        "bias": (False, True),
        "softplus": (False, True),
        "recompute": (False, True),
        "keep_x": (False, True),
        "length": (1, 8, 63, 129, 257, 2049),
        "states": (1, 4, 16, 17, 33),
        "dim": (12, 36),
        "layout": ("contiguous", "channel-last", "dim-first", "odd-start", "backwards"),
        "A": ((-0.5, 0.0), (-16.0, -1.0)),
    }

    def allowed(row: Row) -> bool:
        return (
            (row["groups"] == 1 or not row["constant_B"])
            and (row["z"] or not row["recompute"])
            and (row["keep_x"] or row["length"] <= 2048)
            and row["length"] * row["states"] * row["dim"] < 600_000
        )

    rows = {}
    for number, row in enumerate(pairwise(options, allowed)):
        layout = {"contiguous": CONTIGUOUS, **LAYOUTS}[row.pop("layout")]
        float_out = row.pop("float_out") and row["dtype"] != F32
        rows[f"pairs-{number}"] = Scan(
            "two options that are right alone and wrong together",
            batch=2,
            delta_dim=row["dim"] // row.pop("per_delta_row"),
            out_dtype=F32 if float_out else None,
            dout_dtype=F32 if float_out else None,
            layouts=dict.fromkeys(WIDE, layout),
            **row,
        )
    return rows


def _empty_rows() -> dict[str, Scan]:
    rows = {}
    for dtype, short in SHORT.items():
        rows[f"L0-{short}"] = Scan(
            "no time at all: empty results, gradients of weights zero",
            length=0,
            z=True,
            recompute=True,
            dtype=dtype,
        )
    for name, options in (
        ("bare", {"D": False, "bias": False, "softplus": False}),
        ("complex", {"complex": True}),
        ("constant-B", {"constant_B": True}),
        ("constant-B-C", {"constant_B": True, "constant_C": True}),
        ("groups", {"groups": 3}),
        ("grouped-delta", {"delta_dim": 2}),
        ("no-x", {"keep_x": False}),
    ):
        rows[f"L0-{name}"] = Scan(
            "no time at all, whatever the options", length=0, **options
        )
    return rows


def _signature_rows() -> dict[str, Scan]:
    """Every argument list that a module had, in its dtypes, with and without what is
    optional."""
    scan, core, oflex = ("selective_scan_cuda" + s for s in ("", "_core", "_oflex"))
    nrow, ndstate = "selective_scan_cuda_nrow", "selective_scan_cuda_ndstate"
    rows = {}
    lists = (
        (scan, "fwd/9", "bwd/14", {"z": True, "recompute": True}),
        (scan, "fwd/9", "bwd/14", {"z": True, "layouts": INNER}),
        (scan, "fwd/9", "bwd/14", {"complex": True, "z": True}),
        (scan, "fwd/9", "bwd/14", {"constant_B": True, "constant_C": True}),
        (scan, "fwd/9", "bwd/14", {"length": 2049, "states": 2}),
        (core, "fwd/8", "bwd/10", {}),
        (core, "fwd/8", "bwd/11-out", {}),
        (core, "fwd/9", "bwd/11", {"groups": 2}),
        (core, "fwd/9", "bwd/11", {"states": 1, "length": 2049}),
        (oflex, "fwd/10", "bwd/11", {"groups": 2}),
        (oflex, "fwd/10", "bwd/11", {"delta_dim": 3}),
        (oflex, "fwd/10", "bwd/11", {"out_dtype": F32, "dout_dtype": F32}),
        (oflex, "fwd/10", "bwd/11", {"states": 1, "length": 2049, "delta_dim": 2}),
        (nrow, "fwd/9", "bwd/11", {"groups": 2}),
        (ndstate, "fwd/9", "bwd/11", {"states": 1, "groups": 2}),
        (ndstate, "fwd/9", "bwd/11", {"states": 1, "length": 2049}),
    )
    for number, (module, fwd, bwd, options) in enumerate(lists):
        for dtype, bare in itertools.product(SHORT, (False, True)):
            plain: dict[str, Any] = dict.fromkeys(("D", "bias", "softplus"), not bare)
            name = f"{module}-{number}-{SHORT[dtype]}{'-bare' if bare else ''}"
            rows[name] = Scan(
                "an argument list of some release, by position",
                dtype=dtype,
                fwd=f"{module}.{fwd}",
                bwd=f"{module}.{bwd}",
                **{"dim": 12, "length": 40, "states": 4, **plain, **options},
            )
    return rows


def _call_rows() -> dict[str, Scan]:
    """How it is called: where else than on the thread, stream and device at hand."""
    rows = {}
    for how, why in (
        ("stream", "on the current stream, not the default one"),
        ("graph", "captured, and replayed twice"),
        ("thread", "from another thread, as autograd does"),
        ("device1", "on the tensors' device, not the current one"),
    ):
        for dtype, (name, options) in itertools.product(SHORT, CALL_SIZES.items()):
            rows[f"{how}-{name}-{SHORT[dtype]}"] = Scan(
                why, dtype=dtype, how=how, **options
            )
    return rows


CALL_SIZES: dict[str, dict[str, Any]] = {
    "small": {"z": True, "recompute": True, "length": 33},
    "chunks": {"length": 2100, "states": 2, "z": True},
    "constant": {"constant_B": True, "constant_C": True, "complex": True},
    "grouped": {"delta_dim": 2, "groups": 3, "states": 1},
}


def _determinism_rows() -> dict[str, Scan]:
    rows = {}
    for dtype, short in SHORT.items():
        for name, options in {
            "many-rows": {"batch": 9, "dim": 48, "length": 100, "states": 4},
            "groups": {"batch": 3, "dim": 96, "groups": 2, "length": 260, "states": 2},
            "grouped-delta": {"batch": 3, "dim": 96, "delta_dim": 8, "length": 70},
            "constant": {"batch": 9, "constant_B": True, "constant_C": True, "dim": 40},
            "complex": {"batch": 5, "dim": 40, "complex": True, "states": 3},
        }.items():
            rows[f"repeats-{name}-{short}"] = Scan(
                "sums over batch, channels and time come in the same order each time",
                dtype=dtype,
                how="deterministic",
                **options,
            )
    return rows


# ---- what must be refused ----------------------------------------------------------

IS = "Expected {} to be true, but got false."
INPUT_DTYPE = IS.format(
    " || ".join(
        f"input_type == at::ScalarType::{n}" for n in ("Float", "Half", "BFloat16")
    )
)
WEIGHT_DTYPE = IS.format(
    "weight_type == at::ScalarType::Float || "
    "weight_type == at::ScalarType::ComplexFloat"
)
NOTHING = "CUDA error: invalid configuration argument"
VARIABLE = "(batch_size, n_groups, dstate, !is_complex ? seqlen : seqlen * 2)"
F64, C64 = torch.float64, torch.complex64


def _like(name: str, **change: Any) -> Callable[[Call], None]:
    """Another array in place of one: its dtype, or its shape."""

    def edit(call: Call) -> None:
        side = call.outputs if name in call.outputs else call.inputs
        old = side[name]
        shape = change.get("shape", old.shape)
        more = change.get("longer")
        if more is not None:
            shape = tuple(n + (i == more) for i, n in enumerate(shape))
        dtype = change.get("dtype", old.dtype)
        array = Array(shape, dtype, change.get("layout", CONTIGUOUS))
        side[name] = array.fill(torch.ones(shape, dtype=torch.float64))

    return edit


def _without(name: str) -> Callable[[Call], None]:
    return lambda call: call.inputs.pop(name) and None


class Wrong(NamedTuple):
    """What is done to a call that was right, and how it is refused. row: options of the
    call; fwd, bwd: whether this direction has such an argument."""

    edit: Callable[[Call], None]
    text: str
    row: dict[str, Any] = {}
    fwd: bool = True
    bwd: bool = True
    error: str = "RuntimeError"
    module: bool = True  # asked of the module too, which can be told such a thing


_Z: dict[str, Any] = {"z": True, "recompute": True}
_LONG: dict[str, Any] = {"length": 2049}
_CONSTANT: dict[str, Any] = {"constant_B": True}
WRONG = {
    "u-float64": Wrong(_like("u", dtype=F64), INPUT_DTYPE, module=False),
    "A-float64": Wrong(_like("A", dtype=F64), WEIGHT_DTYPE),
    "A-half": Wrong(_like("A", dtype=F16), WEIGHT_DTYPE),
    "delta-half": Wrong(
        _like("delta", dtype=F16), IS.format("delta.scalar_type() == input_type")
    ),
    "B-half": Wrong(
        _like("B", dtype=F16),
        IS.format("B.scalar_type() == (!is_variable_B ? weight_type : input_type)"),
    ),
    "C-half": Wrong(
        _like("C", dtype=F16),
        IS.format("C.scalar_type() == (!is_variable_C ? weight_type : input_type)"),
    ),
    "constant-B-complex": Wrong(
        _like("B", dtype=C64),
        IS.format("B.scalar_type() == (!is_variable_B ? weight_type : input_type)"),
        _CONSTANT,
    ),
    "dout-half": Wrong(
        _like("dout", dtype=F16),
        IS.format("dout.scalar_type() == input_type"),
        fwd=False,
        module=False,
    ),
    "dstate-257": Wrong(
        _like("A", shape=(6, 257)),
        "selective_scan only supports state dimension <= 256",
    ),
    "A-of-one-dimension": Wrong(
        _like("A", shape=(6,)),
        "Dimension out of range (expected to be in range of [-1, 0], but got 1)",
        error="IndexError",
    ),
    "delta-longer": Wrong(
        _like("delta", longer=2),
        "delta must have shape (batch_size, dim, seqlen)",
        module=False,
    ),
    "delta-of-two-dimensions": Wrong(
        _like("delta", shape=(6, 9)),
        "delta must have shape (batch_size, dim, seqlen)",
        module=False,
    ),
    "A-taller": Wrong(_like("A", longer=0), "A must have shape (dim, dstate)"),
    "B-longer": Wrong(_like("B", longer=3), f"B must have shape {VARIABLE}"),
    "B-more-states": Wrong(_like("B", longer=2), f"B must have shape {VARIABLE}"),
    "B-without-groups": Wrong(
        _like("B", shape=(2, 4, 9)), f"B must have shape {VARIABLE}"
    ),
    "B-of-a-complex-A": Wrong(
        _like("B", shape=(2, 1, 4, 9)),
        f"B must have shape {VARIABLE}",
        {"complex": True},
    ),
    "C-more-groups": Wrong(_like("C", longer=1), f"C must have shape {VARIABLE}"),
    "C-longer": Wrong(_like("C", longer=3), f"C must have shape {VARIABLE}"),
    "constant-B-wider": Wrong(
        _like("B", longer=1), "B must have shape (dim, dstate)", _CONSTANT
    ),
    "constant-B-groups-of-C": Wrong(
        _like("C", shape=(2, 2, 4, 9)), f"C must have shape {VARIABLE}", _CONSTANT
    ),
    "D-half": Wrong(
        _like("D", dtype=F16), IS.format("D.scalar_type() == at::ScalarType::Float")
    ),
    "D-longer": Wrong(_like("D", longer=0), "D must have shape (dim)"),
    "delta_bias-half": Wrong(
        _like("delta_bias", dtype=F16),
        IS.format("delta_bias.scalar_type() == at::ScalarType::Float"),
    ),
    "delta_bias-longer": Wrong(
        _like("delta_bias", longer=0), "delta_bias must have shape (dim)"
    ),
    "z-half": Wrong(
        _like("z", dtype=F16), IS.format("z.scalar_type() == input_type"), _Z
    ),
    "z-longer": Wrong(
        _like("z", longer=2), "z must have shape (batch_size, dim, seqlen)", _Z
    ),
    "dout-longer": Wrong(
        _like("dout", longer=2),
        "dout must have shape (batch_size, dim, seqlen)",
        fwd=False,
    ),
    "out-missing": Wrong(_without("out"), IS.format("out_.has_value()"), _Z, fwd=False),
    "out-half": Wrong(
        _like("out", dtype=F16),
        IS.format("out.scalar_type() == input_type"),
        _Z,
        fwd=False,
        module=False,
    ),
    "out-longer": Wrong(
        _like("out", longer=2),
        "out must have shape (batch_size, dim, seqlen)",
        _Z,
        fwd=False,
    ),
    "dz-half": Wrong(
        _like("dz", dtype=F16),
        IS.format("dz.scalar_type() == input_type"),
        _Z,
        fwd=False,
        module=False,
    ),
    "dz-longer": Wrong(
        _like("dz", longer=2),
        "dz must have shape (batch_size, dim, seqlen)",
        _Z,
        fwd=False,
        module=False,
    ),
    "x-missing": Wrong(_without("x"), IS.format("x_.has_value()"), _LONG, fwd=False),
    "x-half": Wrong(
        _like("x", dtype=F16), IS.format("x.scalar_type() == weight_type"), fwd=False
    ),
    "x-fewer-chunks": Wrong(
        _like("x", shape=(2, 6, 1, 8)),
        "x must have shape (batch_size, dim, n_chunks, 2 * dstate)",
        _LONG,
        fwd=False,
    ),
    "x-strided": Wrong(
        _like("x", layout=Layout(gap={3: 1})),
        IS.format("x.is_contiguous()"),
        _LONG,
        fwd=False,
    ),
    "batch-0": Wrong(lambda call: None, NOTHING, {"batch": 0}),
    "dim-0": Wrong(lambda call: None, NOTHING, {"dim": 0}),
}


def _refused(name: str, wrong: Wrong, back: bool, signature: str) -> Case:
    row = Scan("", **{"length": 9, "states": 4, **wrong.row})

    def make(maker: Maker) -> Call:
        call = (backward if back else forward)(row, maker)
        wrong.edit(call)
        return call

    door = "-module" if signature else ""
    return Case(
        f"refused-{name}{door}-{'bwd' if back else 'fwd'}",
        "refused before anything is written, in upstream's words",
        make,
        refusal=wrong.text,
        error=wrong.error,
        signature=signature,
    )


def _misused(module: str, function: str, count: int) -> list[Case]:
    """Calls that pybind11 refuses, whatever the values: by name, too few, too many, of
    a wrong type."""

    def case(name: str, change: Callable[[list[Any]], Any]) -> Case:
        def make(maker: Maker) -> Plain:
            args: list[Any] = [Array((2, 3, 4), F32).fill(torch.ones(())) for _ in "x"]
            args *= count
            named = change(args)
            named = named if isinstance(named, dict) else {}
            return Plain(module, function, tuple(args), named)

        return Case(
            f"misused-{module}-{function}-{name}",
            "pybind11 refuses it: a TypeError in its words, which users search for",
            make,
            refusal=f"{function}(): incompatible function arguments.",
            error="TypeError",
            signature=f"{module}.{function}",
        )

    return [
        case("by-name", lambda args: {"u": args.pop(0)}),
        case("no-arguments", lambda args: args.clear()),
        case("two-less", lambda args: args.__delitem__(slice(2))),
        case("many-more", lambda args: args.extend(args[:1] * 9)),
        case("none-for-u", lambda args: args.__setitem__(0, None)),
        case("a-list-for-u", lambda args: args.__setitem__(0, [1.0])),
        case("a-word-for-D", lambda args: args.__setitem__(5, "D")),
    ]


def _refusals() -> list[Case]:
    found = []
    for name, wrong in WRONG.items():
        for back, function in ((False, "fwd/9"), (True, "bwd/14")):
            if wrong.bwd if back else wrong.fwd:
                found.append(_refused(name, wrong, back, ""))
                if wrong.module:
                    signature = f"selective_scan_cuda.{function}"
                    found.append(_refused(name, wrong, back, signature))
    for module, fwd, bwd in (
        ("selective_scan_cuda", 9, 14),
        ("selective_scan_cuda_core", 9, 11),
        ("selective_scan_cuda_oflex", 10, 11),
        ("selective_scan_cuda_nrow", 9, 11),
        ("selective_scan_cuda_ndstate", 9, 11),
    ):
        found += _misused(module, "fwd", fwd) + _misused(module, "bwd", bwd)
    return found


# ---- all of them -------------------------------------------------------------------

RANDOM = 120
QUICK_SIZE = 100_000  # batch * dim * length * states

#: family -> its rows; every how manieth of them is quick; what it is about
_TABLE: dict[str, tuple[Callable[[], dict[str, Scan]], int, str]] = {
    "lengths": (_length_rows, 9, "time around every vector, tile, block and chunk"),
    "sizes": (_size_rows, 5, "states, channels and batch around what a kernel takes"),
    "groups": (_group_rows, 9, "groups of channels, and rows of delta across them"),
    "options": (_option_rows, 2, "optional arguments, present and absent"),
    "pairs": (_pair_rows, 5, "all options pairwise"),
    "constant": (_constant_rows, 5, "constant and variable B and C, real and complex"),
    "vmamba": (_vmamba_rows, 3, "grouped delta, the unrounded output in fp32"),
    "states": (_state_rows, 4, "what x holds and what the backward takes from it"),
    "layouts": (_layout_rows, 8, "any strides, in one array and in all"),
    "callers": (_caller_rows, 3, "shapes and strides as real callers hand them in"),
    "alignment": (_alignment_rows, 9, "addresses and rows off a vector's alignment"),
    "aliasing": (_alias_rows, 4, "dz and out_z in the memory of an argument"),
    "values": (_value_rows, 3, "the largest, the smallest, the switch of softplus"),
    "nonfinite": (_nonfinite_rows, 4, "NaN and inf, where the formulas say and only"),
    "empty": (_empty_rows, 3, "no time at all"),
    "signatures": (_signature_rows, 6, "every argument list a module ever had"),
    "calls": (_call_rows, 5, "other streams, graphs, threads and devices"),
    "determinism": (_determinism_rows, 4, "the same bits each time"),
}
FAMILIES = {
    **{family: text for family, (_, _, text) in _TABLE.items()},
    "refusals": "what must be refused: the exception's type and text",
    "random": "everything above at once, by seeded chance",
}


def _pair(name: str, row: Scan, family: str, quick: bool) -> list[Case]:
    more: dict[str, Any] = {"family": family, "quick": quick, "how": row.how}
    made = (("fwd", row.fwd, forward), ("bwd", row.bwd, backward))
    return [
        Case(
            f"{name}-{direction}",
            row.why,
            lambda maker, make=make: make(row, maker),  # type: ignore[misc]
            signature=signature,
            **more,
        )
        for direction, signature, make in made
        if signature != "no"
    ]


def cases(seed: int) -> list[Case]:
    """Hand-written corners, then random ones that the seed chooses."""
    found: list[Case] = []
    for family, (rows, quick, _) in _TABLE.items():
        for number, (name, row) in enumerate(rows().items()):
            small = row.batch * row.dim * row.length * row.states < QUICK_SIZE
            found += _pair(name, row, family, number % quick == 0 and small)
    for number, case in enumerate(_refusals()):
        found.append(replace(case, family="refusals", quick=number % 4 == 0))
    for number in range(seed, seed + RANDOM):
        row = _random_row(number)
        found += _pair(f"random-{number}", row, "random", number < seed + 20)
    return found
