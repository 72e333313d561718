# SPDX-License-Identifier: Apache-2.0
"""test_params.py - what the bytes that go to C hold. That the rows lie where C has
them is proven by the compiler (ci/checks/layout.py); here it is their values.
"""

import struct

import mambarun
import pytest
import torch
from causal_conv1d_cuda import causal_conv1d_bwd
from mambarun import _lib
from mambarun.ops import causal_conv1d, selective_scan
from mambarun.ops.causal_conv1d import BWD, FWD, UPDATE

ALL = [*selective_scan.PARAMS, *causal_conv1d.PARAMS]
CODES = {1: "B", 2: "H", 4: "i", 8: "q"}


def unpacked(params, data):
    """{path: value}."""
    return {
        path: struct.unpack_from("=" + CODES[size], data, at)[0]
        for path, at, size in params.fields()
    }


@pytest.mark.parametrize("params", ALL, ids=lambda params: params.op)
def test_fields_tile_the_struct(params):
    """Each begins where the last one ends; nothing is padding; the size is theirs."""
    end = 0
    for _, at, size in params.fields():
        assert at == end
        end = at + size
    assert end == params.size and end % 8 == 0


@pytest.mark.parametrize("params", ALL, ids=lambda params: params.op)
def test_every_value_is_in_its_field(params):
    shapes = [(i, i + 1, 5)[: 1 + i % 3] for i in range(2, 2 + len(params.tensors))]
    tensors = [torch.zeros(shape) for shape in shapes]
    tail = [name for name, type_ in params.rows if type_ == "I" and name != "reserved"]
    data = params.pack(
        tensors,
        *range(70, 70 + len(tail)),
        device_type=2,
        device_id=3,
        flags=1,
        stream=99,
        threads=7,
        workspace=(128, 64),
    )
    found = unpacked(params, data)
    assert found["call.struct_size"] == len(data) == params.size
    call = {
        name: value
        for name, value in found.items()
        if name.startswith("call.") and name != "call.struct_size"
    }
    assert list(call.values()) == [2, 3, 1, 99, 7, 0]
    for name, tensor in zip(params.tensors, tensors):
        assert found[f"{name}.data"] == tensor.data_ptr()
        assert found[f"{name}.ndim"] == tensor.dim()
        pad = [0] * (4 - tensor.dim())
        for what, values in (("shape", tensor.shape), ("stride", tensor.stride())):
            listed = [found[f"{name}.{what}[{i}]"] for i in range(4)]
            assert listed == [*values, *pad]
        assert (found[f"{name}.dtype_code"], found[f"{name}.dtype_bits"]) == (2, 32)
        assert found[f"{name}.reserved"] == 0
    assert [found[name] for name in tail] == list(range(70, 70 + len(tail)))
    if "workspace.data" in found:
        assert (found["workspace.data"], found["workspace.size"]) == (128, 64)


def test_packing_by_name_leaves_the_others_absent():
    x = torch.zeros(1, 2, 3)
    data = FWD.pack({"out": x}, 1)
    assert data == FWD.pack([None] * 5 + [x, None], 1)
    found = unpacked(FWD, data)
    assert found["out.data"] == x.data_ptr()
    assert not any(v for p, v in found.items() if p.startswith(("x.", "weight.")))


def test_an_empty_tensor_is_not_absent():
    found = unpacked(FWD, FWD.pack({"x": torch.zeros(2, 0, 3)}, 1))
    assert found["x.data"] != 0 and found["x.shape[0]"] == 2


@pytest.mark.parametrize("name", sorted(_lib.DTYPES))
def test_every_dtype_has_dlpacks_numbers(name):
    dtype = getattr(torch, name, None)
    if dtype is None:
        pytest.skip(f"this torch has no {name}")
    found = unpacked(FWD, FWD.pack({"x": torch.zeros(3, dtype=dtype)}, 1))
    code, bits = _lib.DTYPES[name]
    assert (found["x.dtype_code"], found["x.dtype_bits"]) == (code, bits)
    assert bits == 8 * torch.zeros(1, dtype=dtype).element_size()


def test_views_are_remembered_and_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(_lib, "_views", {})
    monkeypatch.setattr(_lib, "_MOST_VIEWS", 5)
    for n in range(1, 20):
        found = unpacked(FWD, FWD.pack({"x": torch.zeros(n, 3)}, 1))
        assert found["x.shape[0]"] == n and 1 <= len(_lib._views) <= 5


def test_what_may_be_lazy_is_not_remembered(monkeypatch):
    monkeypatch.setattr(_lib, "_views", {})
    FWD.pack({"x": torch.zeros(2, 3, dtype=torch.complex64)}, 1)
    FWD.pack({"x": torch.zeros(2, 4)[:, ::2]}, 1)
    assert _lib._views == {}


# ---- how a call runs --------------------------------------------------------------


class OnGpu:
    """What a call reads of a CUDA tensor, for machines that have none."""

    shape, dtype, device = (2, 4, 1), torch.float32, torch.device("cuda:1")

    def __getattr__(self, name):
        return getattr(torch.zeros(self.shape), name)

    def stride(self):
        return (4, 1, 1)

    def get_device(self):
        return 1

    def data_ptr(self):
        return 4096


def test_a_gpu_call_carries_device_and_stream(monkeypatch):
    packed, asked = [], []
    monkeypatch.setattr(_lib, "torch", torch)
    monkeypatch.setattr(UPDATE, "_entry", lambda data: packed.append(data) or 0)
    monkeypatch.setattr(
        torch._C,
        "_cuda_getCurrentRawStream",
        lambda device: asked.append(device) or 0xABC0,
        raising=False,
    )
    UPDATE([OnGpu(), OnGpu(), OnGpu(), None, None, None, OnGpu()], True)
    found = unpacked(UPDATE, packed[0])
    assert (found["call.device_type"], found["call.device_id"]) == (2, 1)
    assert found["call.stream"] == 0xABC0 and asked == [1]
    assert found["x.data"] == 4096 and found["bias.data"] == 0


def test_tensors_of_cpu_and_gpu_do_not_mix(monkeypatch):
    monkeypatch.setattr(
        torch._C, "_cuda_getCurrentRawStream", lambda device: 0, raising=False
    )
    cpu, gpu = torch.zeros(2, 4, 1), OnGpu()
    with pytest.raises(mambarun.ArgumentError) as caught:
        UPDATE([gpu, cpu, gpu, None, None, None, gpu], True)
    assert str(caught.value).startswith("Expected conv_state.is_cuda() to be true, ")
    with pytest.raises(mambarun.ArgumentError) as caught:
        UPDATE([cpu, gpu, cpu, None, None, None, cpu], True)
    assert str(caught.value) == (
        "Expected all tensors to be on the same device: conv_state is on cuda:1, the "
        "first tensor is on cpu"
    )


@pytest.mark.parametrize(
    "variable, torchs, flag",
    [
        (None, False, 0),
        (None, True, 1),
        ("1", False, 1),
        ("0", True, 0),
        ("1x", False, 1),
        ("yes", True, 1),
        ("yes", False, 0),
        ("", True, 1),
    ],
)
def test_determinism_is_asked_for_as_upstream_does(monkeypatch, variable, torchs, flag):
    packed = []
    monkeypatch.delenv("CAUSAL_CONV1D_DETERMINISTIC", raising=False)
    if variable is not None:
        monkeypatch.setenv("CAUSAL_CONV1D_DETERMINISTIC", variable)
    x, weight = torch.ones(1, 4, 4), torch.ones(4, 2)
    causal_conv1d_bwd(x, weight, None, x, None, True)
    monkeypatch.setattr(BWD, "_entry", lambda data: packed.append(data) or 0)
    torch.use_deterministic_algorithms(torchs)
    try:
        causal_conv1d_bwd(x, weight, None, x, None, True)
    finally:
        torch.use_deterministic_algorithms(False)
    assert unpacked(BWD, packed[0])["call.flags"] == flag


def test_the_workspace_is_as_large_as_asked_and_aligned(monkeypatch):
    packed = []
    x, weight = torch.ones(2, 70, 300), torch.ones(70, 4)
    causal_conv1d_bwd(x, weight, None, x, None, True)
    needed = BWD._needed
    monkeypatch.setattr(BWD, "_entry", lambda data: packed.append(data) or 0)
    causal_conv1d_bwd(x, weight, None, x, None, True)
    found = unpacked(BWD, packed[0])
    assert found["workspace.size"] == needed(packed[0]) > 0
    assert found["workspace.data"] % _lib.ALIGNMENT == 0
