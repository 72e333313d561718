# SPDX-License-Identifier: Apache-2.0
"""What one provider did, collected: counts and worst errors per family, and per entry
point, output and dtype. As JSON, as Markdown; page.py draws it. Knows no ops."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Callable, Iterable, Sequence

Data = dict  # what Report.as_data returns
FIGURES = ("relative", "ulps", "middle", "used", "upstream", "wrong")  # of a Verdict

ROW_HEAD = (
    "| op | output | dtype | comparisons | worst error / largest element | in ULP "
    "of the element | share of the bound "
    "| share of upstream's tolerance | upstream's rtol, atol | worst case |"
)
FAMILY_HEAD = (
    "| family | cases | passed | failed | as known | NotSupported "
    "| worst error / largest element | share of the bound "
    "| share of upstream's tolerance | worst case |"
)


@dataclass
class Worst:
    """Over many comparisons: see judge.Verdict. case: the one with the largest share of
    the bound; middles: the error of the median element, in ULP, of each."""

    comparisons: int = 0
    wrong: int = 0
    relative: float = 0.0
    ulps: float = 0.0
    used: float = 0.0
    upstream: float = 0.0
    case: str = ""

    def add(self, case: str, found: dict[str, Any]) -> None:
        self.comparisons += 1
        self.wrong += found["wrong"]
        if not self.case or (found["used"], self.case) > (self.used, case):
            self.used, self.case = found["used"], case  # of equals the first by name
        self.relative = max(self.relative, found["relative"])
        self.ulps = max(self.ulps, found["ulps"])
        self.upstream = max(self.upstream, found["upstream"])


@dataclass
class Report:
    """facts: the machine and the provider. unavailable: why it cannot run here; broken:
    why it did not even start, though it should; otherwise both are empty.
    tolerance: of a room, an output and a dtype's name, upstream's (rtol, atol)."""

    facts: dict[str, str]
    tolerance: Callable[[str, str, str], tuple[float, float]]
    unavailable: str = ""
    broken: str = ""
    seconds: float = 0.0
    cases: list[dict[str, Any]] = field(default_factory=list)
    rows: dict[tuple[str, str, str, str], Worst] = field(default_factory=dict)
    families: dict[str, Worst] = field(default_factory=dict)

    @property
    def provider(self) -> str:
        return self.facts["provider"]

    @property
    def comparisons(self) -> int:
        return sum(row.comparisons for row in self.rows.values())

    def add(
        self, name: str, family: str, answer: dict[str, Any], repeat: str, why: str
    ) -> None:
        """name: room/case. family: room/family. answer: of child.py. repeat, why: how
        to run the case again, and why it exists. Where several ways to run it gave
        other bits, the worse figures are kept."""
        room = name.partition("/")[0]
        case: dict[str, Any] = {
            "case": name,
            "family": family,
            "outcome": answer["outcome"],
        }
        if answer["text"]:
            case["text"] = answer["text"]
        if answer["outcome"] == "failed":
            case.update(repeat=repeat, why=why)
        worst: dict[str, list[Any]] = {}
        for entry, output, dtype, found in answer["figures"]:
            key = (room, entry, output, dtype)
            self.rows.setdefault(key, Worst()).add(name, found)
            self.families.setdefault(family, Worst()).add(name, found)
            numbers = [float(f"{found[n]:.3g}") for n in FIGURES]
            others = worst.get(output, [dtype, *numbers])[1:]
            worst[output] = [dtype, *map(max, others, numbers)]
        if worst:
            case["figures"] = worst
        self.cases.append(case)

    def outcomes(self) -> dict[str, int]:
        return dict(Counter(case["outcome"] for case in self.cases))

    @property
    def conforms(self) -> bool:
        return conforms(self.outcomes(), self.facts)

    def failures(self) -> list[dict[str, Any]]:
        return [case for case in self.cases if case["outcome"] == "failed"]

    def reasons(self, outcome: str) -> list[tuple[str, int]]:
        """Texts of the cases with that outcome and how often each, most first."""
        found = Counter(
            case.get("text", "") for case in self.cases if case["outcome"] == outcome
        )
        return found.most_common()

    def as_data(self) -> dict[str, Any]:
        return {
            "facts": self.facts,
            "unavailable": self.unavailable,
            "broken": self.broken,
            "conforms": self.conforms,
            "seconds": round(self.seconds, 1),
            "outcomes": self.outcomes(),
            "figures": ["dtype", *FIGURES],
            "families": self.family_data(),
            "rows": self.row_data(),
            "cases": sorted(self.cases, key=lambda case: case["case"]),
        }

    def row_data(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for (room, entry, output, dtype), row in sorted(self.rows.items()):
            rows.append(
                {
                    "op": entry,
                    "output": output,
                    "dtype": dtype,
                    **vars(row),
                    "upstream_tolerance": self.tolerance(room, output, dtype),
                }
            )
        return rows

    def family_data(self) -> list[dict[str, Any]]:
        names = dict.fromkeys(case["family"] for case in self.cases)
        rows: list[dict[str, Any]] = []
        for family in names:
            counts = Counter(
                case["outcome"] for case in self.cases if case["family"] == family
            )
            worst = self.families.get(family, Worst())
            rows.append({"family": family, "outcomes": dict(counts), **vars(worst)})
        return rows

    def as_json(self) -> str:
        """One line for each item of a list, so that a changed result is a changed
        line."""
        data = self.as_data()
        lists = {name: data.pop(name) for name in ("families", "rows", "cases")}
        text = json.dumps(data, indent=1)[:-2]
        for name, items in lists.items():
            lines = ",\n  ".join(json.dumps(item) for item in items)
            text += f',\n "{name}": [\n  {lines}\n ]'
        return text + "\n}\n"

    def as_text(self) -> str:
        lines = [f"{name}: {value}  " for name, value in self.facts.items()]
        if self.unavailable:
            return "\n".join([*lines, f"NotSupported: {self.unavailable}", ""])
        if self.broken:
            return "\n".join([*lines, f"is broken: {short(self.broken)}", ""])
        lines += [f"cases: {counted(self.outcomes())} in {self.seconds:.0f} s"]
        lines += ["", *table(FAMILY_HEAD, map(family_line, self.family_data()))]
        lines += ["", *table(ROW_HEAD, map(row_line, self.row_data()))]
        for outcome, title in TITLES.items():
            found = self.reasons(outcome)
            lines += ["", title + ":", ""] if found else []
            lines += [f"- {n} x {short(text)}" for text, n in found]
        return "\n".join(lines) + "\n"


TITLES = {
    "failed": "Failed",
    "known": "Deviates as known",
    "skipped": "NotSupported",
}


def conforms(outcomes: dict[str, int], facts: dict[str, str]) -> bool:
    """Every case was judged, some passed and none failed."""
    sound = bool(outcomes.get("passed")) and not outcomes.get("failed")
    return sound and "interrupted" not in facts


def verdict(sound: bool, outcomes: dict[str, int]) -> str:
    """Of a provider that has neither failed nor passed, nothing is claimed."""
    if sound:
        return "conforms"
    return "does not conform" if outcomes.get("failed") else "is not judged"


def counted(outcomes: dict[str, int]) -> str:
    words = {"known": "deviate as known", "skipped": "NotSupported"}
    order = [*("passed", "failed"), *words]
    return ", ".join(
        f"{outcomes[name]} {words.get(name, name)}"
        for name in order
        if outcomes.get(name) or name in ("passed", "failed") and name in outcomes
    )


def families_of(reports: Sequence[Data]) -> list[str]:
    names = (row["family"] for report in reports for row in report["families"])
    return list(dict.fromkeys(names))


def share(value: float) -> str:
    """Two digits after the point where that says something."""
    if value == 0 or value >= 100:
        return f"{value:.0e}" if value else "0"
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def table(head: str, lines: Iterable[str]) -> list[str]:
    return [head, "|" + "---|" * head.count(" | ") + "---|", *lines]


def row_line(row: dict[str, Any]) -> str:
    return (
        "| {op} | {output} | {dtype} | {comparisons} | {relative:.2g} "
        "| {ulps:.3g} | {used:.3g} | {upstream:.2g} | {0:g}, {1:g} "
        "| {case} |".format(*row["upstream_tolerance"], **row)
    )


def family_line(row: dict[str, Any]) -> str:
    counts = row["outcomes"]
    names = ("passed", "failed", "known", "skipped")
    numbers = " | ".join(str(counts.get(name, 0)) for name in names)
    return (
        "| {family} | {total} | {numbers} | {relative:.2g} | {used:.3g} "
        "| {upstream:.2g} | {case} |".format(
            total=sum(counts.values()), numbers=numbers, **row
        )
    )


def short(text: str) -> str:
    """One line that a table or a list can hold."""
    line = " ".join(text.split())
    return line if len(line) < 400 else line[:400] + " ..."
