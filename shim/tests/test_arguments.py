# SPDX-License-Identifier: Apache-2.0
"""test_arguments.py - arguments are taken and refused as pybind11 does: by position,
with every count upstream ever had, and one TypeError for all else.
"""

import causal_conv1d_cuda as conv
import pytest
import selective_scan_cuda as plain
import selective_scan_cuda_core as core
import selective_scan_cuda_ndstate as ndstate
import selective_scan_cuda_nrow as nrow
import selective_scan_cuda_oflex as oflex
import torch
from mambarun.ops import causal_conv1d, selective_scan

FUNCTIONS = [  # function, its name in texts, the counts that upstream had
    (plain.fwd, "fwd", {9}),
    (plain.bwd, "bwd", {14}),
    (oflex.fwd, "fwd", {10}),
    (oflex.bwd, "bwd", {11}),
    (core.fwd, "fwd", {8, 9}),
    (core.bwd, "bwd", {10, 11}),
    (nrow.fwd, "fwd", {9}),
    (nrow.bwd, "bwd", {11}),
    (ndstate.fwd, "fwd", {9}),
    (ndstate.bwd, "bwd", {11}),
    (conv.causal_conv1d_fwd, "causal_conv1d_fwd", {4, 5, 7, 8}),
    (conv.causal_conv1d_bwd, "causal_conv1d_bwd", {6, 7, 10, 12}),
    (conv.causal_conv1d_update, "causal_conv1d_update", {5, 6, 7, 8}),
]
each = pytest.mark.parametrize("function, name, counts", FUNCTIONS)


@each
def test_a_wrong_count_is_a_type_error_that_lists_the_right_ones(
    function, name, counts
):
    for count in set(range(17)) - counts:
        with pytest.raises(TypeError) as caught:
            function(*[torch.zeros(1)] * count)
        text = str(caught.value)
        assert text.startswith(
            f"{name}(): incompatible function arguments. The following argument types "
            "are supported:\n    1. (arg0: torch.Tensor, arg1: torch.Tensor, "
        )
        assert "\n\nInvoked with: " in text
        listed = ", ".join(map(str, sorted(counts)))
        assert f"{count} arguments given, {name} takes {listed}" in text


@each
def test_the_listed_signatures_are_numbered_and_have_those_counts(
    function, name, counts
):
    with pytest.raises(TypeError) as caught:
        function()
    listed, invoked = str(caught.value).split("supported:\n")[1].split("\n\n")
    lines = listed.splitlines()
    assert [line.split(".")[0].strip() for line in lines] == [
        str(i + 1) for i in range(len(lines))
    ]
    assert {line.count("arg") for line in lines} == counts
    assert invoked.startswith("Invoked with: \n")


def test_the_text_is_pybind11s():
    """As pybind11 writes it for upstream's fwd (contract.md 1.1)."""
    with pytest.raises(TypeError) as caught:
        plain.fwd(1, None)
    types = (
        "arg0: torch.Tensor, arg1: torch.Tensor, arg2: torch.Tensor, arg3: "
        "torch.Tensor, arg4: torch.Tensor, arg5: Optional[torch.Tensor], arg6: "
        "Optional[torch.Tensor], arg7: Optional[torch.Tensor], arg8: bool"
    )
    assert str(caught.value).startswith(
        "fwd(): incompatible function arguments. The following argument types are "
        f"supported:\n    1. ({types}) -> List[torch.Tensor]\n\n"
        "Invoked with: 1, None\n"
    )


@each
def test_keywords_are_refused(function, name, counts):
    with pytest.raises(TypeError) as caught:
        function(torch.zeros(1), arg1=torch.zeros(1))
    assert "incompatible function arguments" in str(caught.value)
    assert "; kwargs: arg1=tensor([0.])" in str(caught.value)
    assert "positional only" in str(caught.value)


def test_keywords_are_refused_beside_a_full_list():
    arguments = scan_arguments()
    with pytest.raises(TypeError):
        plain.fwd(*arguments, delta_softplus=True)


def scan_arguments():
    u = torch.randn(1, 2, 5)
    A, B = -torch.rand(2, 3), torch.randn(1, 1, 3, 5)
    return [u, u, A, B, B, None, None, None, True]


@pytest.mark.parametrize(
    "position, value",
    [(0, None), (2, "A"), (4, 1.0), (5, 0), (7, [1.0]), (8, "True"), (8, [True])],
)
def test_a_wrong_type_is_named(position, value):
    arguments = scan_arguments()
    arguments[position] = value
    with pytest.raises(TypeError) as caught:
        plain.fwd(*arguments)
    assert f"arg{position} (" in str(caught.value)
    assert f"not {type(value).__name__}" in str(caught.value)


def test_flags_are_whatever_has_a_truth_value():
    arguments = scan_arguments()
    on, off = (plain.fwd(*arguments[:8], flag)[0] for flag in (True, False))
    assert not torch.equal(on, off)
    for flag in (1, 2.5, torch.tensor(True), torch.tensor(1)):
        assert torch.equal(plain.fwd(*arguments[:8], flag)[0], on), flag
    for flag in (0, None, 0.0, torch.tensor(False)):
        assert torch.equal(plain.fwd(*arguments[:8], flag)[0], off), flag


def test_numpy_flags_are_flags():
    numpy = pytest.importorskip("numpy")
    arguments = scan_arguments()
    assert torch.equal(
        plain.fwd(*arguments[:8], numpy.bool_(True))[0], plain.fwd(*arguments)[0]
    )


@pytest.mark.parametrize("nrows", [1.0, "1", None])
def test_nrows_has_to_be_an_int(nrows):
    u, delta, A, B, C, D, _, bias, softplus = scan_arguments()
    with pytest.raises(TypeError) as caught:
        core.fwd(u, delta, A, B, C, D, bias, softplus, nrows)
    assert "arg8 (nrows) must be int" in str(caught.value)


def test_nrows_may_be_a_bool():
    u, delta, A, B, C, D, _, bias, softplus = scan_arguments()
    found = core.fwd(u, delta, A, B, C, D, bias, softplus, True)
    assert torch.equal(found[0], core.fwd(u, delta, A, B, C, D, bias, softplus, 1)[0])


def test_the_arguments_of_core_do_not_fit_selective_scan_cuda():
    """A call seen in the wild: 9 arguments, of which number 7 is a bool."""
    u, delta, A, B, C, D, _, bias, softplus = scan_arguments()
    with pytest.raises(TypeError) as caught:
        plain.fwd(u, delta, A, B, C, D, bias, softplus, 1)
    assert "arg7 (delta_bias) must be Optional[torch.Tensor]" in str(caught.value)


def test_parameters_and_subclasses_are_tensors():
    class Mine(torch.Tensor):
        pass

    arguments = scan_arguments()
    expected = plain.fwd(*arguments)[0]
    arguments[2] = torch.nn.Parameter(arguments[2])
    assert torch.equal(plain.fwd(*arguments)[0], expected)
    arguments[3] = arguments[3].as_subclass(Mine)
    assert torch.equal(plain.fwd(*arguments)[0], expected)


@pytest.mark.parametrize("generation", [5, 6, 7, 8])
def test_an_update_without_three_axes_of_state_is_an_index_error(generation):
    x = torch.zeros(1, 4) if generation == 5 else torch.zeros(1, 4, 1)
    state, weight = torch.zeros(1, 4), torch.zeros(4, 4)
    more = {5: (), 6: (None,), 7: (None, None), 8: (None, None)}[generation]
    out = (torch.zeros(1, 4, 1),) if generation == 8 else ()
    with pytest.raises(IndexError):
        conv.causal_conv1d_update(x, state, weight, None, *out, True, *more)


@pytest.mark.parametrize("function", [plain.fwd, oflex.fwd, core.fwd, plain.bwd])
def test_an_A_of_one_axis_is_an_index_error(function):
    u, delta, A, B, C, D, z, bias, softplus = scan_arguments()
    A = A[:, 0].contiguous()
    tail = {
        plain.fwd: (None, None, True),
        oflex.fwd: (None, True, 1, True),
        core.fwd: (None, True, 1),
        plain.bwd: (None, None, u, None, None, None, True, False),
    }[function]
    with pytest.raises(IndexError):
        function(u, delta, A, B, C, D, *tail)


def test_the_modules_hold_the_functions_themselves():
    """No wrapper in between: the name in a stand-in is the function of the op."""
    assert plain.fwd is selective_scan.fwd and plain.bwd is selective_scan.bwd
    for module, prefix in (
        (oflex, "oflex"),
        (core, "core"),
        (nrow, "nrow"),
        (ndstate, "ndstate"),
    ):
        assert module.fwd is getattr(selective_scan, prefix + "_fwd")
        assert module.bwd is getattr(selective_scan, prefix + "_bwd")
    for name in ("causal_conv1d_fwd", "causal_conv1d_bwd", "causal_conv1d_update"):
        assert getattr(conv, name) is getattr(causal_conv1d, name)


@each
def test_every_function_documents_itself(function, name, counts):
    text = function.__doc__
    assert "position only" in text
    assert "(u, " in text or "(x, " in text
