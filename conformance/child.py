# SPDX-License-Identifier: Apache-2.0
"""The process in which a provider runs: it is told the name of a case, a line each, and
answers with a line of JSON. Whatever happens to it happens to one case. Not for people:
runner.py starts it."""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import time
import traceback
import warnings
from dataclasses import asdict
from typing import Any, TextIO

import torch

from .calling import Unsupported
from .examine import FAILED, Result, all_cases, examine, expect
from .facts import facts
from .providers import open_reference
from .spec import Opened, parse


def main(provider: str, device: str, seed: str, answers: str) -> int:
    """answers: the number of an open file. What is written to stdout and stderr is
    seen by the parent, and is a fault of the case during which it appears."""
    faulthandler.enable()
    warnings.simplefilter("ignore")
    questions = os.fdopen(os.dup(0))  # a provider must not read them
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    with os.fdopen(int(answers), "w", buffering=1) as out:
        return serve(provider, device, int(seed), questions, out)


def serve(provider: str, device: str, seed: int, questions: TextIO, out: TextIO) -> int:
    try:
        opened = Opened(parse(provider), device)
        reference = open_reference()
        cases = all_cases(seed)
        say(out, facts=facts(opened))
    except Unsupported as reason:
        say(out, unsupported=str(reason))
        return 0
    except ImportError as error:
        say(out, broken=str(error))
        return 0
    except Exception:
        say(out, broken=traceback.format_exc())
        return 0
    torch.set_num_threads(1)  # it only shovels small arrays; threads would cost more
    for line in questions:
        room, case = cases[line.strip()]
        begin = time.perf_counter()
        try:
            candidate = opened.provider(case)
            result = examine(expect(room, case, reference, seed), candidate)
        except Exception:  # of a provider's Python too
            result = Result(FAILED, [traceback.format_exc()])
        answer(out, line.strip(), result, time.perf_counter() - begin)
        if result.lost:
            return 1
    return 0


def answer(out: TextIO, name: str, result: Result, seconds: float) -> None:
    say(
        out,
        case=name,
        outcome=result.outcome,
        text=result.text,
        figures=[[*where, asdict(verdict)] for *where, verdict in result.figures],
        lost=result.lost,
        seconds=round(seconds, 4),
    )


def say(out: TextIO, **what: Any) -> None:
    sys.stdout.flush()
    out.write(json.dumps(what) + "\n")
    out.flush()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
