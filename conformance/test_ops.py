# SPDX-License-Identifier: Apache-2.0
"""Every case of every room, in this process: what the command judges in children. See
examine.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from .cases import Case
from .conftest import give_up, not_supported
from .examine import FAILED, SKIPPED, all_cases, examine, expect
from .providers import Reference


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    found = all_cases(metafunc.config.getoption("--seed"))
    metafunc.parametrize(
        "room, case", [pytest.param(*found[name], id=name) for name in found]
    )


@pytest.fixture(autouse=True)
def torch_alone() -> None:
    """torch only shovels small arrays here; its threads would cost more than that."""
    torch.set_num_threads(1)


def test_case(
    request: pytest.FixtureRequest,
    room: str,
    case: Case,
    opened: Any,
    reference: Reference,
) -> None:
    config = request.config
    if not opened.spec.concerns(room, case):
        not_supported(config, "concerns the functions of modules", missing=False)
    seed = config.getoption("--seed")
    result = examine(expect(room, case, reference, seed), opened.provider(case))
    if result.outcome == SKIPPED:
        not_supported(config, result.reason, missing=not case.how)
    again = 'repeat: pytest "{}" --seed {}{}'.format(
        request.node.nodeid,
        seed,
        " --variant " + config.getoption("--variant")
        if config.getoption("--variant")
        else "",
    )
    text = "\n".join([f"{case.id} ({case.why})", *result.complaints, again])
    if result.lost:
        give_up(config, text)
    if result.outcome == FAILED:
        pytest.fail(text, pytrace=False)
