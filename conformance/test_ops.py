# SPDX-License-Identifier: Apache-2.0
"""For each room and each of its cases: the reference, the variant, and a comparison.
Outputs are poisoned first; a case runs three times (one thread, one thread again, two
threads) and must give the same bits each time, and touch nothing but its outputs."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch

from .cases import Case, Maker
from .conftest import not_supported
from .judge import judge
from .providers import Call, Reference, Refused, rooms
from .report import Report


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
    """torch only shovels small arrays here; its threads cost more than they do."""
    torch.set_num_threads(1)


def test_case(
    request: pytest.FixtureRequest,
    room: str,
    case: Case,
    candidate: Any,
    reference: Reference,
    report: Report,
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
        got = run_thrice(call, candidate)
    except Refused as refused:
        if refused.status in ("MBR_E_UNSUPPORTED", "MBR_E_NO_VARIANT"):
            not_supported(config, refused.text)
        raise
    except AssertionError as complaint:
        pytest.fail(f"{complaint}\n{again}", pytrace=False)

    wrong = []
    tolerances = room_cases(room).TOLERANCES
    for name, array in call.outputs.items():
        tolerance = tolerances[name]
        upstream = tolerance.upstream[array.dtype]
        verdict = judge(
            got[name], want[name], bound[name], array.dtype, tolerance.share, upstream
        )
        report.add(call.entry, name, array.dtype, case.id, verdict, upstream)
        if verdict.wrong:
            wrong.append(f"{name} {verdict.text} ({array.dtype})")
    if wrong:
        lines = [f"{case.id} ({case.why})", *wrong, again]
        pytest.fail("\n".join(lines), pytrace=False)


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


def run_thrice(call: Call, candidate: Any) -> dict[str, torch.Tensor]:
    """The outputs in double precision. AssertionError says what else happened."""
    before = {name: array.buffer.clone() for name, array in call.arrays().items()}
    bits: list[dict[str, torch.Tensor]] = []
    for threads in (1, 1, 2):
        for name, array in call.arrays().items():
            array.buffer.copy_(before[name])
        candidate.run(call, threads=threads)
        untouched(call, before)
        bits.append({n: a.buffer.clone() for n, a in call.outputs.items()})
    for name in call.outputs:
        assert torch.equal(bits[0][name], bits[1][name]), (
            name + ": a second run gives other bits"
        )
        assert torch.equal(bits[0][name], bits[2][name]), (
            name + ": two threads give other bits than one"
        )
    return {name: array.wide() for name, array in call.outputs.items()}


def untouched(call: Call, before: dict[str, torch.Tensor]) -> None:
    shared = {array.buffer.data_ptr() for array in call.outputs.values()}
    for name, array in call.inputs.items():
        if array.buffer.data_ptr() not in shared:
            assert torch.equal(array.buffer, before[name]), name + " was written to"
    for name, array in call.outputs.items():
        outside = array.changed_outside(before[name])
        assert outside == 0, f"{name}: {outside} elements outside of it were written"
