# SPDX-License-Identifier: Apache-2.0
"""Options, the report, and what every test shares. Knows no op and no tolerance."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Iterator, NoReturn

import pytest

ROOT = Path(__file__).resolve().parent.parent
for folder in ("shim", "shim/standins"):
    sys.path.append(str(ROOT / folder))  # an installed mambarun goes first

import torch  # noqa: E402

from .providers import Library, OnGpu, Reference, library_folder  # noqa: E402
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
        action="append",
        default=[],
        help="write worst errors per op, output and dtype as Markdown, or as JSON, "
        "with every case, if FILE ends with .json; may be given twice",
    )
    group.addoption(
        "--tight",
        action="store_true",
        help="on a GPU: no guard behind arrays, for compute-sanitizer",
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
    report = Report({} if hasattr(config, "workerinput") else facts(variant))
    config.conformance_report = report  # type: ignore[attr-defined]
    config.pluginmanager.register(Collector(report))


def facts(variant: str | None) -> dict[str, str]:
    """What the report says first: machine, variant and versions."""
    path = library_folder() / "libmambarun.so"
    known = {"library": path.name, "variant": variant or "libmambarun's choice"}
    if path.exists():
        library = Library(path)
        variants = library.variants()
        valid = ["reference", *variants]
        if variant and variant not in valid:
            raise pytest.UsageError(
                "--variant {} is none of {}".format(variant, " ".join(valid))
            )
        host = library.facts()
        known["cpu"] = host.cpu_name.decode()
        if variant in variants and variants[variant][0] != "cpu":
            known["gpu"] = gpu() or variants[variant][2]
        known["stamp"] = (host.stamp or b"").decode()
    known["commit"] = commit()
    known["torch"] = torch.__version__
    known["python"] = sys.version.split()[0]
    known["date"] = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return known


def gpu() -> str:
    """The first GPU and its driver."""
    query = ["nvidia-smi", "-i", "0", "--query-gpu=name,compute_cap,driver_version"]
    try:
        said = subprocess.run(
            [*query, "--format=csv,noheader"], capture_output=True, text=True
        )
    except OSError:
        return ""
    return said.stdout.strip() if said.returncode == 0 else ""


def commit() -> str:
    """Where a part of the tree was carried elsewhere, commit.txt says what it was."""
    carried = ROOT / "commit.txt"
    if carried.exists():
        return carried.read_text().strip()
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
    if not variant:
        return library
    mode, usable, reason = library.variants()[variant]
    if usable and mode != "cpu" and not torch.cuda.is_available():
        usable, reason = False, "this torch finds no GPU"
    if not usable:
        not_supported(request.config, reason)
    if mode == "cpu":
        return library
    path = library_folder() / "libmambarun.so"
    return OnGpu(path, tight=request.config.getoption("--tight"))


def not_supported(config: pytest.Config, reason: str) -> None:
    """A result of its own: a skip with its reason, a failure where --require says."""
    variant = config.getoption("--variant")
    if variant in config.getoption("--require"):
        pytest.fail(f"{variant} is required but {reason}", pytrace=False)
    pytest.skip(NOT_SUPPORTED + reason)


def give_up(config: pytest.Config, text: str) -> NoReturn:
    """No case can run in this process any more. A worker of pytest-xdist dies, which
    fails its case, and another one goes on."""
    if hasattr(config, "workerinput"):
        print(text, file=sys.__stderr__, flush=True)
        os._exit(1)
    pytest.exit(text, returncode=1)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """What a case found goes with its result, also out of a worker of pytest-xdist."""
    outcome = yield
    figures = getattr(item, "figures", None)
    outcome.get_result().figures = figures and asdict(figures)


class Collector:
    """Puts the results of all cases into the report, in the process that writes it."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        text = "" if report.passed else report.longreprtext
        if isinstance(report.longrepr, tuple):  # a skip: file, line and reason
            text = report.longrepr[2].replace("Skipped: ", "", 1)
        self.report.add(
            report.nodeid.rpartition("::")[2],
            report.outcome,
            text,
            getattr(report, "figures", None),
        )


def pytest_terminal_summary(config: pytest.Config) -> None:
    report: Report = config.conformance_report  # type: ignore[attr-defined]
    unsupported = sum(NOT_SUPPORTED in case.get("text", "") for case in report.cases)
    print_line = config.get_terminal_writer().line
    print_line(
        "variant {}: {} comparisons, {} cases NotSupported".format(
            report.facts["variant"], report.comparisons, unsupported
        )
    )
    for file in config.getoption("--report"):
        as_json = file.endswith(".json")
        Path(file).write_text(report.as_json() if as_json else report.as_text())
