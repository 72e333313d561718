# SPDX-License-Identifier: Apache-2.0
"""cli.py - the command line of mambarun-check and python -m mambarun."""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback

from . import diagnose, is_requirement
from .finding import fill
from .layout import Style, locale, pad, paragraphs, wrap
from .report import Report
from .texts import TEXTS
from .texts.words import LABELS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterable, Iterator, Mapping, Sequence

    from .machine import Machine

EPILOG = """\
exit status: 0 usable, perhaps with warnings; 1 not usable; 2 wrong usage; 3 the
check itself did not finish, so there is no verdict."""


def main(arguments: Sequence[str] | None = None, machine: Machine | None = None) -> int:
    """The exit status. machine: another one than this, for tests."""
    try:
        status = _main(arguments, machine)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # as in `mambarun-check | head`: nobody reads any more
        _silence()
        return 0
    except OSError as cause:  # a full disk under stdout
        _silence()
        return _failed(cause)
    except Exception as cause:
        return _failed(cause)


def _silence() -> None:
    """Python flushes stdout once more as it ends, and would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _failed(cause: Exception) -> int:
    """One line for what should not happen, with the place where it did."""
    place = traceback.extract_tb(cause.__traceback__)[-1]
    where = f"{os.path.basename(place.filename)}:{place.lineno}"
    said = " ".join(f"{type(cause).__name__}: {cause}".split())
    print(f"mambarun-check itself failed, at {where}: {said}", file=sys.stderr)
    return 3


def _main(arguments: Sequence[str] | None, machine: Machine | None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    environ = os.environ if machine is None else machine.environ
    lang = _language(options.lang, environ)
    style = Style.of(sys.stdout, environ)
    if options.list_checks:
        return _say(_listed(lang))
    if options.explain:
        return _explain(parser, options.explain, lang)
    report = diagnose(
        machine,
        run=True if options.bench else options.run,
        bench=options.bench,
        only=_codes(parser, options.only),
        require=_requirements(parser, options.require),
        strict=options.strict,
        before_run=lambda: _announce(lang),
    )
    if options.report and not _written(options.report, report):
        return 3
    if options.json:
        return _say([json.dumps(report.json(), indent=1)], report.exit)
    if options.quiet:
        return _say([report.title(lang)], report.exit)
    return _say(report.lines(lang, style, options.verbose), report.exit)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mambarun-check",
        description="What helps or hinders Mamba's compiled modules on this machine.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("-v", "--verbose", action="store_true", help="every check, with its evidence")
    add("-q", "--quiet", action="store_true", help="only the verdict")
    add("--json", action="store_true", help="one JSON object and nothing else")
    run = "import torch and run every module; default: if a GPU can be used"
    add("--run", dest="run", action="store_true", default=None, help=run)
    add("--no-run", dest="run", action="store_false", help="do not run them")
    add("--bench", action="store_true", help="also time every module; implies --run")
    add("--only", metavar="ID[,ID]", default="", help="report these codes only")
    add("--list-checks", action="store_true", help="every code with its question")
    add("--explain", metavar="ID", help="what a code means and what to do")
    add(
        "--report", metavar="FILE", help="also write everything to a file, for an issue"
    )
    add("--strict", action="store_true", help="warnings count as errors")
    add(
        "--require",
        metavar="WHAT[,WHAT]",
        default="",
        help="error if missing: gpu, torch, sm_80, cuda12_sm80, a module's name",
    )
    add("--lang", choices=("en", "zh"), help="language; default: by LANG")
    return parser


def _language(asked: str | None, environ: Mapping[str, str]) -> str:
    """zh if asked for or the locale's, and if the terminal can show it."""
    wanted = asked or locale(environ, "LC_MESSAGES")
    if not wanted.startswith("zh"):
        return "en"
    try:
        "可用，变体".encode(sys.stdout.encoding or "ascii")
    except (UnicodeError, LookupError):
        if asked:
            print("this output cannot carry Chinese: English it is", file=sys.stderr)
        return "en"
    return "zh"


def _announce(lang: str) -> None:
    """Tell a person why it takes longer now."""
    if sys.stderr.isatty():
        print(fill(LABELS["running"], {}, lang), file=sys.stderr)


def _say(lines: Iterable[str], status: int = 0) -> int:
    """Print lines; what the encoding lacks is escaped. Returns status."""
    encoding = sys.stdout.encoding or "ascii"
    for line in lines:
        print(line.encode(encoding, "backslashreplace").decode(encoding))
    return status


def _codes(parser: argparse.ArgumentParser, given: str) -> list[str]:
    codes = [code.strip().upper() for code in given.split(",") if code.strip()]
    for code in codes:
        if code not in TEXTS:
            parser.error(f"{code} is no check; see --list-checks")
    return codes


def _requirements(parser: argparse.ArgumentParser, given: str) -> list[str]:
    wanted = [word.strip() for word in given.split(",") if word.strip()]
    for word in wanted:
        if not is_requirement(word):
            parser.error(
                f"--require {word}: not gpu, torch, sm_NN, a variant or a module"
            )
    return wanted


def _listed(lang: str) -> Iterator[str]:
    for code, text in TEXTS.items():
        title = fill(text.title, {}, lang)
        if not text.cases:
            title += fill(LABELS["only_messages"], {}, lang)
        yield from wrap(title, " " * 7, pad(code, 7))


def explanation(code: str, lang: str) -> Iterator[str]:
    """What --explain prints."""
    yield from wrap(fill(TEXTS[code].title, {}, lang), "", code + ": ")
    yield ""
    text = TEXTS[code].explanation
    lines = list(paragraphs(text if isinstance(text, str) else text[lang == "zh"]))
    yield from lines[:-1]


def _explain(parser: argparse.ArgumentParser, given: str, lang: str) -> int:
    code = given.upper()
    if code not in TEXTS:
        known = ", ".join(TEXTS)
        parser.error(f"{code} has no explanation. Those that have: {known}")
    return _say(explanation(code, lang))


def _written(path: str, report: Report) -> bool:
    """Whether everything about this machine is in the file now, in English."""
    try:
        with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
            for line in report.lines("en", Style(), verbose=True):
                print(line, file=file)
            print("\n" + json.dumps(report.json(), indent=1), file=file)
    except OSError as cause:
        print(f"mambarun-check: cannot write the report: {cause}", file=sys.stderr)
        return False
    return True
