# SPDX-License-Identifier: Apache-2.0
"""__main__.py - `python -m mambarun`: what is installed, what would run here and who
supplies the promised names; `--explain MRnnn`: what a code in a message means.
"""

from __future__ import annotations

import argparse
import sys

from ._explain import EXPLANATIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator, Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """0; 1 if nothing can run here; 2 if the question is wrong."""
    parser = argparse.ArgumentParser(prog="python -m mambarun", description=__doc__)
    parser.add_argument("--explain", metavar="MRnnn", help="explain this code and stop")
    code = parser.parse_args(arguments).explain
    if code is not None:
        return _explain(code.upper())
    from ._info import info

    try:
        facts = info()
    except ImportError as cause:
        print(cause, file=sys.stderr)
        return 1
    print("\n".join(_lines(facts)))
    return 0 if any(variant["usable"] for variant in facts["variants"]) else 1


def _explain(code: str) -> int:
    if code not in EXPLANATIONS:
        known = ", ".join(EXPLANATIONS)
        print(f"{code} has no explanation. Those that have: {known}", file=sys.stderr)
        return 2
    print(f"{code}: {EXPLANATIONS[code]}")
    return 0


def _lines(facts: dict[str, Any]) -> Iterator[str]:
    cpu = facts["cpu"]
    yield f"mambarun {facts['version']}  {facts['library']}"
    yield f"python   {facts['python']}"
    yield f"cpu      {cpu['name']}, {cpu['count']} CPUs, {' '.join(cpu['features'])}"
    yield f"driver   {facts['cuda_driver']}"
    for name, value in facts["environment"].items():
        yield f"{name}={value}"
    yield "\nvariants, in order of preference, for tensors on the CPU"
    for v in facts["variants"]:
        yield f"  {'+' if v['usable'] else '-'} {v['name']:13} {v['reason']}"
    yield "\nmodules"
    for m in facts["modules"]:
        yield f"  {m['name']:28} {m['supplier'] or 'nobody':9} {m['reason']}"
    yield "\nThis lists; it does not test the machine."


if __name__ == "__main__":
    sys.exit(main())
