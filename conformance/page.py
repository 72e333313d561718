# SPDX-License-Identifier: Apache-2.0
"""Draws what report.py collected, several providers side by side: one HTML file without
anything outside of it, and its pictures as PNG. Knows no ops.

    python -m mambarun.conformance.page DIR         from the JSON files that lie there
    python -m mambarun.conformance.page DIR FILE... into DIR, from these files

A file is what --report or --json has written. Their order is that of the page, which so
shows side by side what ran at different times or on different machines.
"""

from __future__ import annotations

import html
import io
import json
import math
import sys
from itertools import cycle
from pathlib import Path
from typing import Any, Callable, Iterable, Sequence

try:
    import matplotlib
except ImportError as error:
    needs = f"pages need matplotlib ({error}): pip install 'mambarun[conformance]'"
    if __name__ == "__main__":
        sys.exit(needs)
    raise ImportError(needs) from None

matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.colors import LinearSegmentedColormap  # noqa: E402

from .report import FIGURES, TITLES, conforms, counted, short, table, verdict  # noqa: E402

HERE = Path(__file__).resolve().parent
Data = dict  # what Report.as_data returns

COLOURS = (
    *("#1b6ca8", "#d1762b", "#3f8f4f", "#8a4f9e", "#7a6a4f", "#4a4a4a"),
    *("#2ba7b5", "#c2557f", "#a3a32c", "#9db6d3"),
)
BAD = "#b3261e"
HEAT = LinearSegmentedColormap.from_list(
    "share", ["#f3f7fb", "#b9d4ea", "#5d9bcb", "#f0b775", "#b3261e"]
)
LEAST = 1e-5  # of a share on a logarithmic axis: what is smaller is drawn there
ULPS = (1e-3, 1e6)  # of an error; what is beyond is drawn at the end
DTYPES = ("float32", "float16", "bfloat16", "complex64")
MOST_FAILURES = 200
BESIDE = 4  # plots

plt.rcParams.update(
    {
        "font.size": 9,
        "svg.fonttype": "none",
        "svg.hashsalt": "conformance",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.constrained_layout.use": True,
    }
)


def write(reports: Sequence[Data], folder: Path) -> None:
    """DIR/report.html, its tables as Markdown, and a PNG of each picture. A report is
    Report.as_data()."""
    judged = [report for report in reports if any(comparisons(report))]
    pictures = {}
    for name, draw in PICTURES.items() if judged else ():
        figure = draw(judged)
        figure.savefig(folder / f"{name}.png", dpi=110)
        out = io.StringIO()
        figure.savefig(out, format="svg", dpi=150, metadata={"Date": None})
        pictures[name] = out.getvalue().partition("<svg")
        plt.close(figure)
    svg = {name: "<svg" + text for name, (_, _, text) in pictures.items()}
    (folder / "report.html").write_text(document(reports, svg), encoding="utf-8")
    (folder / "report.md").write_text(as_text(reports), encoding="utf-8")


# ---- pictures -----------------------------------------------------------------------


def families_of(reports: Sequence[Data]) -> list[str]:
    names = (row["family"] for report in reports for row in report["families"])
    return list(dict.fromkeys(names))


def comparisons(report: Data) -> Iterable[tuple[dict[str, Any], str, dict[str, Any]]]:
    """(case, dtype, figures by name) of every output of every case."""
    for case in report["cases"]:
        for dtype, *numbers in case.get("figures", {}).values():
            yield case, dtype, dict(zip(FIGURES, numbers))


def panels(count: int, width: float, height: float, left: float) -> tuple[Any, Any]:
    """A figure with so many plots of that size in inches, BESIDE of them beside each
    other; left: what stands to the left of them takes."""
    columns = min(count, BESIDE)
    rows = math.ceil(count / columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        sharex=True,
        sharey=True,
        squeeze=False,
        figsize=(left + width * columns, height * rows),
    )
    flat = axes.flatten()
    for unused in flat[count:]:
        unused.set_visible(False)
    for above in flat[max(count - columns, 0) : count]:
        above.tick_params(labelbottom=True)
    return figure, flat


def heat(reports: Sequence[Data]) -> Any:
    """Families x dtypes: the largest share of the bound, red from 1 on."""
    families = families_of(reports)
    seen = {dtype for report in reports for _, dtype, _ in comparisons(report)}
    dtypes = [dtype for dtype in DTYPES if dtype in seen]
    figure, axes = panels(len(reports), 2.9, 0.9 + 0.27 * max(len(families), 3), 2.4)
    for axis, report in zip(axes, reports):
        cells: dict[tuple[str, str], list[float]] = {}
        wrong = set()
        for case, dtype, found in comparisons(report):
            key = case["family"], dtype
            cells.setdefault(key, []).append(found["used"])
            if found["wrong"]:
                wrong.add((key, case["outcome"]))
        shares = [
            [max(cells.get((f, d), [math.nan])) for d in dtypes] for f in families
        ]
        drawn = [[min(value, 2) for value in row] for row in shares]
        axis.imshow(drawn, cmap=HEAT, vmin=0, vmax=1.25, aspect="auto")
        for y, family in enumerate(families):
            for x, dtype in enumerate(dtypes):
                values = cells.get((family, dtype))
                if values is None:
                    continue
                failed = ((family, dtype), "failed") in wrong
                axis.text(
                    x,
                    y,
                    share(shares[y][x]) + (" ✗" if failed else ""),
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    color="white" if shares[y][x] > 0.8 else "black",
                )
        axis.set_xticks(range(len(dtypes)), dtypes)
        axis.set_yticks(range(len(families)), families)
        axis.tick_params(length=0)
        axis.set_title(report["facts"]["provider"], fontsize=10)
    return figure


def share(value: float) -> str:
    """Two digits after the point where that says something."""
    if value == 0 or value >= 100:
        return f"{value:.0e}" if value else "0"
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def tolerance(reports: Sequence[Data]) -> Any:
    """Every comparison: error against the bound and against upstream's tolerance."""
    figure, axes = panels(len(reports), 3.6, 4, 1.2)
    for axis, report in zip(axes, reports):
        dots: dict[str, tuple[list[float], list[float]]] = {}
        for _case, dtype, found in comparisons(report):
            xs, ys = dots.setdefault(dtype, ([], []))
            xs.append(max(found["upstream"], LEAST))
            ys.append(max(found["used"], LEAST))
        for colour, dtype in zip(COLOURS, (d for d in DTYPES if d in dots)):
            axis.loglog(*dots[dtype], color=colour, label=dtype, **dots_of(3.5, 0.45))
        axis.axhline(1, color=BAD, lw=1)
        axis.axvline(1, color=BAD, lw=1, ls=":")
        axis.set_xlim(LEAST / 1.5, None)
        axis.set_ylim(LEAST / 1.5, None)
        axis.set_xlabel("error / upstream's tolerance")
        axis.set_title(report["facts"]["provider"], fontsize=10)
    figure.supylabel("error beyond rounding / bound", fontsize=9)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=4,
        markerscale=3,
        frameon=False,
    )
    return figure


def dots_of(size: float, alpha: float) -> dict[str, Any]:
    """Thousands of dots: an image inside the SVG."""
    return {
        "marker": ".",
        "ls": "",
        "ms": size,
        "alpha": alpha,
        "mew": 0,
        "rasterized": True,
    }


def spread(reports: Sequence[Data]) -> Any:
    """Per family the distribution of the comparisons' worst errors."""
    families = families_of(reports)
    errors = [errors_by_family(report) for report in reports]
    most = max(sum(family in found for found in errors) for family in families)
    figure, axis = plt.subplots(
        figsize=(8.2, 1.2 + (0.1 + 0.12 * most) * max(len(families), 3))
    )
    for y, family in enumerate(families):
        mine = [(f[family], c) for f, c in zip(errors, cycle(COLOURS)) if family in f]
        for n, (values, colour) in enumerate(mine):
            place = y - 0.4 + 0.8 / len(mine) * (n + 0.5)
            low, middle, high = (quantile(values, q) for q in (0.05, 0.5, 0.95))
            places = [place] * len(values)
            axis.plot(values, places, color=colour, **dots_of(2, 0.25))
            axis.plot((low, high), (place, place), color=colour, lw=2.5)
            axis.plot(middle, place, "|", color=colour, ms=9, mew=2)
            axis.plot(values[-1], place, ">", color=colour, ms=4)
    for report, colour in zip(reports, cycle(COLOURS)):
        axis.plot([], [], color=colour, lw=2.5, label=report["facts"]["provider"])
    axis.set_xscale("log")
    axis.axvline(0.5, color="grey", lw=1, ls=":")
    axis.set_yticks(range(len(families)), families)
    axis.set_ylim(len(families) - 0.4, -0.6)
    axis.set_xlabel(
        "worst error of a comparison, in units in the last place of the largest "
        "element\n(bar: 5 % to 95 %, tick: median, arrow: worst; dotted: rounding)"
    )
    figure.legend(loc="outside upper center", ncols=min(3, len(reports)), frameon=False)
    return figure


def errors_by_family(report: Data) -> dict[str, list[float]]:
    """Of each comparison the worst error, least first, in units in the last place of
    the largest element."""
    errors: dict[str, list[float]] = {}
    for case, dtype, found in comparisons(report):
        if dtype in EPSILON:
            value = found["relative"] / EPSILON[dtype]
            errors.setdefault(case["family"], []).append(within(value))
    return {family: sorted(values) for family, values in errors.items()}


#: distance of 1 to the next number
EPSILON = {
    "float32": 2.0**-23,
    "complex64": 2.0**-23,
    "float16": 2.0**-10,
    "bfloat16": 2.0**-7,
}


def within(ulps: float) -> float:
    return min(max(ulps, ULPS[0]), ULPS[1])


def quantile(values: Sequence[float], q: float) -> float:
    return values[round(q * (len(values) - 1))]


def outputs(reports: Sequence[Data]) -> Any:
    """Worst error of each output and dtype, providers beside each other."""
    keys = dict.fromkeys(
        (row["op"], row["output"], row["dtype"])
        for report in reports
        for row in report["rows"]
        if row["dtype"] in EPSILON and any(r["relative"] for r in report["rows"])
    )
    keys = sorted(keys)
    figure, axis = plt.subplots(figsize=(8.2, 1 + 0.17 * max(len(keys), 8)))
    for report, colour in zip(reports, cycle(COLOURS)):
        found = {(r["op"], r["output"], r["dtype"]): r for r in report["rows"]}
        places = [y for y, key in enumerate(keys) if key in found]
        values = [
            within(found[keys[y]]["relative"] / EPSILON[keys[y][2]]) for y in places
        ]
        axis.plot(
            values,
            places,
            "o",
            ms=4,
            color=colour,
            alpha=0.8,
            label=report["facts"]["provider"],
        )
    axis.set_xscale("log")
    axis.axvline(0.5, color="grey", lw=1, ls=":")
    axis.set_yticks(range(len(keys)), [" ".join(key) for key in keys], fontsize=7)
    axis.set_ylim(len(keys) - 0.4, -0.6)
    axis.grid(axis="y", lw=0.3)
    axis.set_xlabel(
        "worst error of all cases, in units in the last place of the largest element"
    )
    figure.legend(loc="outside upper center", ncols=min(3, len(reports)), frameon=False)
    return figure


PICTURES: dict[str, Callable[[Sequence[Data]], Any]] = {
    "families": heat,
    "tolerance": tolerance,
    "spread": spread,
    "outputs": outputs,
}

CAPTIONS = {
    "families": "Worst error beyond rounding to the output's dtype, as a share of what "
    "arithmetic in fp32 explains, whatever the order of the sums. Above 1 a case fails "
    "(✗), or deviates as known.",
    "tolerance": "Each dot is an output of a case. Above the red line it is further "
    "off than fp32 explains; right of the dotted one, further than upstream's own test "
    "allows, which has one set of moderate values.",
    "spread": "How the worst errors are distributed in each family.",
    "outputs": "The worst error of each output and dtype.",
}

READ = (
    "An error as a share of the largest element of its output; of what arithmetic in "
    "fp32 explains beyond rounding to the output's dtype (above 1 a case fails, or "
    "deviates as known); and of the tolerance of upstream's own test of that output."
)


# ---- the document -------------------------------------------------------------------


def document(reports: Sequence[Data], svg: dict[str, str]) -> str:
    judged = judged_of(reports)
    parts = [
        "<h1>Conformance of selective scan and causal convolution</h1>",
        verdicts(reports),
        "<h2>Machine and providers</h2>",
        facts_table(reports),
        "<h2>Cases per family</h2>",
        three_each("family", FAMILY, family_rows(judged), judged),
    ]
    parts += ["<h2>Errors</h2>"] if svg else []
    for name, picture in svg.items():
        caption = f"<figcaption>{text(CAPTIONS[name])}</figcaption>"
        parts.append(f"<figure>{picture}{caption}</figure>")
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
