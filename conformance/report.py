# SPDX-License-Identifier: Apache-2.0
"""Collects the worst of many verdicts, per entry point, output and dtype."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from .judge import Verdict

HEAD = (
    "| op | output | dtype | comparisons | worst error / largest element | in ULP "
    "of the element | share of the bound "
    "| share of upstream's tolerance | upstream's rtol, atol | worst case |"
)


@dataclass
class Worst:
    """Over all comparisons of one output: see judge.Verdict."""

    comparisons: int = 0
    wrong: int = 0
    relative: float = 0.0
    ulps: float = 0.0
    used: float = 0.0
    upstream: float = 0.0
    case: str = ""  # the one with the largest share of the bound


class Report:
    def __init__(self, facts: dict[str, str]) -> None:
        self.facts = facts
        self.rows: dict[tuple[str, str, str], Worst] = {}
        self.tolerances: dict[tuple[str, str, str], tuple[float, float]] = {}

    @property
    def comparisons(self) -> int:
        return sum(row.comparisons for row in self.rows.values())

    def add(
        self,
        entry: str,
        output: str,
        dtype: torch.dtype,
        case: str,
        verdict: Verdict,
        upstream: tuple[float, float],
    ) -> None:
        key = (entry, output, str(dtype).replace("torch.", ""))
        row = self.rows.setdefault(key, Worst())
        self.tolerances[key] = upstream
        row.comparisons += 1
        row.wrong += verdict.wrong
        if verdict.used > row.used or not row.case:
            row.used, row.case = verdict.used, case
        row.relative = max(row.relative, verdict.relative)
        row.ulps = max(row.ulps, verdict.ulps)
        row.upstream = max(row.upstream, verdict.upstream)

    def as_data(self) -> dict[str, Any]:
        rows: list[dict[str, Any]] = []
        for key, row in sorted(self.rows.items()):
            entry, output, dtype = key
            rows.append(
                {
                    "op": entry,
                    "output": output,
                    "dtype": dtype,
                    **asdict(row),
                    "upstream_tolerance": self.tolerances[key],
                }
            )
        return {"facts": self.facts, "rows": rows}

    def as_text(self) -> str:
        lines = [f"{name}: {value}  " for name, value in self.facts.items()]
        lines += ["", HEAD, "|" + "---|" * HEAD.count(" | ") + "---|"]
        for row in self.as_data()["rows"]:
            tolerance = "{:g}, {:g}".format(*row["upstream_tolerance"])
            lines.append(
                "| {op} | {output} | {dtype} | {comparisons} | {relative:.2g} "
                "| {ulps:.3g} | {used:.2f} | {upstream:.2g} | {tolerance} "
                "| {case} |".format(tolerance=tolerance, **row)
            )
        return "\n".join(lines) + "\n"
