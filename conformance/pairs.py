# SPDX-License-Identifier: Apache-2.0
"""Few rows in which any two values of any two options meet. Knows no ops."""

from __future__ import annotations

import itertools
import random
from typing import Any, Callable, Dict, Iterable, Mapping, Sequence

Row = Dict[str, Any]


def meetings(row: Mapping[str, Any]) -> Iterable[tuple[tuple[str, Any], ...]]:
    """All pairs of options in a row, with their values."""
    return itertools.combinations(sorted(row.items()), 2)


def pairwise(
    options: Mapping[str, Sequence[Any]],
    allowed: Callable[[Row], bool] = lambda row: True,
    seed: int = 0,
    draws: int = 60,
) -> list[Row]:
    """Rows, each with a value for every option, that hold every pair of values that an
    allowed row can hold. Greedy: of `draws` allowed rows around a pair that is missing,
    the one with the most missing pairs. A pair that `draws` rows by chance could not
    hold counts as impossible."""
    chance = random.Random(seed)
    missing: dict[Any, None] = {}
    for one, other in itertools.combinations(sorted(options), 2):
        for values in itertools.product(options[one], options[other]):
            missing[((one, values[0]), (other, values[1]))] = None

    def draw(pair: Any) -> Row:
        row = {name: chance.choice(values) for name, values in options.items()}
        return {**row, **dict(pair)}

    rows = []
    while missing:
        pair = next(iter(missing))
        found = [row for row in (draw(pair) for _ in range(draws)) if allowed(row)]
        if not found:
            del missing[pair]
            continue
        best = max(found, key=lambda row: sum(m in missing for m in meetings(row)))
        rows.append({name: best[name] for name in options})
        for meeting in meetings(best):
            missing.pop(meeting, None)
    return rows
