# SPDX-License-Identifier: Apache-2.0
"""Options, and what every test shares. Knows no op and no tolerance."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import pytest

from .calling import Unsupported
from .facts import facts
from .providers import Provider, Reference, open_reference
from .spec import Opened, Spec, variant

NOT_SUPPORTED = "NotSupported: "


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption(
        "--variant",
        help="judge this variant (or: reference, judged by itself); default: the one "
        "that libmambarun chooses for a CPU",
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
        "--tight",
        action="store_true",
        help="on a GPU: no guard behind arrays, for compute-sanitizer",
    )


def pytest_configure(config: pytest.Config) -> None:
    name = config.getoption("--variant")
    for required in config.getoption("--require"):
        if required != name:
            raise pytest.UsageError(f"--require {required} needs --variant {required}")
    if not name or name == "reference":
        return
    try:
        variant(name, "cpu")
    except ValueError as mistake:
        raise pytest.UsageError(f"--variant {mistake}") from None
    os.environ["MAMBARUN_VARIANT"] = name


def spec_of(config: pytest.Config) -> Spec:
    import mambarun

    name = config.getoption("--variant")
    if name == "reference":
        return Spec(name, "")
    usable = (v["name"] for v in mambarun.info()["variants"] if v["usable"])
    return Spec("mambarun", name or next(usable))


def pytest_report_header(config: pytest.Config) -> list[str]:
    seed = "seed: {}".format(config.getoption("--seed"))
    try:
        known = facts(Opened(spec_of(config)))
    except Unsupported as reason:
        known = {"provider": f"{spec_of(config)}: {NOT_SUPPORTED}{reason}"}
    except ImportError as error:  # the tests that need it will say so
        known = {"provider": f"none: {error}"}
    return [*(f"{name}: {value}" for name, value in known.items()), seed]


@pytest.fixture(scope="session")
def reference() -> Reference:
    return open_reference()


@pytest.fixture(scope="session")
def opened(request: pytest.FixtureRequest) -> Opened:
    config = request.config
    try:
        return Opened(spec_of(config), tight=config.getoption("--tight"))
    except Unsupported as reason:
        not_supported(config, str(reason))


@pytest.fixture(scope="session")
def candidate(opened: Opened) -> Provider:
    """The provider that is judged."""
    return opened.main


def not_supported(config: pytest.Config, reason: str, missing: bool = True) -> NoReturn:
    """A result of its own: a skip with its reason, a failure where --require says,
    unless it is not the variant that lacks something."""
    name = config.getoption("--variant")
    if missing and name in config.getoption("--require"):
        pytest.fail(f"{name} is required but {reason}", pytrace=False)
    pytest.skip(NOT_SUPPORTED + reason)


def give_up(config: pytest.Config, text: str) -> NoReturn:
    """No case can run in this process any more. A worker of pytest-xdist dies, which
    fails its case, and another one goes on."""
    if hasattr(config, "workerinput"):
        print(text, file=sys.__stderr__, flush=True)
        os._exit(1)
    pytest.exit(text, returncode=1)
