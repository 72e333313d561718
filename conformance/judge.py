# SPDX-License-Identifier: Apache-2.0
"""How far a result is from the reference, and whether that is too far. Knows no ops."""

from __future__ import annotations

from dataclasses import dataclass

import torch

UNIT = 2.0**-24  # of the reference's error bound (number.h)

#: dtype -> (bits of the significand, least exponent of a normal number, greatest value)
FORMATS = {
    torch.float16: (11, -14, 65504.0),
    torch.bfloat16: (8, -126, torch.finfo(torch.bfloat16).max),
    torch.float32: (24, -126, torch.finfo(torch.float32).max),
    torch.float64: (53, -1022, torch.finfo(torch.float64).max),
}


def ulp(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Distance between neighbours of value in dtype."""
    bits, least, greatest = FORMATS[dtype]
    size = value.abs().clamp(max=greatest)
    exponent = torch.frexp(size)[1] - 1
    exponent = torch.where(size == 0, torch.full_like(exponent, least), exponent)
    return torch.ldexp(torch.ones_like(size), exponent.clamp(min=least) - (bits - 1))


@dataclass
class Verdict:
    """One output of one call. ulps: worst error in units of the output's last place,
    middle: that of the median element. relative: worst error, in terms of the output's
    largest element. used: worst error, beyond the half unit of rounding, as a share of
    the reference's bound. upstream: worst error as a share of what upstream's own test
    of this output allows. wrong: elements beyond what is allowed; text: the worst of
    them, in words. within_upstream: no element is further off than upstream allows, NaN
    and infinite where they should be. only_nan: all that is wrong is NaN where there
    should be an infinity.
    """

    ulps: float
    middle: float
    relative: float
    used: float
    upstream: float
    wrong: int
    text: str
    within_upstream: bool
    only_nan: bool


def parts(values: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(values) if values.is_complex() else values


def judge(
    got: torch.Tensor,
    want: torch.Tensor,
    bound: torch.Tensor,
    dtype: torch.dtype,
    share: float,
    upstream: tuple[float, float],
) -> Verdict:
    """got and want in double precision (got was rounded to dtype); bound as the
    reference gives it, in UNITs: the result may be off by share * bound, and by half a
    unit in the last place for rounding. Where the bound or share is 0 it is exact."""
    got, want, bound = parts(got), parts(want), parts(bound)
    if share == 0:
        bound = torch.zeros_like(bound)
    dtype = {torch.complex64: torch.float32}.get(dtype, dtype)
    place, greatest = ulp(want, dtype), FORMATS[dtype][2]
    rounded = want.to(dtype).to(want.dtype)
    allowed = torch.where(
        bound == 0, (rounded - want).abs(), place / 2 + share * UNIT * bound
    )
    error = (got - want).abs()

    special = ~torch.isfinite(want)
    same = (got == want) | (got.isnan() & want.isnan())
    overflows = got.isinf() & (got.sign() == want.sign()) & special.logical_not()
    overflows &= want.abs() + allowed >= greatest + ulp(want * 0 + greatest, dtype) / 2
    unbound = bound.isinf() | bound.isnan()  # an intermediate overflows in fp32
    fine = torch.where(special, same, (error <= allowed) | overflows) | unbound

    measured = fine & ~special & ~overflows & ~unbound & ~got.isnan()
    zero = torch.zeros((), dtype=error.dtype)
    error = torch.where(measured | ~fine, error, zero)
    rtol, atol = upstream

    def worst(ratio: torch.Tensor) -> float:
        return float(torch.nan_to_num(ratio, nan=0.0).max()) if ratio.numel() else 0.0

    finite = want[measured].abs()
    largest = float(finite.max()) if finite.numel() else 0.0
    beyond = (error - place / 2).clamp(min=0) / (UNIT * bound)
    in_place = error / place
    tolerated = ~special & (error <= atol + rtol * want.abs())
    return Verdict(
        ulps=worst(in_place),
        middle=float(in_place.nanmedian()) if in_place.numel() else 0.0,
        relative=worst(error) / max(largest, 1e-30),
        used=worst(torch.where(bound == 0, zero, beyond)),
        upstream=worst(error / (atol + rtol * want.abs())),
        wrong=int((~fine).sum()),
        text=describe(got, want, allowed, ~fine),
        within_upstream=bool((fine | tolerated).all()),
        only_nan=bool((fine | (got.isnan() & want.isinf())).all()),
    )


def describe(
    got: torch.Tensor, want: torch.Tensor, allowed: torch.Tensor, wrong: torch.Tensor
) -> str:
    if not wrong.any():
        return ""
    excess = (got - want).abs() / allowed.clamp(min=1e-300)
    excess = torch.nan_to_num(excess, nan=1e300).clamp(max=1e300)
    flat = int(torch.where(wrong, excess, excess * 0 - 1).reshape(-1).argmax())
    place = []
    for extent in reversed(want.shape):
        place.insert(0, flat % extent)
        flat //= extent
    at = tuple(place)
    return (
        f"at {place}: {float(got[at])!r}, reference {float(want[at])!r}, "
        f"allowed +- {float(allowed[at]):.3g}; "
        f"{int(wrong.sum())} of {wrong.numel()} wrong"
    )
