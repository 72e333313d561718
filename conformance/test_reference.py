# SPDX-License-Identifier: Apache-2.0
"""The references themselves: values against torch in float64, gradients against its
autograd and against finite differences of the reference's own forward, dtypes against
torch's conversions, and the error bound against arithmetic in fp32.

The torch versions below are written from the formulas, independently of reference.c."""

from __future__ import annotations

import importlib
from typing import Any, Dict

import pytest
import torch

from .arrays import Array
from .cases import Case, Maker
from .judge import UNIT, judge, ulp
from .providers import Call, Reference, rooms

F64, C128 = torch.float64, torch.complex128
Values = Dict[str, torch.Tensor]


def room(name: str) -> Any:
    return importlib.import_module(f"{__package__}.ops.{name}.plain")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """plain: one way to call a room's forward, and the same in torch."""
    if "plain" in metafunc.fixturenames:
        asks = metafunc.function.__name__
        found = [
            pytest.param(plain, id=f"{name}/{plain.id}")
            for name in rooms()
            for plain in room(name).PLAINS
            if plain.backward_entry or "backward" not in asks
            if plain.differentiated is plain or "finite_differences" not in asks
        ]
        metafunc.parametrize("plain", found)


def arrays(values: Values) -> dict[str, Array]:
    return {
        name: Array(v.shape, v.dtype).fill(v.detach()) for name, v in values.items()
    }


def run(reference: Reference, plain: Any, values: Values) -> Values:
    call = Call(plain.entry, arrays(values), arrays(plain.empty(values)), plain.scalars)
    return reference.answer(call)


def close(got: torch.Tensor, want: torch.Tensor, rtol: float, what: str) -> None:
    size = float(want.detach().abs().max()) if want.numel() else 0.0
    torch.testing.assert_close(
        got, want.detach(), rtol=rtol, atol=rtol * size, msg=lambda m: what + ": " + m
    )


def test_forward_is_torch(plain: Any, reference: Reference) -> None:
    values = plain.values(torch.Generator().manual_seed(1))
    got = run(reference, plain, values)
    want = plain.torch(values)
    assert set(got) == set(want)
    for name in want:
        close(got[name], want[name], 1e-12, name)


def weighted(results: Values, weights: Values) -> torch.Tensor:
    """A scalar that depends on every result; a complex one as re, im separately."""
    total = torch.zeros((), dtype=F64)
    for name, weight in weights.items():
        total = total + (results[name] * weight).sum()
    return total


def gradients(
    reference: Reference, plain: Any, values: Values, weights: Values
) -> Values:
    """Of weighted(), by the reference's backward."""
    given, outputs, scalars = plain.backward(
        values, run(reference, plain, values), weights
    )
    call = Call(plain.backward_entry, arrays(given), arrays(outputs), scalars)
    return reference.answer(call)


def test_backward_is_autograd(plain: Any, reference: Reference) -> None:
    chance = torch.Generator().manual_seed(2)
    values = plain.values(chance)
    leaves = {
        name: v.clone().requires_grad_(v.is_floating_point() or v.is_complex())
        for name, v in values.items()
    }
    results = plain.differentiated.torch(leaves)
    weights = {
        name: torch.randn(results[name].shape, generator=chance, dtype=F64)
        for name in plain.differentiable
        if name in results
    }
    weighted(results, weights).backward()
    got = gradients(reference, plain, values, weights)
    assert got
    for name, gradient in got.items():
        source = plain.source_of(name)
        want = leaves[source].grad if source else results[name]
        close(gradient, want, 1e-11, name)


def test_backward_is_finite_differences(plain: Any, reference: Reference) -> None:
    chance = torch.Generator().manual_seed(3)
    values = plain.values(chance)
    results = run(reference, plain, values)
    weights = {
        name: torch.randn(results[name].shape, generator=chance, dtype=F64)
        for name in plain.differentiable
        if name in results
    }
    checked = 0
    for name, gradient in gradients(reference, plain, values, weights).items():
        source = plain.source_of(name)
        if not source:
            continue
        for _ in range(4):
            where = tuple(
                int(torch.randint(n, (), generator=chance))
                for n in values[source].shape
            )
            slope = 0j
            for direction in (1, 1j) if values[source].is_complex() else (1,):
                slope += direction * slope_at(
                    reference, plain, values, weights, source, where, direction
                )
            assert complex(gradient[where]) == pytest.approx(
                slope, rel=1e-6, abs=1e-7
            ), f"{name} at {where}"
            checked += 1
    assert checked


def slope_at(
    reference: Reference,
    plain: Any,
    values: Values,
    weights: Values,
    source: str,
    where: tuple[int, ...],
    direction: complex,
) -> float:
    step = 1e-5
    sides = []
    for sign in (1, -1):
        moved = dict(values)
        moved[source] = values[source].clone()
        moved[source][where] += sign * step * direction
        sides.append(float(weighted(run(reference, plain, moved), weights)))
    return (sides[0] - sides[1]) / (2 * step)


def test_bound_holds_in_fp32(plain: Any, reference: Reference) -> None:
    """Arithmetic in fp32, in torch's order, stays within the bound; and the bound is
    not so large that it would hide an error of one part in a thousand."""
    values = plain.values(torch.Generator().manual_seed(4))
    narrow = {torch.float64: torch.float32, C128: torch.complex64}
    singles = {name: v.to(narrow.get(v.dtype, v.dtype)) for name, v in values.items()}
    exact = {name: v.to(values[name].dtype) for name, v in singles.items()}
    want = run(reference, plain, exact)
    call = Call(plain.entry, arrays(exact), arrays(plain.empty(exact)), plain.scalars)
    bound = reference.answer(call, bound=True)
    for name, got in plain.torch(singles).items():
        share = 0 if name in plain.copied else 1
        wide = got.to(want[name].dtype)
        verdict = judge(wide, want[name], bound[name], got.dtype, share, (1.0, 1.0))
        assert verdict.wrong == 0, name + " " + verdict.text
        if share:
            size = want[name].abs().mean()
            assert UNIT * bound[name].abs().mean() < 1e-3 * size + 1e-30, name


def test_bound_of_a_sum_holds_for_every_order(reference: Reference) -> None:
    """A unit for each product, and for each of three additions one of the whole sum: it
    makes no difference whether the large term comes last or first."""
    summed = next(room(n).summed for n in rooms() if hasattr(room(n), "summed"))
    terms = (0.0211, 0.0167, 0.298, 1.7357)
    for order in (terms, terms[::-1]):
        total, bound = summed(reference, order)
        assert total == pytest.approx(sum(terms), rel=1e-7)
        assert bound == pytest.approx(4 * total, rel=1e-9)


# ---- the judge and the dtypes ----------------------------------------------------


def copier(reference: Reference) -> Any:
    for name in rooms():
        if hasattr(room(name), "copy"):
            return lambda array, dtype: room(name).copy(reference, array, dtype)
    raise LookupError("no room copies anything")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_16_bit_number_is_read(dtype: torch.dtype, reference: Reference) -> None:
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    numbers = bits.view(dtype)
    got = copier(reference)(numbers, torch.float64)
    torch.testing.assert_close(got, numbers.to(F64), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_doubles_are_rounded_to_nearest_even(
    dtype: torch.dtype, reference: Reference
) -> None:
    chance = torch.Generator().manual_seed(5)
    spread = torch.randn(30000, generator=chance, dtype=F64) * 12
    numbers = torch.randn(30000, generator=chance, dtype=F64) * torch.exp(spread)
    grid = numbers.to(dtype).to(F64)
    ties = grid + ulp(grid, dtype) / 2
    numbers = torch.cat(
        [
            numbers,
            ties,
            grid,
            torch.tensor(
                [
                    0.0,
                    -0.0,
                    65519.9,
                    65520.0,
                    float("inf"),
                    -float("inf"),
                    float("nan"),
                ],
                dtype=F64,
            ),
        ]
    )
    got = copier(reference)(numbers, dtype)
    # By way of fp32, a number would be rounded twice: compare with both neighbours.
    place = ulp(numbers.to(F64), dtype)
    error = (got.to(F64) - numbers).abs()
    finite = torch.isfinite(got.to(F64)) & torch.isfinite(numbers)
    assert (error <= place / 2)[finite].all()
    even = got[30000:60000].view(torch.int16 if dtype != torch.float32 else torch.int32)
    tied = (error[30000:60000] == place[30000:60000] / 2) & finite[30000:60000]
    assert tied.sum() > 1000 and (even[tied] % 2 == 0).all()
    same = numbers.to(dtype)
    assert torch.equal(torch.isfinite(got), torch.isfinite(same))
    assert torch.equal(got.isnan(), same.isnan())
    assert torch.equal(torch.signbit(got), torch.signbit(same))


def verdict(got: list[float], want: list[float], bound: float = 0.0) -> int:
    wide = torch.tensor(want, dtype=F64)
    limit = torch.full_like(wide, bound)
    return judge(
        torch.tensor(got, dtype=F64), wide, limit, torch.float16, 1, (1.0, 1.0)
    ).wrong


def test_judge_takes_what_rounding_does() -> None:
    third = float(torch.tensor(1 / 3).half())
    assert verdict([third], [1 / 3], bound=1) == 0
    assert verdict([third + 2**-12], [1 / 3], bound=1) == 1


def test_judge_wants_exactness_where_the_bound_is_zero() -> None:
    assert verdict([1.0, 0.0], [1.0, 0.0]) == 0
    assert verdict([1.0 + 2**-10, 2**-24], [1.0, 0.0]) == 2


def test_judge_wants_what_is_not_finite_as_it_is() -> None:
    nan, inf = float("nan"), float("inf")
    assert verdict([nan, inf, -inf], [nan, inf, -inf], bound=1) == 0
    assert (
        verdict([1.0, 1.0, inf, nan, inf, nan], [nan, inf, -inf, inf, 1.0, 1.0], 1) == 6
    )


def test_judge_takes_infinity_only_beyond_the_greatest_number() -> None:
    inf = float("inf")
    assert verdict([inf, -inf], [65520.0, -1e6], bound=1) == 0
    assert verdict([inf, -inf], [65000.0, 1e6], bound=1) == 2


def test_same_seed_same_call(reference: Reference) -> None:
    cases = importlib.import_module(f"{__package__}.ops.{rooms()[0]}.cases")
    case: Case = cases.cases(7)[-20]
    first, second = (case.make(Maker(reference, case.id, 7)).inputs for _ in range(2))
    for name, array in first.items():
        assert torch.equal(array.buffer, second[name].buffer)
