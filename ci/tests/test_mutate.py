# SPDX-License-Identifier: Apache-2.0
"""test_mutate.py - conformance/mutate_tree.py: a fault that it puts into one kernel of
a GPU is in the library that is judged, alone. With a fake NVRTC."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "shim")]

from conformance.faults import Fault, Source  # noqa: E402
from conformance.mutate_tree import SAME_CODE, Tree  # noqa: E402

FILE = "libmambarun/ops/causal_conv1d/update.cu"
KERNEL = "causal_conv1d_update"


@pytest.fixture(scope="module")
def built(tmp_path_factory, nvrtc) -> Tree:
    folder = tmp_path_factory.mktemp("mutate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKE_NVRTC_LOG", str(folder / "log"))
        yield Tree(
            folder,
            argparse.Namespace(
                variant="cuda12_sm90", nvrtc=str(nvrtc), cache=str(folder / "cache")
            ),
        )


def faults() -> list[Fault]:
    source = Source(FILE, (ROOT / FILE).read_text())
    return [fault.of_kernel(KERNEL) for fault in source.faults(["constant"])][:2]


def image_of(tree: Tree) -> bytes:
    """What kernels.py has made of the kernel last."""
    return (tree.root / f"kernel/{KERNEL}.cubin").read_bytes()


def listed(tree: Tree) -> bytes:
    """What the table that is compiled into the library says is the kernel."""
    table = (tree.kernels / "kernels.c").read_text()
    start, length = map(
        int, re.search(rf'"{KERNEL}", images \+ (\d+), (\d+)', table).groups()
    )
    return (tree.kernels / "kernels.bin").read_bytes()[start : start + length]


def test_the_exchanged_kernel_is_in_the_library(built):
    sound = built.library.read_bytes()
    seen = []

    def use() -> str:
        image = image_of(built)
        assert listed(built) == image
        seen.append((built.library.read_bytes(), image))
        return ""

    for fault in faults():
        assert built.with_fault(fault, use) == ""
    (first, one), (second, two) = seen
    assert one != two and one in first and two in second
    assert one not in second and two not in first, "each fault alone"
    assert one not in sound and two not in sound


def test_a_fault_without_effect_counts_for_nothing(built):
    fault = faults()[0]
    nothing = Fault(**{**vars(fault), "after": fault.before})
    assert built.with_fault(nothing, pytest.fail) == SAME_CODE


def test_the_tree_is_as_before(built):
    assert (built.root / FILE).read_text() == (ROOT / FILE).read_text()
