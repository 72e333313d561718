# SPDX-License-Identifier: Apache-2.0
"""Writes what report.py collected, several providers side by side: one HTML file with
nothing outside of it, the pictures of pictures.py in it; its tables as Markdown. Knows
no ops.

    python -m mambarun.conformance.page DIR         from the JSON files that lie there
    python -m mambarun.conformance.page DIR FILE... into DIR, from these files

A file is what --report or --json has written. Their order is that of the page, which so
shows side by side what ran at different times or on different machines.
"""

from __future__ import annotations

import html
import json
import shlex
import sys
from pathlib import Path
from typing import Any, Iterable, Sequence

from .report import (
    TITLES,
    Data,
    conforms,
    counted,
    families_of,
    share,
    short,
    table,
    verdict,
)

HERE = Path(__file__).resolve().parent
MOST_FAILURES = 200


def write(reports: Sequence[Data], folder: Path) -> None:
    """DIR/report.html, its tables as Markdown, and a PNG of each picture. A report is
    Report.as_data(). Without matplotlib there are no pictures, which is said."""
    lacks, pictures = "", {}
    try:
        from .pictures import draw

        pictures = draw(reports, folder)
    except ImportError as error:
        lacks = f"pictures need matplotlib ({error})"
        again = f"python -m {__package__}.page {shlex.quote(str(folder))}"
        print(
            f"report.html has no pictures: {lacks}: pip install "
            f"'mambarun[conformance]', then {again}",
            file=sys.stderr,
        )
    whole = document(reports, pictures, lacks)
    (folder / "report.html").write_text(whole, encoding="utf-8")
    (folder / "report.md").write_text(as_text(reports), encoding="utf-8")


READ = (
    "Of all cases that could be put to a provider: an error as a share of the largest "
    "element of its output; of what arithmetic in fp32 explains beyond rounding to the "
    "output's dtype (above 1 a case fails, or deviates as known); and of the tolerance "
    "of upstream's own test of that output."
)


# ---- the document -------------------------------------------------------------------


def document(reports: Sequence[Data], pictures: dict[str, str], lacks: str) -> str:
    """pictures: SVG by caption. lacks: why there are none, if there should be."""
    judged = judged_of(reports)
    parts = [
        "<h1>Conformance of selective scan and causal convolution</h1>",
        verdicts(reports),
        "<h2>Machine and providers</h2>",
        facts_table(reports),
        "<h2>Cases per family</h2>",
        three_each("family", FAMILY, family_rows(judged), judged),
    ]
    parts += ["<h2>Errors</h2>"] if pictures or lacks else []
    parts += [f"<p>{text(lacks)}</p>"] if lacks else []
    for caption, svg in pictures.items():
        below = f"<figcaption>{text(caption)}</figcaption>"
        parts.append(f"<figure>{svg}{below}</figure>")
    parts += ["<h2>Failures</h2>", failures(reports)]
    parts += ["<h2>Deviates as known, and NotSupported</h2>", reasons(reports)]
    worst = three_each("output", WORST, worst_rows(judged), judged)
    parts += ["<h2>Worst errors</h2>", worst, f"<p>{text(READ)}</p>"]
    style = (HERE / "page.css").read_text()
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Conformance</title><style>{style}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def text(value: Any) -> str:
    return html.escape(str(value))


def grid(
    head: Sequence[str],
    rows: Iterable[Sequence[Any]],
    numbers: int = 99,
    over: Sequence[str] = (),
) -> str:
    """A table; columns from number `numbers` on are figures. over: what stands over
    each THREE of those."""

    def line(cells: Sequence[Any], tag: str) -> str:
        marks = (' class="n"' if n >= numbers else "" for n in range(len(cells)))
        return "".join(
            f"<{tag}{mark}>{text(cell)}</{tag}>" for mark, cell in zip(marks, cells)
        )

    body = "\n".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    top = f"<tr>{line(head, 'th')}</tr>"
    if over:
        wide = (f'<th class="over" colspan="{THREE}">{text(o)}</th>' for o in over)
        top = f'<tr><th colspan="{numbers}"></th>{"".join(wide)}</tr>\n{top}'
    return f'<div class="wide"><table>{top}\n{body}</table></div>'


FAMILY = ("cases", "of the bound", "of upstream's")
WORST = ("of the largest", "of the bound", "of upstream's")
THREE = 3  # columns of a provider


def verdicts(reports: Sequence[Data]) -> str:
    lines = []
    for report in reports:
        who = f"<code>{text(report['facts']['provider'])}</code>"
        mark, word, said = verdict_of(report)
        word = f'<span class="verdict {mark}">{word}</span>'
        lines.append(f"<div>{who} {word}: {text(said)}</div>")
    return "\n".join(lines)


def verdict_of(report: Data) -> tuple[str, str, str]:
    """(class, the verdict, what belongs to it)."""
    if report["unavailable"]:
        return "none", "NotSupported", report["unavailable"]
    if report.get("broken"):
        return "bad", "is broken", short(report["broken"])
    word = verdict(conforms(report["outcomes"], report["facts"]), report["outcomes"])
    mark = {"conforms": "good", "is not judged": "none"}.get(word, "bad")
    return mark, word, f"{counted(report['outcomes'])}; {report['seconds']:.0f} s"


def judged_of(reports: Sequence[Data]) -> list[Data]:
    return [report for report in reports if report["cases"]]


def facts_table(reports: Sequence[Data]) -> str:
    """What is the same for all who were judged, then what is not."""
    facts = [report["facts"] for report in judged_of(reports)]
    names = dict.fromkeys(name for f in facts for name in f if name != "provider")
    rows = [[name, *(f.get(name, "") for f in facts)] for name in names]
    same = [row[:2] for row in rows if len(facts) > 1 and len({*row[1:]}) == 1]
    other = [row for row in rows if row[:2] not in same]
    tables = [grid(["", "all of them"], same)] if same else []
    if other:
        tables.append(grid(["", *(f["provider"] for f in facts)], other))
    return "<br>\n".join(tables) or "<div>None was judged.</div>"


def three_each(
    first: str, names: Sequence[str], rows: Sequence[Sequence[str]], judged: list[Data]
) -> str:
    """The table of rows whose first cell is called first, then THREE of a provider."""
    head = [first, *(list(names) * len(judged))]
    return grid(head, rows, 1, [report["facts"]["provider"] for report in judged])


def family_rows(judged: Sequence[Data]) -> list[list[str]]:
    """Of each family the counts, and the worst error in terms of SHARES."""
    rows = []
    for family in families_of(judged):
        cells: list[Any] = [family]
        for report in judged:
            found = {row["family"]: row for row in report["families"]}.get(family)
            cells += family_cells(found)
        rows.append(cells)
    return rows


def family_cells(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return ["", "", ""]
    counts = counted(found["outcomes"])
    if not found["comparisons"]:
        return [counts, "", ""]
    return [counts, share(found["used"]), share(found["upstream"])]


def failures(reports: Sequence[Data]) -> str:
    parts = []
    for report in reports:
        failed = [case for case in report["cases"] if case["outcome"] == "failed"]
        for case in failed[:MOST_FAILURES]:
            why = f" ({text(case['why'])})" if case.get("why") else ""
            parts.append(
                f"<div><code>{text(report['facts']['provider'])}</code> "
                f"<b>{text(case['case'])}</b>{why}: {text(short(case['text']))}"
                f"<pre>{text(case['repeat'])}</pre></div>"
            )
        if len(failed) > MOST_FAILURES:
            parts.append(f"<div>and {len(failed) - MOST_FAILURES} more</div>")
    return "\n".join(parts) or "<div>None.</div>"


def reasons(reports: Sequence[Data]) -> str:
    rows = []
    for report in reports:
        for outcome in ("known", "skipped"):
            counts: dict[str, int] = {}
            for case in report["cases"]:
                if case["outcome"] == outcome:
                    reason = short(case.get("text", ""))
                    counts[reason] = counts.get(reason, 0) + 1
            who = report["facts"]["provider"]
            for reason, number in sorted(counts.items(), key=lambda item: -item[1]):
                rows.append([who, TITLES[outcome], reason, number])
    return grid(["provider", "", "cause", "cases"], rows, 3) if rows else "None."


def worst_rows(judged: Sequence[Data]) -> list[list[str]]:
    """Of each output and dtype the worst error."""
    found = [
        {(r["op"], r["output"], r["dtype"]): r for r in report["rows"]}
        for report in judged
    ]
    rows = []
    for key in sorted(set().union(*found)):
        cells: list[Any] = [" ".join(key)]
        for of_report in found:
            row = of_report.get(key)
            names = ("relative", "used", "upstream")
            cells += [f"{row[n]:.2g}" if row else "" for n in names]
        rows.append(cells)
    return rows


# ---- as text ------------------------------------------------------------------------


def as_text(reports: Sequence[Data]) -> str:
    """Who conforms, counts and worst errors, side by side."""
    lines = ["# Conformance of selective scan and causal convolution", ""]
    for report in reports:
        _, word, said = verdict_of(report)
        lines.append(f"- `{report['facts']['provider']}` {word}: {said}")
    judged = judged_of(reports)
    for report in judged:
        facts = (f"{n} {v}" for n, v in report["facts"].items() if n != "provider")
        lines += ["", f"`{report['facts']['provider']}`: {'; '.join(facts)}"]
    for first, names, rows in (
        ("family", FAMILY, family_rows(judged)),
        ("output", WORST, worst_rows(judged)),
    ):
        head = [f"`{r['facts']['provider']}`: {name}" for r in judged for name in names]
        lines += ["", *table(row_of([first, *head]), map(row_of, rows))]
    return "\n".join([*lines, "", READ, ""])


def row_of(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


# ---- from files ---------------------------------------------------------------------


class Unreadable(Exception):
    """Which file is no report, and why."""


def read(file: Path) -> list[Data]:
    """The reports of a file: one, or the list that --json prints."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Unreadable(f"{file}: {error.strerror}") from None
    except ValueError as error:
        raise Unreadable(f"{file} is no JSON: {error}") from None
    reports = found if isinstance(found, list) else [found]
    for report in reports:
        lacks = [
            key for key in KEYS if not isinstance(report, dict) or key not in report
        ]
        if lacks:
            raise Unreadable(f"{file} is no report of this suite: no {lacks[0]}")
    return reports


KEYS = ("facts", "unavailable", "seconds", "outcomes", "families", "rows", "cases")


def main(folder: Path, files: Sequence[Path]) -> int:
    try:
        if files:
            folder.mkdir(parents=True, exist_ok=True)
        reports = [
            r for file in files or sorted(folder.glob("*.json")) for r in read(file)
        ]
        if not reports:
            raise Unreadable(f"{folder} holds no JSON file of a report")
        write(reports, folder)
    except Unreadable as reason:
        print(reason, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    sys.exit(main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]))
