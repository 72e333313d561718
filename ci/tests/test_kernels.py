# SPDX-License-Identifier: Apache-2.0
"""test_kernels.py - variant/kernels.py: what it asks of NVRTC, what it keeps and when
it compiles again, what it says where it cannot. With a fake NVRTC."""

from __future__ import annotations

import json

import pytest

BOTH = ["toy_one", "toy_two"]


def test_a_row_is_compiled_with_its_name_macros_and_architecture(tree):
    assert tree.compiles(arch=80) == BOTH
    (said,) = (x for x in tree.log.read_text().splitlines() if "toy_one" in x)
    options = said.split()[1:]
    assert "--gpu-architecture=sm_80" in options
    assert {"-DMBR_ARCH=80", "-DMBR_KERNEL_NAME=toy_one", "-DIN=f32"} <= set(options)
    assert f"-I{tree.folder}" in options and f"-I{tree.room}" in options


def test_nothing_is_compiled_twice(tree):
    assert tree.compiles() == BOTH
    assert tree.compiles() == []
    (tree.room / "one.cu").touch()
    assert tree.compiles() == []


@pytest.mark.parametrize(
    "file, old, new, again",
    [
        ("ops/toy/one.cu", "#", "// changed\n#", ["toy_one"]),
        ("ops/toy/toy.cuh", "#", "// changed\n#", ["toy_one"]),
        ("variant/device.cuh", "nothing", "something", BOTH),
        ("ops/toy/instances.def", "IN=f32", "IN=half", ["toy_one"]),
        ("ops/toy/instances.def", "MBR_KERNEL(toy_two", "MBR_KERNEL(toy_2", ["toy_2"]),
        ("variant/kernels.py", "typedef short int16_t", "typedef int int16_t", BOTH),
        ("variant/kernels.py", '"--std=c++17"', '"--std=c++20"', BOTH),
    ],
)
def test_what_has_changed_is_compiled_again(tree, file, old, new, again):
    tree.compiles()
    tree.edit(file, old, new)
    assert tree.compiles() == again


def test_another_architecture_kind_or_compiler_is_another_kernel(tree):
    tree.compiles()
    assert tree.compiles(arch=80) == BOTH
    assert tree.compiles("--kind", "ptx", arch=80) == BOTH
    tree.edit("variant/kernels.py", '80: "7.0"', '80: "7.1"')
    assert tree.compiles("--kind", "ptx", arch=80) == BOTH
    larger = tree.folder / "libnvrtc.so.12"
    larger.write_bytes(tree.nvrtc.read_bytes() + b"\0")
    tree.nvrtc = larger
    assert tree.compiles() == BOTH


@pytest.mark.parametrize("suffix", [".image", ".log", ".seconds"])
def test_an_entry_of_which_a_part_is_missing_counts_as_none(tree, suffix):
    tree.compiles()
    before = (tree.out / "kernels.bin").read_bytes()
    next(tree.cache.glob(f"*{suffix}")).unlink()
    assert len(tree.compiles()) == 1
    assert tree.compiles() == []
    assert (tree.out / "kernels.bin").read_bytes() == before


def test_a_row_more_is_one_line(tree):
    tree.compiles()
    with open(tree.room / "instances.def", "a") as file:
        file.write("MBR_KERNEL(toy_three, two.cu, X=1)\n")
    assert tree.compiles() == ["toy_three"]
    assert "[MBR_KERNEL_toy_three]" in (tree.out / "kernels.c").read_text()
    report = json.loads((tree.out / "kernels.json").read_text())
    assert [kernel["name"] for kernel in report] == [*BOTH, "toy_three"]


def test_figures_of_each_kernel_are_kept(tree):
    tree.edit("ops/toy/one.cu", "#", "// spills 8\n#")
    tree.edit("ops/toy/instances.def", "IN=f32)", "IN=f32) /* spills: it is a toy */")
    tree.compiles()
    one, two = json.loads((tree.out / "kernels.json").read_text())
    assert (one["registers"], one["shared"], one["spill_stores"]) == (40, 64, 8)
    assert one["spills"] == "it is a toy"
    assert two["spill_loads"] == 0 and "spills" not in two
    assert "toy_one" in (tree.out / "kernels.txt").read_text()


def test_a_warning_of_the_compiler_is_passed_on(tree):
    tree.edit("ops/toy/one.cu", "#", "// says one.cu(3): warning: odd\n#")
    assert "toy_one: one.cu(3): warning: odd" in tree.run().stderr


def test_ptx_gets_the_oldest_version_and_its_end(tree):
    tree.compiles("--kind", "ptx", arch=80)
    ptx = (tree.out / "kernels.bin").read_bytes()
    assert ptx.count(b".version 7.0\n.target sm_80\n") == 2
    assert ptx.endswith(b"}\n\0")


# ---- refusals ---------------------------------------------------------------------


def refusal(tree, *options, **how):
    done = tree.run(*options, **how)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    return done.stderr


def test_what_does_not_compile_is_named_and_not_kept(tree):
    tree.edit("ops/toy/one.cu", "#", "// fails one.cu(7): error: no such thing\n#")
    said = refusal(tree)
    assert "toy_one (ops/toy/one.cu IN=f32):\none.cu(7): error: no such thing" in said
    assert "1 kernels do not compile" in said
    assert not (tree.out / "kernels.c").exists()
    assert len(list(tree.cache.glob("*.image"))) == 1  # of toy_two
    tree.edit("ops/toy/one.cu", "// fails", "// mended")
    assert tree.compiles() == ["toy_one"]


@pytest.mark.parametrize(
    "row, why",
    [
        ("MBR_KERNEL(toy-three, two.cu, )\n", "3 rows, of which some cannot be read"),
        ("MBR_KERNEL(toy_three, two.cu, ) // odd\n", "some cannot be read"),
        (
            "MBR_KERNEL(toy_three, three.cu, )\n",
            "toy_three: there is no ops/toy/three.cu",
        ),
    ],
)
def test_a_row_that_is_wrong_is_named(tree, row, why):
    with open(tree.room / "instances.def", "a") as file:
        file.write(row)
    assert why in refusal(tree)


def test_what_is_asked_for_has_to_exist(tree):
    assert "no row of any instances.def is called four" in refusal(
        tree, "--row", "four"
    )
    said = refusal(tree, "--kind", "ptx", arch=86)
    assert "OLDEST_PTX does not say which PTX version sm_86 needs" in said
    tree.nvrtc = tree.room
    assert f"no libnvrtc.so.* in {tree.room}" in refusal(tree)
