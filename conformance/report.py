# SPDX-License-Identifier: Apache-2.0
"""Collects the worst of many verdicts, per entry point, output and dtype."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from .judge import Verdict

HEAD = (
    "| op | output | dtype | comparisons | worst error / largest element | in ULP "
    "of the element | share of the bound "
    "| share of upstream's tolerance | upstream's rtol, atol | worst case |"
)

FIGURES = ("relative", "ulps", "used", "upstream", "wrong")  # of judge.Verdict


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


@dataclass
class Figures:
    """What one case found out, in numbers that JSON takes: a row for each comparison,
    which are the arguments of Report._add."""

    variant: str
    rows: list[Any] = field(default_factory=list)

    def add(
        self,
        entry: str,
        output: str,
        dtype: torch.dtype,
        case: str,
        verdict: Verdict,
        upstream: tuple[float, float],
    ) -> None:
        key = [entry, output, str(dtype).replace("torch.", "")]
        found = asdict(verdict)
        del found["text"]
        self.rows.append([key, case, found, upstream])


class Report:
    def __init__(self, facts: dict[str, str]) -> None:
        self.facts = facts
        self.rows: dict[tuple[str, str, str], Worst] = {}
        self.tolerances: dict[tuple[str, str, str], tuple[float, float]] = {}
        self.cases: list[dict[str, Any]] = []

    @property
    def comparisons(self) -> int:
        return sum(row.comparisons for row in self.rows.values())

    def add(
        self, name: str, outcome: str, text: str, figures: dict[str, Any] | None
    ) -> None:
        """One case: its name, passed, failed or skipped, why, and its Figures. Where
        two ways to run it gave other bits, the worse figures are kept."""
        case: dict[str, Any] = {"case": name, "outcome": outcome}
        if text:
            case["text"] = _short(text)
        self.cases.append(case)
        if not figures:
            return
        self.facts["variant"] = figures["variant"]
        worst: dict[str, list[Any]] = {}
        for key, name, found, upstream in figures["rows"]:
            self._add(tuple(key), name, found, upstream)
            numbers = [float(f"{found[n]:.3g}") for n in FIGURES]
            others = worst.get(key[1], [key[2], *numbers])[1:]
            worst[key[1]] = [key[2], *map(max, others, numbers)]
        case["figures"] = worst

    def _add(
        self,
        key: tuple[str, str, str],
        case: str,
        found: dict[str, Any],
        upstream: tuple[float, float],
    ) -> None:
        row = self.rows.setdefault(key, Worst())
        self.tolerances[key] = upstream
        row.comparisons += 1
        row.wrong += found["wrong"]
        if found["used"] > row.used or not row.case:
            row.used, row.case = found["used"], case
        row.relative = max(row.relative, found["relative"])
        row.ulps = max(row.ulps, found["ulps"])
        row.upstream = max(row.upstream, found["upstream"])

    def outcomes(self) -> dict[str, int]:
        return dict(Counter(case["outcome"] for case in self.cases))

    def as_json(self) -> str:
        """One line per row and per case, whose figures stand in the order given."""
        data = {
            "facts": self.facts,
            "outcomes": self.outcomes(),
            "figures": ["dtype", *FIGURES],
        }
        head = json.dumps(data, indent=1)[:-2]
        lists = {
            "rows": self.as_data(),
            "cases": sorted(self.cases, key=lambda case: case["case"]),
        }
        for name, items in lists.items():
            lines = ",\n  ".join(json.dumps(item) for item in items)
            head += f',\n "{name}": [\n  {lines}\n ]'
        return head + "\n}\n"

    def as_data(self) -> list[dict[str, Any]]:
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
        return rows

    def as_text(self) -> str:
        lines = [f"{name}: {value}  " for name, value in self.facts.items()]
        counts = self.outcomes().items()
        lines.append("cases: " + ", ".join("{1} {0}".format(*pair) for pair in counts))
        lines += ["", HEAD, "|" + "---|" * HEAD.count(" | ") + "---|"]
        for row in self.as_data():
            lines.append(
                "| {op} | {output} | {dtype} | {comparisons} | {relative:.2g} "
                "| {ulps:.3g} | {used:.2f} | {upstream:.2g} | {0:g}, {1:g} "
                "| {case} |".format(*row["upstream_tolerance"], **row)
            )
        for outcome, title in (("failed", "Failed"), ("skipped", "Not run")):
            found = Counter(
                case["text"] for case in self.cases if case["outcome"] == outcome
            )
            lines += ["", title + ":", ""] if found else []
            lines += [f"- {n} x {text}" for text, n in found.most_common()]
        return "\n".join(lines) + "\n"


def _short(text: str) -> str:
    """One line of a report's text, without what only repeats it."""
    repeated = ("repeat: ", "[gw")  # the command, and pytest-xdist's worker
    lines = [line for line in text.splitlines() if not line.startswith(repeated)]
    return "; ".join(lines[-4:])[:400]
