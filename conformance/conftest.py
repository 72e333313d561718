# SPDX-License-Identifier: Apache-2.0
"""Options, the report, and what every test shares. Knows no op and no tolerance."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest

ROOT = Path(__file__).resolve().parent.parent
for folder in ("shim", "shim/standins"):
    sys.path.append(str(ROOT / folder))  # an installed mambarun goes first

import torch  # noqa: E402

from .providers import Library, Reference, library_folder  # noqa: E402
from .report import Report  # noqa: E402

NOT_SUPPORTED = "NotSupported: "


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption(
        "--variant",
        help="judge this variant (or: reference, judged by itself); default: the one "
        "that libmambarun chooses",
    )
    group.addoption(
        "--require",
        action="append",
        default=[],
        help="fail, instead of skipping, where this variant does not support something",
    )
    group.addoption(
        "--seed", type=int, default=0, help="of the random cases and values"
    )
    group.addoption(
        "--report",
        metavar="FILE",
        help="write worst errors per op, output and dtype; "
        "as JSON if FILE ends with .json, else as Markdown",
    )


def pytest_configure(config: pytest.Config) -> None:
    variant = config.getoption("--variant")
    if variant and variant != "reference":
        os.environ["MAMBARUN_VARIANT"] = variant
    if library_folder().is_dir():
        os.environ.setdefault("MAMBARUN_PATH", str(library_folder()))
    for name in config.getoption("--require"):
        if name != variant:
            raise pytest.UsageError(f"--require {name} needs --variant {name}")
    config.conformance_report = Report(facts(variant))  # type: ignore[attr-defined]


def facts(variant: str | None) -> dict[str, str]:
    """What the report says first: machine, variant and versions."""
    path = library_folder() / "libmambarun.so"
    known = {"library": str(path), "variant": variant or "libmambarun's choice"}
    if path.exists():
        library = Library(path)
        valid = ["reference", *library.variants()]
        if variant and variant not in valid:
            raise pytest.UsageError(
                "--variant {} is none of {}".format(variant, " ".join(valid))
            )
        host = library.facts()
        known["cpu"] = host.cpu_name.decode()
        known["stamp"] = (host.stamp or b"").decode()
    known["commit"] = commit()
    known["torch"] = torch.__version__
    known["python"] = sys.version.split()[0]
    return known


def commit() -> str:
    described = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
    )
    return described.stdout.strip() or "unknown"


def pytest_report_header(config: pytest.Config) -> list[str]:
    report: Report = config.conformance_report  # type: ignore[attr-defined]
    lines = [f"{name}: {value}" for name, value in report.facts.items()]
    return lines + ["seed: {}".format(config.getoption("--seed"))]


@pytest.fixture(scope="session")
def library() -> Library:
    return Library(library_folder() / "libmambarun.so")


@pytest.fixture(scope="session")
def reference(library: Library) -> Reference:
    stamp = library.facts().stamp.decode()
    return Reference(library_folder() / "libmambarun_reference.so", stamp)


@pytest.fixture(scope="session")
def candidate(request: pytest.FixtureRequest) -> Any:
    """The provider that is judged."""
    variant = request.config.getoption("--variant")
    if variant == "reference":
        return request.getfixturevalue("reference")
    library = request.getfixturevalue("library")
    usable, reason = library.variants()[variant] if variant else (True, "")
    if not usable:
        not_supported(request.config, reason)
    return library


def not_supported(config: pytest.Config, reason: str) -> None:
    """A result of its own: a skip with its reason, a failure where --require says."""
    variant = config.getoption("--variant")
    if variant in config.getoption("--require"):
        pytest.fail(f"{variant} is required but {reason}", pytrace=False)
    pytest.skip(NOT_SUPPORTED + reason)


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest, library: Library) -> Iterator[Report]:
    report: Report = request.config.conformance_report  # type: ignore[attr-defined]
    yield report
    if request.config.getoption("--variant") != "reference":
        report.facts["variant"] = library.in_use()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    report: Report = config.conformance_report  # type: ignore[attr-defined]
    skips = [r.longrepr[2] for r in terminalreporter.stats.get("skipped", [])]
    unsupported = sum(NOT_SUPPORTED in reason for reason in skips)
    terminalreporter.write_line(
        "variant {}: {} comparisons, {} cases NotSupported".format(
            report.facts["variant"], report.comparisons, unsupported
        )
    )
    file = config.getoption("--report")
    if file and report.comparisons:
        as_json = json.dumps(report.as_data(), indent=1)
        Path(file).write_text(as_json if file.endswith(".json") else report.as_text())
