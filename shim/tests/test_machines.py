# SPDX-License-Identifier: Apache-2.0
"""test_machines.py - the check on the fabricated machines of machines/rows.py: exactly
its codes, its fix and its exit status, in both languages, and a report that fits a
terminal and tells nothing of this machine.
"""

import json
import os
import re
import signal
import unicodedata

import pytest
from machines import fakes, matrix
from machines.rows import CLOSED, GUIDE, LOADED, PLAIN, ROWS
from mambarun import PROMISED
from mambarun.check.layout import Style

CHINESE = re.compile("[\u4e00-\u9fff]")
BAD = ("warn", "error")


class Late(BaseException):
    """The check hangs; no `except Exception` of it may catch this."""


def say_late(*_):
    raise Late


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """report(row), once per row."""
    known = {}

    def report_(row):
        if row in LOADED and fakes.compiler() is None:
            pytest.skip("NotSupported: there is no cc here to compile a driver with")
        if row.name not in known:
            folder = tmp_path_factory.mktemp("machine")
            signal.signal(signal.SIGALRM, say_late)
            signal.alarm(60)
            known[row.name] = folder, matrix.diagnose(row, folder)
            signal.alarm(0)
        return known[row.name]

    return report_


def by_name(rows):
    return pytest.mark.parametrize("row", rows, ids=[row.name for row in rows])


@by_name(ROWS)
def test_exactly_its_codes_and_its_exit_status(report, row):
    _, found = report(row)
    shown = [(f.code, f.status, f.what(), f.evidence) for f in found.findings]
    assert matrix.said(found) == row.says, shown
    assert found.exit == row.exit


@by_name([row for row in ROWS if row.fixes])
def test_its_fix_in_both_languages(report, row):
    _, found = report(row)
    for code, words in row.fixes.items():
        findings = [f for f in found.findings if f.code == code]
        for lang in ("en", "zh"):
            fixes = [f.fix(lang) for f in findings]
            assert any(words in fix for fix in fixes), (code, lang, fixes)


@by_name(ROWS)
def test_what_is_bad_is_said_in_both_languages(report, row):
    _, found = report(row)
    for finding in found.findings:
        if finding.status in BAD:
            assert not CHINESE.search(finding.what("en") + finding.fix("en"))
            assert CHINESE.search(finding.what("zh")), finding


def shown(report, lang, verbose=False):
    return "\n".join(report.lines(lang, Style(unicode_=True), verbose))


def width(line):
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in line)
    return len(line) + wide


@by_name(ROWS)
@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("verbose", [False, True])
def test_the_report_fits_and_is_of_that_machine(report, row, lang, verbose):
    folder, found = report(row)
    text = shown(found, lang, verbose)
    for line in text.splitlines():
        unbroken = max(map(width, line.split()), default=0) > 40  # paths, symbols
        assert width(line) <= 80 or unbroken, line
    assert str(folder) not in text and "/home/ada" not in text
    for code, status in row.says.items():
        assert status == "info" or code in text


@by_name(ROWS)
def test_the_object_for_a_script_says_the_same(report, row):
    folder, found = report(row)
    text = json.dumps(found.json(), ensure_ascii=False)
    told = json.loads(text)
    assert told["exit"] == row.exit
    assert {c["id"] for c in told["checks"]} == {f.code for f in found.findings}
    assert {m["name"] for m in told["modules"]} == set(PROMISED)
    assert not CHINESE.search(text)
    assert str(folder) not in text and "/home/ada" not in text


@by_name(CLOSED)
def test_what_may_not_be_read(report, row):
    if os.geteuid() == 0:
        pytest.skip("NotSupported: root reads everything")
    folder, found = report(row)
    assert matrix.said(found) == row.says and not found.failures
    assert found.exit == row.exit


def test_there_are_enough_machines_and_no_two_of_one_name():
    names = [row.name for row in ROWS]
    assert len(names) == len(set(names)) >= 60


def test_the_guides_machine_is_usable_with_two_warnings(report):
    _, found = report(GUIDE)
    warned = {f.code for f in found.findings if f.status == "warn"}
    assert warned == {"MR302", "MR504"}
    assert found.exit == 0 and found.verdict == "ok"
    last = [n for n in shown(found, "en").splitlines() if "exit 0" in n]
    assert last and "2 warnings" in last[0]
    broken = [f.what() for f in found.findings if f.code == "MR302"]
    assert len(broken) == 2
    assert all("TRUE" in text and "FALSE" in text for text in broken), broken


def test_the_plain_machine_has_nothing_to_mend(report):
    _, found = report(PLAIN)
    assert matrix.said(found) == {} and found.verdict == "ok"
    assert not any(f.status in BAD for f in found.findings)


def test_the_written_matrix_is_current():
    file = matrix.ROOT / "docs" / "results" / "machines.md"
    assert file.read_text(encoding="utf-8") == matrix.expected(), (
        "run python shim/tests/machines/matrix.py > docs/results/machines.md"
    )
