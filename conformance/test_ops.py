# SPDX-License-Identifier: Apache-2.0
"""For each room and each of its cases: the reference, the variant, and a comparison.
Outputs are poisoned first; a case runs in all WAYS of its provider (on the CPU with one
thread, again, with two; on a GPU deterministic, again, and as it likes), must give the
same bits where that is promised, and touch nothing but its outputs."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import pytest
import torch

from .cases import Case, Maker
from .conftest import give_up, not_supported
from .judge import judge
from .providers import Call, Lost, Reference, Refused, rooms
from .report import Figures


def room_cases(room: str) -> Any:
    return importlib.import_module(f"{__package__}.ops.{room}.cases")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    seed = metafunc.config.getoption("--seed")
    found = [
        pytest.param(room, case, id=f"{room}/{case.id}")
        for room in rooms()
        for case in room_cases(room).cases(seed)
    ]
    metafunc.parametrize("room, case", found)


@pytest.fixture(autouse=True)
def torch_alone() -> None:
    """torch only shovels small arrays here; its threads would cost more than that."""
    torch.set_num_threads(1)


def test_case(
    request: pytest.FixtureRequest,
    room: str,
    case: Case,
    candidate: Any,
    reference: Reference,
) -> None:
    config = request.config
    seed = config.getoption("--seed")
    call = case.make(Maker(reference, case.id, seed))
    again = 'repeat: pytest "{}" --seed {}{}'.format(
        request.node.nodeid,
        seed,
        " --variant " + config.getoption("--variant")
        if config.getoption("--variant")
        else "",
    )
    if case.refusal:
        refuse(call, case, candidate, again)
        return
    want = reference.answer(call)
    bound = reference.answer(call, bound=True)
    try:
        results = run_all_ways(call, candidate)
    except Refused as refused:
        if refused.status in ("MBR_E_UNSUPPORTED", "MBR_E_NO_VARIANT"):
            not_supported(config, refused.text)
        raise
    except Lost as lost:
        give_up(config, f"{case.id}: {lost}\n{again}")
    except AssertionError as complaint:
        pytest.fail(f"{complaint}\n{again}", pytrace=False)

    wrong = []
    figures = request.node.figures = Figures(variant_of(candidate))
    tolerances = room_cases(room).TOLERANCES
    for got, (name, array) in itertools.product(results, call.outputs.items()):
        tolerance = tolerances[name]
        upstream = tolerance.upstream[array.dtype]
        verdict = judge(
            got[name], want[name], bound[name], array.dtype, tolerance.share, upstream
        )
        figures.add(call.entry, name, array.dtype, case.id, verdict, upstream)
        if verdict.wrong:
            wrong.append(f"{name} {verdict.text} ({array.dtype})")
    if wrong:
        lines = [f"{case.id} ({case.why})", *wrong, again]
        pytest.fail("\n".join(lines), pytrace=False)


def variant_of(candidate: Any) -> str:
    return "reference" if isinstance(candidate, Reference) else candidate.in_use()


def refuse(call: Call, case: Case, candidate: Any, again: str) -> None:
    if isinstance(candidate, Reference):
        pytest.skip(
            "NotSupported: a variant may assume that arguments passed the checks"
        )
    before = {name: array.buffer.clone() for name, array in call.arrays().items()}
    with pytest.raises(Refused) as caught:
        candidate.run(call)
    assert caught.value.status == "MBR_E_ARG", again
    assert caught.value.text.startswith(case.refusal), again
    for name, array in call.arrays().items():
        assert torch.equal(array.buffer, before[name]), name + " was written to"


def run_all_ways(call: Call, candidate: Any) -> list[dict[str, torch.Tensor]]:
    """The outputs in double precision, once for each that differs from the one before.
    AssertionError says what else happened."""
    before = {name: array.buffer.clone() for name, array in call.arrays().items()}
    last: dict[str, torch.Tensor] = {}
    results = []
    for way in candidate.WAYS:
        for name, array in call.arrays().items():
            array.buffer.copy_(before[name])
        candidate.run(call, way)
        untouched(call, before)
        bits = {name: array.buffer.clone() for name, array in call.outputs.items()}
        differ = [n for n in bits if n not in last or not torch.equal(bits[n], last[n])]
        assert not differ or not way.same_bits, differ[0] + ": " + way.same_bits
        if differ or not results:
            results.append({n: array.wide() for n, array in call.outputs.items()})
        last = bits
    return results


def untouched(call: Call, before: dict[str, torch.Tensor]) -> None:
    shared = {array.buffer.data_ptr() for array in call.outputs.values()}
    for name, array in call.inputs.items():
        if array.buffer.data_ptr() not in shared:
            assert torch.equal(array.buffer, before[name]), name + " was written to"
    for name, array in call.outputs.items():
        outside = array.changed_outside(before[name])
        assert outside == 0, f"{name}: {outside} elements outside of it were written"
