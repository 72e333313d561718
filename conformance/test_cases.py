# SPDX-License-Identifier: Apache-2.0
"""The cases and the faults as data: whole, and telling what they say they tell."""

from __future__ import annotations

import ctypes
import importlib
import itertools
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from .calling import HOWS, fenced
from .examine import all_cases, room_cases
from .faults import KINDS, Fault, Source, drawn
from .pairs import meetings, pairwise
from .providers import rooms

ROOT = Path(__file__).resolve().parent.parent


def all_faults() -> list[tuple[str, str, str, str]]:
    found = []
    for room in rooms():
        module = importlib.import_module(f"{__package__}.ops.{room}.faults")
        found += [(f"libmambarun/ops/{room}/{f[0]}", *f[1:]) for f in module.FAULTS]
    return found


def test_there_are_enough_cases() -> None:
    cases = [case for _, case in all_cases(0).values()]
    assert len(cases) >= 1500
    assert sum(case.quick for case in cases) >= 400


@pytest.mark.parametrize("room", rooms())
def test_every_case_says_what_it_is(room: str) -> None:
    cases, families = room_cases(room).cases(0), room_cases(room).FAMILIES
    assert {case.family for case in cases} == set(families)
    quick = Counter(case.family for case in cases if case.quick)
    assert not [family for family in families if not quick[family]]
    for case in cases:
        assert case.why, case.id
        assert not case.how or case.how in HOWS, case.id


@pytest.mark.parametrize("room", rooms())
def test_the_seed_chooses_the_random_cases_and_no_others(room: str) -> None:
    def ids(seed: int) -> set[str]:
        return {case.id for case in room_cases(room).cases(seed)}

    assert ids(0) == ids(0)
    assert all("random-" in name for name in ids(0) ^ ids(1000))


@pytest.mark.parametrize("length", (1, 4096, 5000))
def test_a_fence_stands_right_behind(length: int) -> None:
    given = torch.arange(length).to(torch.uint8)
    copy = fenced(given)
    assert torch.equal(copy, given)
    ctypes.string_at(copy.data_ptr(), length)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)  # pytest's would write a page
        ctypes.string_at(copy.data_ptr(), length + 1)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGSEGV


def test_any_two_values_meet() -> None:
    options = {"a": (1, 2, 3), "b": "xy", "c": (False, True), "d": range(5)}

    def allowed(row: dict[str, Any]) -> bool:
        return row["a"] != 2 or row["b"] == "x"

    rows = pairwise(options, allowed)
    found = {meeting for row in rows for meeting in meetings(row)}
    every = [dict(zip(options, row)) for row in itertools.product(*options.values())]
    assert found == {m for row in every if allowed(row) for m in meetings(row)}
    assert len(rows) < len(every) / 2


def test_faults_are_of_every_kind_and_change_what_they_say() -> None:
    file = "libmambarun/variant/cpu.h"
    text = (ROOT / file).read_text()
    faults = list(Source(file, text).faults(list(KINDS)))
    assert {fault.kind for fault in faults} == set(KINDS)
    for fault in faults:
        assert fault.function
        assert text[fault.start : fault.end] == fault.before
        changed = fault.apply(text)
        assert changed != text
        assert (
            changed.splitlines()[: fault.line - 1]
            == text.splitlines()[: fault.line - 1]
        )


def test_a_seed_draws_the_same_faults_again() -> None:
    def some(seed: int) -> list[Fault]:
        files = ["libmambarun/variant/cpu.h", "libmambarun/variant/device.cuh"]
        return list(itertools.islice(drawn(ROOT, files, seed), 30))

    assert some(1) == some(1)
    assert some(1) != some(2)


@pytest.mark.parametrize("fault", all_faults(), ids=lambda fault: fault[3])
def test_faults_by_hand_are_where_they_say(fault: tuple[str, str, str, str]) -> None:
    file, before, after, _ = fault
    assert (ROOT / file).read_text().count(before) == 1
    assert before != after


def test_what_is_harmless_is_still_there() -> None:
    names = ["faults", *(f"ops.{room}.faults" for room in rooms())]
    lists = (ROOT / "libmambarun").glob("ops/*/instances.def")
    kernels = "".join(path.read_text() for path in lists)
    for name in names:
        module = importlib.import_module(f"{__package__}.{name}")
        for file, function, words, _, why in module.HARMLESS:
            found = list((ROOT / "libmambarun").glob(f"**/{file}"))
            assert why, words
            assert any(
                words in " ".join(path.read_text().split())
                and (
                    not function
                    or f"{function}(" in path.read_text()
                    or f"MBR_KERNEL({function}," in kernels
                )
                for path in found
            ), (file, function, words)
