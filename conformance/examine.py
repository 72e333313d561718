# SPDX-License-Identifier: Apache-2.0
"""One case and one provider: run it in all ways that the provider promises, compare
with the reference, say what was wrong. Outputs are poisoned first; nothing but the
outputs may be touched. Knows no op by name."""

from __future__ import annotations

import importlib
import re
import sys
from dataclasses import dataclass, field
from typing import Any

import torch

from .calling import Complaint, Lost, Unsupported
from .cases import Case, Maker
from .judge import Verdict, judge
from .modules import Known, known
from .providers import Call, Plain, Provider, Reference, Refused, rooms

PASSED, FAILED, KNOWN, SKIPPED = "passed", "failed", "known", "skipped"
OUTCOMES = (PASSED, FAILED, KNOWN, SKIPPED)


@dataclass
class Expected:
    """A case with what the reference says of it, in double precision."""

    room: str
    case: Case
    call: Any  # a Call, or a Plain that must be refused
    want: dict[str, torch.Tensor]
    bound: dict[str, torch.Tensor]


@dataclass
class Result:
    """outcome   "known": deviates as known; "skipped": NotSupported
    complaints   what was wrong, in words; empty unless it failed
    reason       why it was skipped, or is known to deviate
    figures      a row for each comparison: entry point, output, dtype, its Verdict
    lost         the process can run no other case
    """

    outcome: str
    complaints: list[str] = field(default_factory=list)
    reason: str = ""
    figures: list[tuple[str, str, str, Verdict]] = field(default_factory=list)
    lost: bool = False

    @property
    def text(self) -> str:
        return "; ".join(self.complaints) or self.reason


def room_cases(room: str) -> Any:
    return importlib.import_module(f"{__package__}.ops.{room}.cases")


def all_cases(seed: int) -> dict[str, tuple[str, Case]]:
    """Every case of every room, by "room/id"."""
    found = {}
    for room in rooms():
        for case in room_cases(room).cases(seed):
            name = f"{room}/{case.id}"
            if name in found:
                raise ValueError(f"two cases are called {name}")
            found[name] = room, case
    return found


def upstream_tolerance(room: str, output: str, dtype: torch.dtype) -> Any:
    """(rtol, atol) of upstream's own test of this output."""
    return room_cases(room).TOLERANCES[output].upstream[dtype]


def expect(room: str, case: Case, reference: Reference, seed: int) -> Expected:
    call = case.make(Maker(reference, case.id, seed))
    if case.refusal or isinstance(call, Plain):
        return Expected(room, case, call, {}, {})
    want = reference.answer(call)
    return Expected(room, case, call, want, reference.answer(call, bound=True))


def examine(expected: Expected, candidate: Provider) -> Result:
    """The arguments are as before when it returns."""
    call, before = expected.call, _bytes_of(expected.call)
    try:
        if expected.case.refusal:
            return _refuse(expected, candidate, before)
        return _compute(expected, candidate, before)
    except Unsupported as reason:
        return Result(SKIPPED, reason=str(reason))
    except Complaint as complaint:
        return Result(FAILED, [str(complaint)])
    except Lost as lost:
        return Result(FAILED, [f"the GPU is lost: {lost}"], lost=True)
    finally:
        _put_back(call, before)


def _bytes_of(call: Any) -> dict[str, torch.Tensor]:
    arrays = call.arrays() if isinstance(call, Call) else {}
    return {name: array.buffer.clone() for name, array in arrays.items()}


def _put_back(call: Any, before: dict[str, torch.Tensor]) -> None:
    for name, buffer in before.items():
        call.arrays()[name].buffer.copy_(buffer)


# ---- refusals -----------------------------------------------------------------------


def _refuse(
    expected: Expected, candidate: Provider, before: dict[str, torch.Tensor]
) -> Result:
    case, call = expected.case, expected.call
    if isinstance(candidate, Reference):
        raise Unsupported("a variant may assume that arguments passed the checks")
    rows = known_of(candidate, call) if isinstance(call, Call) else []
    known = {row.does: Result(KNOWN, reason=row.cause) for row in reversed(rows)}
    try:
        candidate.run(call, candidate.ways(case.how, case.signature)[0])
    except Refused as refused:
        status = candidate.expected_error(case.error)
        if refused.status != status:
            text = _first_lines(refused.text)
            return Result(
                FAILED, [f"refused by {refused.status}, not {status}: {text}"]
            )
        written = [
            name
            for name, array in (call.arrays() if before else {}).items()
            if not torch.equal(array.buffer, before[name])
        ]
        if written:
            return Result(FAILED, [f"{', '.join(written)} written to, though refused"])
        if refused.text.startswith(case.refusal):
            return Result(PASSED)
        text = f"refused with {_first_lines(refused.text)!r}, not {case.refusal!r}"
        return known.get("words", Result(FAILED, [text]))
    text = f"not refused; expected: {case.refusal}"
    return known.get("accepts", Result(FAILED, [text]))


# ---- results ------------------------------------------------------------------------


def _compute(
    expected: Expected, candidate: Provider, before: dict[str, torch.Tensor]
) -> Result:
    call = expected.call
    rows = known_of(candidate, call)
    not_asked = [row for row in rows if row.does == "not asked"]
    if not_asked and not any(row.does == "refuses" for row in rows):
        return Result(KNOWN, reason="not asked: " + not_asked[0].cause)
    try:
        results, repeats = _run_all_ways(expected, candidate, before, rows)
    except Refused as refused:
        excuse = candidate.excuse(call, refused) or _known_refusal(rows, refused)
        if excuse:
            raise Unsupported(excuse) from None
        text = f"refused: {refused.status}: {refused.text}"
        return Result(FAILED, [_first_lines(text)])

    result = Result(PASSED)
    causes = [*repeats]
    for name, array in call.outputs.items():
        for got in results:
            verdict = _compare(expected, name, array.dtype, got[name])
            kind = str(array.dtype).replace("torch.", "")
            result.figures.append((call.entry, name, kind, verdict))
            if not verdict.wrong:
                continue
            cause = _known_difference(rows, name, verdict)
            if cause:
                causes.append(cause)
            else:
                result.complaints.append(f"{name} {verdict.text} ({array.dtype})")
    if result.complaints:
        result.outcome = FAILED
    elif causes:
        result.outcome, result.reason = KNOWN, "; ".join(dict.fromkeys(causes))
    return result


def _compare(
    expected: Expected, name: str, dtype: torch.dtype, got: torch.Tensor
) -> Verdict:
    tolerance = room_cases(expected.room).TOLERANCES[name]
    return judge(
        got,
        expected.want[name],
        expected.bound[name],
        dtype,
        tolerance.share,
        tolerance.upstream[dtype],
    )


def known_of(candidate: Provider, call: Call) -> list[Known]:
    """The known deviations that a provider may show in a call."""
    names = set(candidate.known_as)
    return [row for row in known() if names & {*row.modules} and row.when(call)]


def _known_refusal(rows: list[Known], refused: Refused) -> str:
    causes = [row.cause for row in rows if row.does == "refuses"]
    said = re.split(r"\n| \(Could this error message", refused.text.strip())[0]
    return f"{causes[0]} ({said[:160]})" if causes else ""


def _known_difference(rows: list[Known], output: str, verdict: Verdict) -> str:
    for row in rows:
        if row.does != "differs" or (row.outputs and output not in row.outputs):
            continue
        if {"upstream": verdict.within_upstream, "nan": verdict.only_nan}.get(
            row.within, True
        ):
            return row.cause
    return ""


def _run_all_ways(
    expected: Expected,
    candidate: Provider,
    before: dict[str, torch.Tensor],
    rows: list[Known],
) -> tuple[list[dict[str, torch.Tensor]], list[str]]:
    """The outputs in double precision, once for each that differs from the one before;
    and why bits may differ from run to run, where they did."""
    call, case = expected.call, expected.case
    last: dict[str, torch.Tensor] = {}
    results: list[dict[str, torch.Tensor]] = []
    causes: list[str] = []
    for way in candidate.ways(case.how, case.signature):
        _put_back(call, before)
        candidate.run(call, way)
        _untouched(call, before)
        _same_arithmetic()
        bits = {name: array.buffer.clone() for name, array in call.outputs.items()}
        differ = [n for n in bits if n not in last or not torch.equal(bits[n], last[n])]
        for name in differ if way.same_bits else ():
            excuse = _known_repeats(rows, name)
            if not excuse:
                raise Complaint(f"{name}: {way.same_bits}")
            causes.append(excuse)
        if differ or not results:
            results.append({n: array.wide() for n, array in call.outputs.items()})
        last = bits
    return results, causes


def _known_repeats(rows: list[Known], output: str) -> str:
    found = [r.cause for r in rows if r.does == "repeats" and output in r.outputs]
    return found[0] if found else ""


def _untouched(call: Call, before: dict[str, torch.Tensor]) -> None:
    shared = {array.buffer.data_ptr() for array in call.outputs.values()}
    for name, array in call.inputs.items():
        if array.buffer.data_ptr() not in shared:
            if not torch.equal(array.buffer, before[name]):
                raise Complaint(f"{name} was written to")
    for name, array in call.outputs.items():
        outside = array.changed_outside(before[name])
        if outside:
            raise Complaint(f"{name}: {outside} elements outside of it were written")


def _same_arithmetic() -> None:
    """A kernel may flush denormals to zero while it runs; its caller's arithmetic may
    not be left like that."""
    least = sys.float_info.min
    if least / 2 == 0:
        raise Complaint("leaves denormals flushed to zero in the thread that called")


def _first_lines(text: str) -> str:
    """pybind11's refusals print whole tensors."""
    return text if len(text) < 400 else text[:400] + " ..."
