# SPDX-License-Identifier: Apache-2.0
"""The pictures of a report, several providers side by side. Needs matplotlib; knows no
ops."""

from __future__ import annotations

import io
import math
from itertools import cycle
from pathlib import Path
from typing import Any, Callable, Iterable, Sequence

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.colors import LinearSegmentedColormap  # noqa: E402

from .report import FIGURES, Data, families_of, share  # noqa: E402

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


def draw(reports: Sequence[Data], folder: Path) -> dict[str, str]:
    """A PNG of each picture in folder; and each as SVG, by its caption."""
    judged = [report for report in reports if any(comparisons(report))]
    found = {}
    for name, picture in PICTURES.items() if judged else ():
        figure = picture(judged)
        figure.savefig(folder / f"{name}.png", dpi=110)
        out = io.StringIO()
        figure.savefig(out, format="svg", dpi=150, metadata={"Date": None})
        plt.close(figure)
        found[CAPTIONS[name]] = "<svg" + out.getvalue().partition("<svg")[2]
    return found


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
