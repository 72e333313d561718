# SPDX-License-Identifier: Apache-2.0
"""test_refusals.py - what is refused, by which exception, in which words: upstream's
first, then which value it was. Refusals made in C are tested in C; here it is shown
that they arrive.
"""

import causal_conv1d_cuda as conv
import mambarun
import pytest
import selective_scan_cuda as plain
import selective_scan_cuda_core as core
import selective_scan_cuda_ndstate as ndstate
import selective_scan_cuda_nrow as nrow
import selective_scan_cuda_oflex as oflex
import torch
from mambarun import _lib
from mambarun.ops.selective_scan import FWD

BATCH, DIM, SEQLEN, STATES = 2, 6, 7, 4
IMPROVED = (
    "to be true, but got false.  (Could this error message be improved?  If so, please "
    "report an enhancement request to PyTorch.)"
)


def scan(**changed):
    """u, delta, A, B, C, D, z, delta_bias with some replaced."""
    values = {
        "u": torch.randn(BATCH, DIM, SEQLEN),
        "delta": torch.rand(BATCH, DIM, SEQLEN),
        "A": -torch.rand(DIM, STATES),
        "B": torch.randn(BATCH, 1, STATES, SEQLEN),
        "C": torch.randn(BATCH, 1, STATES, SEQLEN),
        "D": None,
        "z": None,
        "delta_bias": None,
    }
    values.update(changed)
    return list(values.values())


def vmamba(**changed):
    *first, _, delta_bias = scan(**changed)
    return [*first, delta_bias]


def refused(function, *arguments):
    with pytest.raises(mambarun.ArgumentError) as caught:
        function(*arguments)
    assert isinstance(caught.value, RuntimeError)
    return str(caught.value)


# ---- tensors that no call can pass ------------------------------------------------


def test_five_dimensions():
    text = refused(plain.fwd, *scan(B=torch.zeros(1, 1, 1, 1, 1)), True)
    assert text == "B has too many dimensions: B.ndim is 5, at most 4"


@pytest.mark.parametrize(
    "make", [torch.Tensor.to_sparse, torch.Tensor.to_sparse_csr, torch.Tensor.to_mkldnn]
)
def test_other_layouts(make):
    text = refused(plain.fwd, *scan(A=make(-torch.rand(DIM, STATES))), True)
    assert text.startswith("A must be a strided tensor: A.layout is torch.")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_quantized():
    D = torch.quantize_per_tensor(torch.rand(DIM), 0.1, 0, torch.quint8)
    text = refused(plain.fwd, *scan(D=D), True)
    assert text == "D must be a plain tensor: D.dtype is torch.quint8"


def test_meta_is_no_device_to_run_on():
    u = torch.empty(BATCH, DIM, SEQLEN, device="meta")
    text = refused(plain.fwd, *scan(u=u, delta=u), True)
    assert text == (
        f"Expected u.is_cuda() {IMPROVED}: u is on meta, mambarun runs on cuda and cpu"
    )


@pytest.mark.parametrize("seqlen", [0, SEQLEN])
def test_mixed_devices_are_named(seqlen):
    B = torch.empty(BATCH, 1, STATES, seqlen, device="meta")
    text = refused(plain.fwd, *scan(B=B), True)
    assert text == (
        "Expected all tensors to be on the same device: B is on meta, the first tensor "
        "is on cpu"
    )


def test_a_cpu_tensor_among_gpu_tensors_gets_upstreams_words():
    text = _lib._trouble("B", torch.zeros(1), torch.device("cuda:0"))
    assert text == (
        f"Expected B.is_cuda() {IMPROVED}: B is on cpu, the first tensor is on cuda:0"
    )


def test_a_lazy_conjugate_is_not_read_as_if_it_were_resolved():
    A = torch.complex(-torch.rand(DIM, STATES), torch.rand(DIM, STATES))
    B = torch.randn(BATCH, 1, STATES, 2 * SEQLEN)
    text = refused(plain.fwd, *scan(A=A.conj(), B=B, C=B), True)
    assert text.startswith("A is a lazily computed view: A.is_conj() is True")
    assert "A.resolve_conj()" in text
    plain.fwd(*scan(A=A.conj().resolve_conj(), B=B, C=B), True)


def test_a_lazy_negative_is_not_read_as_if_it_were_resolved():
    D = torch.randn(DIM, dtype=torch.complex64).conj().imag
    text = refused(plain.fwd, *scan(D=D), True)
    assert text.startswith("D is a lazily computed view: D.is_neg() is True")
    plain.fwd(*scan(D=D.resolve_neg()), True)


def test_a_tensor_without_memory():
    zero = torch._efficientzerotensor(DIM)
    text = refused(plain.fwd, *scan(D=zero), True)
    assert text.startswith("D has no memory")


def test_packing_by_name_refuses_unknown_names():
    with pytest.raises(KeyError) as caught:
        FWD.pack({"v": torch.zeros(1)}, 1)
    assert "selective_scan_fwd has no tensor v" in str(caught.value)


# ---- what only one module refuses -------------------------------------------------


@pytest.mark.parametrize(
    "function, arguments, tail",
    [
        (plain.fwd, scan, (True,)),
        (core.fwd, vmamba, (True,)),
        (core.fwd, vmamba, (True, 1)),
        (nrow.fwd, vmamba, (True, 1)),
    ],
)
def test_grouped_delta_is_oflexs_alone(function, arguments, tail):
    delta = torch.rand(BATCH, DIM // 2, SEQLEN)
    text = refused(function, *arguments(delta=delta), *tail)
    assert text.startswith("delta must have shape (batch_size, dim, seqlen): ")
    assert "(2, 3, 7)" in text and "(2, 6, 7)" in text
    oflex.fwd(*vmamba(delta=delta), True, 1, True)


def test_grouped_delta_is_refused_in_ndstate():
    delta = torch.rand(BATCH, DIM // 2, SEQLEN)
    text = refused(ndstate.fwd, *vmamba(delta=delta, **one_state()), True, 1)
    assert text.startswith("delta must have shape (batch_size, dim, seqlen): ")


def one_state():
    one = torch.randn(BATCH, 1, SEQLEN)
    return {"A": -torch.rand(DIM), "B": one, "C": one}


@pytest.mark.parametrize(
    "function, arguments, tail",
    [
        (plain.bwd, scan, (None, None, None, True, False)),
        (core.bwd, vmamba, (None, True)),
        (nrow.bwd, vmamba, (None, True, 1)),
    ],
)
def test_an_fp32_gradient_of_16_bit_is_oflexs_alone(function, arguments, tail):
    half = {name: t.half() for name, t in zip("u delta B C".split(), some())}
    dout = torch.randn(BATCH, DIM, SEQLEN)
    text = refused(function, *arguments(**half), dout, *tail)
    assert text.startswith(f"Expected dout.scalar_type() == input_type {IMPROVED}: ")
    assert "torch.float32" in text and "torch.float16" in text
    oflex.bwd(*vmamba(**half), dout, None, True, 1)


def some():
    u, delta, _, B, C = scan()[:5]
    return u, delta, B, C


VMAMBA = [
    (oflex.fwd, (True, 1, True)),
    (core.fwd, (True, 1)),
    (nrow.fwd, (True, 1)),
    (oflex.bwd, (torch.randn(BATCH, DIM, SEQLEN), None, True, 1)),
    (core.bwd, (torch.randn(BATCH, DIM, SEQLEN), None, True, 1)),
    (nrow.bwd, (torch.randn(BATCH, DIM, SEQLEN), None, True, 1)),
]


@pytest.mark.parametrize("function, tail", VMAMBA)
@pytest.mark.parametrize("name", ["B", "C"])
def test_vmamba_takes_no_constant_matrices(function, tail, name):
    text = refused(function, *vmamba(**{name: torch.randn(DIM, STATES)}), *tail)
    wanted = f"{name} must have shape (batch_size, n_groups, dstate, seqlen): "
    assert text == wanted + f"{name}.ndim is 2"


@pytest.mark.parametrize("function, tail", VMAMBA)
def test_vmamba_takes_no_complex_matrices(function, tail):
    A = torch.randn(DIM, STATES, dtype=torch.complex64)
    text = refused(function, *vmamba(A=A), *tail)
    assert text == (
        f"Expected weight_type == at::ScalarType::Float {IMPROVED}: A.dtype is "
        "torch.complex64"
    )


def test_nrow_wants_whole_rows():
    text = refused(nrow.fwd, *vmamba(), True, 4)
    assert text == (
        "dims should be dividable by n_groups * nrows: dim is 6, n_groups is 1, nrows "
        "is 4"
    )
    assert "nrows is 0" in refused(nrow.fwd, *vmamba(), True, 0)
    assert "nrows is -1" in refused(nrow.fwd, *vmamba(), True, -1)
    dout = torch.zeros(BATCH, DIM, SEQLEN)
    assert "nrows is 4" in refused(nrow.bwd, *vmamba(), dout, None, True, 4)


def test_nrow_wants_fewer_states():
    B = torch.zeros(BATCH, 1, 100, SEQLEN)
    arguments = vmamba(A=-torch.rand(DIM, 100), B=B, C=B)
    text = refused(nrow.fwd, *arguments, True, 3)
    assert text.startswith("selective_scan only supports state dimension <= 256: ")
    assert "A.size(1) is 100, with nrows 3 at most 85" in text
    nrow.fwd(*arguments, True, 2)


@pytest.mark.parametrize(
    "name, value, text",
    [
        ("A", torch.zeros(DIM, 1), "A must have shape (dim): A.ndim is 2"),
        (
            "B",
            torch.zeros(BATCH, 1, 1, SEQLEN),
            "B must have shape (batch_size, n_groups, seqlen): B.ndim is 4",
        ),
        (
            "C",
            torch.zeros(BATCH, 1, 1, SEQLEN),
            "C must have shape (batch_size, n_groups, seqlen): C.ndim is 4",
        ),
    ],
)
def test_ndstate_wants_no_axis_of_states(name, value, text):
    arguments = vmamba(**{**one_state(), name: value})
    assert refused(ndstate.fwd, *arguments, True, 1) == text
    dout = torch.zeros(BATCH, DIM, SEQLEN)
    assert refused(ndstate.bwd, *arguments, dout, None, True, 1) == text


def test_the_first_update_wants_two_axes_and_the_width():
    weight = torch.zeros(DIM, 4)
    update = conv.causal_conv1d_update
    text = refused(
        update, torch.zeros(2, DIM, 1), torch.zeros(2, DIM, 4), weight, None, True
    )
    assert text == "x must have shape (batch_size, dim): x.ndim is 3"
    text = refused(
        update, torch.zeros(2, DIM), torch.zeros(2, DIM, 5), weight, None, True
    )
    assert text == (
        "conv_state must have shape (batch_size, dim, width): conv_state.shape[2] is "
        "5, width is 4"
    )


# ---- refusals of the library arrive -----------------------------------------------


@pytest.mark.parametrize(
    "changed, text",
    [
        ({"u": torch.zeros(BATCH, DIM)}, "delta must have shape"),
        (
            {"B": torch.randn(BATCH, 1, STATES, 3)},
            "B must have shape (batch_size, n_groups, dstate, !is_complex ? seqlen : "
            "seqlen * 2)",
        ),
        ({"D": torch.zeros(DIM + 1)}, "D must have shape (dim)"),
    ],
)
def test_shapes(changed, text):
    assert refused(plain.fwd, *scan(**changed), True).startswith(text)


@pytest.mark.parametrize("name", ["u", "delta", "A", "B", "C", "D", "z", "delta_bias"])
def test_dtypes(name):
    position = "u delta A B C D z delta_bias".split().index(name)
    arguments = scan(
        D=torch.zeros(DIM),
        z=torch.zeros(BATCH, DIM, SEQLEN),
        delta_bias=torch.zeros(DIM),
    )
    for dtype in (torch.float64, torch.int64, torch.uint8, torch.bool):
        arguments[position] = arguments[position].to(dtype)
        assert refused(plain.fwd, *arguments, True).startswith("Expected ")


def test_both_without_axes_is_refused_for_u():
    flat = torch.zeros(BATCH, DIM)
    text = refused(plain.fwd, *scan(u=flat, delta=flat), True)
    assert text.startswith("u must have shape (batch_size, dim, seqlen)")


def test_too_many_states():
    A, B = -torch.rand(DIM, 257), torch.zeros(BATCH, 1, 257, SEQLEN)
    text = refused(plain.fwd, *scan(A=A, B=B, C=B), True)
    assert text.startswith("selective_scan only supports state dimension <= 256")


def test_an_fp32_out_of_16_bit_is_no_out_of_selective_scan_cudas():
    half = {name: t.half() for name, t in zip("u delta B C".split(), some())}
    z = torch.zeros(BATCH, DIM, SEQLEN).half()
    tail = (z, None, z.float(), None, True, False)
    text = refused(plain.bwd, *scan(z=z, **half), *tail)
    assert text.startswith(f"Expected out.scalar_type() == input_type {IMPROVED}: ")


def test_z_needs_out():
    z = torch.zeros(BATCH, DIM, SEQLEN)
    tail = (torch.zeros(BATCH, DIM, SEQLEN), None, None, None, True, True)
    text = refused(plain.bwd, *scan(z=z), *tail)
    assert text.startswith(f"Expected out_.has_value() {IMPROVED}")


@pytest.mark.parametrize("axis", [0, 1])
def test_an_empty_batch_or_dim(axis):
    shape = [BATCH, DIM, SEQLEN]
    shape[axis] = 0
    u = torch.zeros(shape)
    A, B = torch.zeros(shape[1], STATES), torch.zeros(shape[0], 1, STATES, SEQLEN)
    text = refused(plain.fwd, *scan(u=u, delta=u, A=A, B=B, C=B), True)
    assert text.startswith("CUDA error: invalid configuration argument")


def test_a_convolution_too_wide():
    x = torch.zeros(1, 4, 5)
    text = refused(conv.causal_conv1d_fwd, x, torch.zeros(4, 5), None, True)
    assert text.startswith("causal_conv1d only supports width between 2 and 4")
    text = refused(conv.causal_conv1d_bwd, x, torch.zeros(4, 5), None, x, None, True)
    assert text.startswith("causal_conv1d only supports width between 2 and 4")


# ---- statuses ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "status, class_, bases",
    [
        (1, "ArgumentError", (RuntimeError,)),
        (2, "UnsupportedError", (RuntimeError, NotImplementedError)),
        (3, "NoVariantError", (RuntimeError,)),
        (4, "CudaError", (RuntimeError,)),
        (5, "InternalError", (RuntimeError,)),
        (99, "InternalError", (RuntimeError,)),
    ],
)
def test_each_status_has_a_class(status, class_, bases):
    with pytest.raises(getattr(mambarun, class_)) as caught:
        _lib.check(status)
    assert isinstance(caught.value, (mambarun.Error, *bases))
    assert all(isinstance(caught.value, base) for base in bases)
    if class_ != "UnsupportedError":
        assert not isinstance(caught.value, NotImplementedError)


def test_status_ok_raises_nothing():
    assert _lib.check(0) is None


def test_the_message_is_of_the_failing_thread(run):
    """Two threads fail at once, each gets its own sentence."""
    import threading

    texts = {}

    def fail(name, value):
        for _ in range(200):
            text = refused(plain.fwd, *scan(**{name: value}), True)
            texts.setdefault(name, set()).add(text.split()[0])

    threads = [
        threading.Thread(target=fail, args=("D", torch.zeros(DIM + 1))),
        threading.Thread(target=fail, args=("delta_bias", torch.zeros(DIM + 1))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == {"D": {"D"}, "delta_bias": {"delta_bias"}}


def test_no_variant_names_the_tensor_and_lists_them_all(run):
    done = run(
        "import torch, selective_scan_cuda as s\n"
        "u = torch.zeros(1, 2, 3); A = torch.zeros(2, 1); B = torch.zeros(1, 1, 1, 3)\n"
        "try: s.fwd(u, u, A, B, B, None, None, None, True)\n"
        "except RuntimeError as e: print(type(e).__name__); print(e)",
        MAMBARUN_VARIANT="cpu_typo",
    )
    assert done.stdout.startswith(
        "NoVariantError\nu is on cpu: no variant can run selective_scan_fwd on cpu: "
    )
    assert "cpu_typo" in done.stdout and "cpu_scalar" in done.stdout
    assert "run: python -m mambarun --explain MR" in done.stdout
