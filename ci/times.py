# SPDX-License-Identifier: Apache-2.0
"""times.py FILE... - what bench/gpu.py wrote with --json, as tables in Markdown: times
beside upstream's, with the card that each was measured on, then errors. Several files
are those of several calls, of which each had other rows or another of upstream's
modules."""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any, Iterable, Iterator, Sequence

DIRECTIONS = ("forward", "backward")
MEANING = """\
Times are medians in ms, of a whole call with its allocations. Ours and upstream's stand
for the same data on the card of their row, timed in turns in one process; where
upstream's is empty, its module was not at hand there. The last two columns are no
neighbours of these: they were measured once, earlier, on an H200 (4.8 TB/s of memory;
an H100 has 3.35), and say something about ours only where the row's card is one. Of the
rows whose op ends in `oflex`, which are VMamba's, upstream's times are from there only:
PyPI has no archive of VMamba's modules to compile.
"""


def load(files: list[str]) -> list[dict[str, Any]]:
    """The rows of all files, each with its card."""
    rows = []
    for file in files:
        result = json.loads(pathlib.Path(file).read_text())
        rows += [{**row, "card": result["gpu"]} for row in result["rows"]]
    return rows


def about(files: list[str]) -> Iterator[str]:
    for file in files:
        result = json.loads(pathlib.Path(file).read_text())
        facts = (f"{k} {v}" for k, v in result.items() if k not in ("gpu", "rows"))
        yield f"- {result['gpu']}, {', '.join(facts)}: rows {len(result['rows'])}"


def line(cells: Iterable[Any]) -> str:
    return "| " + " | ".join("" if c is None else str(c) for c in cells) + " |"


def head(titles: Sequence[str]) -> list[str]:
    return ["", line(titles), line(["---"] * len(titles))]


def times(rows: list[dict[str, Any]]) -> Iterator[str]:
    kinds = ("ours", "upstream's", "upstream's / ours")
    titles = [f"{direction}: {kind}" for direction in DIRECTIONS for kind in kinds]
    once = [f"{direction}: upstream's on an H200" for direction in DIRECTIONS]
    yield from head(["op", "row", "card", *titles, *once])
    for row in rows:
        found = [row.get(direction, {}) for direction in DIRECTIONS]
        keys = ("ms", "upstream_ms", "upstream_over_ours")
        cells = [f.get(key) for f in found for key in keys]
        if "wrong" in row:
            cells[0] = f"WRONG: {row['wrong']}"
        cells += [f.get("upstream_h200_ms") for f in found]
        yield line([row["op"], row["row"], row["card"], *cells])


def summed_up(what: str, compared: int, found: list[str]) -> str:
    return f"\nOf {compared} {what}" + "".join(f"\n- {one}" for one in found)


def slower(rows: list[dict[str, Any]]) -> str:
    """Where upstream's module, timed beside ours, is faster."""
    ratios = {
        f"{row['op']}, {row['row']}, {name}": row[name]["upstream_over_ours"]
        for row in rows
        for name in DIRECTIONS
        if "upstream_over_ours" in row.get(name, {})
    }
    found = [f"{name}: {ratio}" for name, ratio in ratios.items() if ratio < 1]
    return summed_up(
        f"times beside upstream's {len(found)} are longer", len(ratios), found
    )


SUPPLIERS = ("errors", "upstream_errors", "upstream_h200_errors")
ALIKE = 1.05  # errors that differ by less are of the same rounding


def worst(rows: list[dict[str, Any]], key: str, output: str) -> float | None:
    found = [row[key][output] for row in rows if output in row.get(key, {})]
    return max(found, default=None)


def errors(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The worst of each op's rows of a dtype."""
    larger, compared = [], 0
    yield from head(
        ["op", "dtype", "output", "worst of ours", "of upstream's on the same card"]
        + ["of upstream's on an H200"]
    )
    for op, dtype in dict.fromkeys((row["op"], row["dtype"]) for row in rows):
        same = [row for row in rows if (row["op"], row["dtype"]) == (op, dtype)]
        for output in dict.fromkeys(o for row in same for o in row.get("errors", {})):
            beside = [row for row in same if output in row.get("upstream_errors", {})]
            ours = worst(beside or same, SUPPLIERS[0], output)
            theirs = [worst(same, key, output) for key in SUPPLIERS[1:]]
            shown = [None if e is None else f"{e:.1e}" for e in (ours, *theirs)]
            yield line([op, dtype, output, *shown])
            compared += bool(theirs[0])
            if theirs[0] and ours > ALIKE * theirs[0]:
                larger.append(f"{op}, {dtype}, {output}: {shown[0]}, not {shown[1]}")
    yield summed_up(
        f"errors beside upstream's {len(larger)} are larger", compared, larger
    )


def tables(files: list[str]) -> Iterator[str]:
    rows = load(files)
    yield from about(files)
    yield "\n" + MEANING.rstrip()
    yield from times(rows)
    yield slower(rows)
    yield (
        "\nErrors are ||result - float64|| / ||float64||. Where a row had upstream's "
        "module beside it, ours is the worst of those rows."
    )
    yield from errors(rows)


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit(__doc__)
    print("\n".join(tables(sys.argv[1:])))
