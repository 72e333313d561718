# SPDX-License-Identifier: Apache-2.0
"""python -m mambarun.conformance - says whether what computes selective_scan_cuda* and
causal_conv1d_cuda here computes what it should."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from typing import Callable

USAGE, BROKEN = 2, 3

EPILOG = """\
providers:
  mambarun:VARIANT      libmambarun with that variant; all of its modules too
  module:NAME           a compiled module of this environment, whoever supplies it
  file:PATH             one that lies elsewhere
  all                   every variant and every module that can run here
  NAME=INTERFACE, PATH=INTERFACE   for a module with another name: whose argument lists
                        it has, such as module:my_scan=selective_scan_cuda

exit status: 0 all that could run here conforms; 1 something does not; 2 usage;
3 broken: a provider does not load or was not judged to the end, or none could run.
"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m " + (__package__ or ""),
        description=(__doc__ or "").partition(" - ")[2],
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "--provider",
        action="append",
        metavar="WHO",
        help="who is judged, see below; may be repeated; default: all",
    )
    p.add_argument(
        "--device",
        default="",
        help="cpu, cuda or cuda:N; default: what a variant is for, else a GPU if "
        "torch finds one",
    )
    p.add_argument(
        "--quick",
        action="store_true",
        help="a part of the cases, in under a minute for a provider",
    )
    p.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="CASE",
        help="this case, family or op, as room/case or room/family; * and ? stand for "
        "anything; may be repeated",
    )
    p.add_argument(
        "--seed",
        type=whole(0),
        default=0,
        metavar="N",
        help="other random cases, and other values in all cases; default 0",
    )
    p.add_argument(
        "--report",
        metavar="DIR",
        help="write report.html, its pictures, and Markdown and JSON for each provider",
    )
    p.add_argument("--json", action="store_true", help="print all results as JSON")
    p.add_argument(
        "--require",
        action="store_true",
        help="a provider that cannot run here or does not load fails, and so does a "
        "skipped case that stands in mustpass.txt",
    )
    p.add_argument(
        "--jobs",
        type=whole(1),
        default=min(8, os.cpu_count() or 1),
        metavar="N",
        help="processes per provider; default: one for each CPU, at most 8",
    )
    p.add_argument(
        "--limit",
        type=whole(1),
        default=60,
        metavar="SECONDS",
        help="for one case; default 60",
    )
    p.add_argument("--list", action="store_true", help="print the cases, and no more")
    return p


def whole(least: int) -> Callable[[str], int]:
    """Reads an option that is a whole number."""

    def read(text: str) -> int:
        number = int(text) if text.isdecimal() else -1
        if not least <= number < 2**32:
            rule = f"it must be a whole number, {least} or more"
            raise argparse.ArgumentTypeError(f"{text}: {rule}")
        return number

    return read


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        missing = lacking()
        if missing:
            print(missing, file=sys.stderr)
            return BROKEN
        from . import session

        try:
            return session.run(options)
        except session.Usage as mistake:
            print(f"{parser().prog}: {mistake}", file=sys.stderr)
            return USAGE
    except KeyboardInterrupt:  # before anything was judged, or while it was written
        print("Ctrl-C", file=sys.stderr)
    except BrokenPipeError:  # head, at the other end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN


def lacking() -> str:
    """What is not installed, in words; empty if everything needed is."""
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as error:  # OSError: a library that torch loads
        return (
            f"conformance needs torch ({error}): pip install 'mambarun[conformance]', "
            "or the torch that fits this machine"
        )
    try:
        import mambarun

        with warnings.catch_warnings():  # of what the error says too
            warnings.simplefilter("ignore")
            mambarun.info()
    except ImportError as error:
        return f"conformance needs mambarun: {error}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
