# SPDX-License-Identifier: Apache-2.0
"""results.py - counts what a test runner reported, and trusts no silence.

    results.py STATUS REPORT [DETAILS]

STATUS is the runner's exit status, REPORT the JUnit XML it had to write. DETAILS is a
folder of finer reports, CASE-*.xml, that stand for CASE of the first (CMocka's, under
ctest). Prints "passed failed skipped"; on stderr each failure and each reason to skip.
A runner that fails without a failed test, writes no report or runs nothing has failed.
"""

from __future__ import annotations

import collections
import pathlib
import sys
import xml.etree.ElementTree as ET

Case = collections.namedtuple("Case", "name outcome text")
OUTCOMES = {"failure": "failed", "error": "failed", "skipped": "skipped"}
MOST = 20  # failures shown


def outcome(element: ET.Element) -> tuple[str, str]:
    for tag, word in OUTCOMES.items():
        found = element.find(tag)
        if found is not None:
            text = found.get("message") or (found.text or "").strip()
            return word, " ".join(text.split())[:160] or "no reason given"
    return "passed", ""


def cases(report: pathlib.Path) -> list[Case]:
    try:
        root = ET.parse(report).getroot()
    except (OSError, ET.ParseError) as error:
        return [Case(report.name, "failed", f"no readable report: {error}")]
    return [
        Case("::".join(filter(None, (e.get("classname"), e.get("name")))), *outcome(e))
        for e in root.iter("testcase")
    ]


def refined(coarse: list[Case], folder: pathlib.Path) -> list[Case]:
    """Each case replaced by its own report; a failure that this hides stays."""
    result = []
    for case in coarse:
        program = case.name.rpartition("::")[2]
        fine = [c for f in sorted(folder.glob(f"{program}-*.xml")) for c in cases(f)]
        result += [c._replace(name=f"{program}: {c.name}") for c in fine]
        if not fine or (case.outcome == "failed" and not any_failed(fine)):
            result.append(case)
    return result


def any_failed(found: list[Case]) -> bool:
    return any(case.outcome == "failed" for case in found)


def main(status: str, report: str, details: str = "") -> None:
    found = cases(pathlib.Path(report))
    if details:
        found = refined(found, pathlib.Path(details))
    if status != "0" and not any_failed(found):
        found.append(Case("the runner itself", "failed", f"exit status {status}"))
    if not found:
        found.append(Case("the runner itself", "failed", "it ran no test"))
    failures = [case for case in found if case.outcome == "failed"]
    for case in failures[:MOST]:
        print(f"    FAILED {case.name}: {case.text}", file=sys.stderr)
    if len(failures) > MOST:
        print(f"    and {len(failures) - MOST} more, see {report}", file=sys.stderr)
    reasons = collections.Counter(c.text for c in found if c.outcome == "skipped")
    for reason, count in reasons.most_common():
        print(f"    skipped {count}: {reason}", file=sys.stderr)
    counts = collections.Counter(case.outcome for case in found)
    print(counts["passed"], counts["failed"], counts["skipped"])


if __name__ == "__main__":
    main(*sys.argv[1:])
