# SPDX-License-Identifier: Apache-2.0
"""test_compile.py - a model under torch.compile gives what it gives without, forward
and backward, and the compiler never looks into this package.
"""

import pytest
import torch

compiled = pytest.mark.skipif(
    not hasattr(torch, "compile"), reason="this torch has no torch.compile"
)

# Prints what differs from eager, and which of our frames the compiler has taken up.
SCRIPT = """
{first}
{second}
import sys, torch
assert ("torch._dynamo" in sys.modules) is False

class Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, A, B, D):
        out, x = selective_scan_cuda_oflex.fwd(u, u, A, B, B, D, None, True, 1, True)
        ctx.save_for_backward(u, A, B, D, x)
        return out

    @staticmethod
    def backward(ctx, dout):
        u, A, B, D, x = ctx.saved_tensors
        du, ddelta, dA, dB, dC, dD, _ = selective_scan_cuda_oflex.bwd(
            u, u, A, B, B, D, None, dout.contiguous(), x, True, 1)
        return du + ddelta, dA, dB + dC, dD

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(9, 9)
        self.A = torch.nn.Parameter(-torch.rand(4, 3))
        self.D = torch.nn.Parameter(torch.rand(4))

    def forward(self, u):
        u = self.linear(u).relu() + 0.1
        y = Scan.apply(u, self.A, u[:, :3].unsqueeze(1), self.D)
        with torch.no_grad():  # a call that no autograd function hides
            weight = torch.ones(4, 2)
            z = causal_conv1d_cuda.causal_conv1d_fwd(u * 2, weight, None, True)
        return ((y * 2).tanh() + z).sum()

def results(call, net):
    found = []
    for seed in range(3):
        torch.manual_seed(seed)
        net.zero_grad()
        loss = call(torch.randn(2, 4, 9))
        loss.backward()
        found += [loss.detach()] + [p.grad.clone() for p in net.parameters()]
    return found

plain, taken = Net(), Net()
call = torch.compile(taken, backend="{backend}")
for a, b in zip(results(plain, plain), results(call, taken)):
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
from torch._dynamo import convert_frame
codes = [reference() for reference in convert_frame.input_codes.seen]
files = [(c.co_filename, c.co_name) for c in codes if c is not None]
assert any(name == "forward" for _, name in files), files
print([name for file, name in files if "/mambarun/" in file])
"""
OURS = "import selective_scan_cuda_oflex, causal_conv1d_cuda"


@compiled
@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_a_model_gives_what_it_gives_without(run, backend):
    done = run(
        SCRIPT.format(first="import torch", second=OURS, backend=backend), check=False
    )
    if backend == "inductor" and "InvalidCxxCompiler" in done.stderr:
        pytest.skip("inductor finds no C++ compiler here")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


@compiled
def test_torch_after_us_and_no_call_before_the_compiler(run):
    """Then the compiler meets our public functions before they could hide what they
    call. It breaks the graph at them; at most it takes up their own two lines."""
    done = run(SCRIPT.format(first=OURS, second="import torch", backend="aot_eager"))
    names = {"oflex_fwd", "oflex_bwd", "causal_conv1d_fwd"}
    assert set(eval(done.stdout)) <= names


@compiled
def test_a_full_graph_is_refused_as_at_upstreams_builtins(run):
    done = run(
        "import torch, causal_conv1d_cuda\n"
        "def f(x): return causal_conv1d_cuda.causal_conv1d_fwd(\n"
        "    x, torch.ones(4, 2), None, True)\n"
        "try: torch.compile(f, fullgraph=True, backend='eager')(torch.ones(1, 4, 4))\n"
        "except torch._dynamo.exc.Unsupported as e: print('libmambarun' in str(e))"
    )
    assert done.stdout == "True\n"


def test_every_public_function_is_marked():
    from mambarun.ops import causal_conv1d, selective_scan

    for module in (causal_conv1d, selective_scan):
        functions = [f for n, f in vars(module).items() if n.endswith(("fwd", "bwd"))]
        assert len(functions) >= 2
        assert all(f._torchdynamo_disable for f in functions)
    assert causal_conv1d.causal_conv1d_update._torchdynamo_disable


def test_marking_without_torch_does_nothing(monkeypatch):
    import sys

    from mambarun import _dynamo

    monkeypatch.delitem(sys.modules, "torch")
    assert _dynamo._skipper() is None
    _dynamo.skip_frames()


def test_old_and_new_torch_are_asked_in_their_own_ways():
    """torch 2.0 has skip_code, 2.7 has strategies, torch 1 has neither."""
    import sys
    from types import SimpleNamespace as Fake
    from unittest import mock

    from mambarun import _dynamo

    def with_frames(**frames):
        compiler = Fake(eval_frame=Fake(**frames)) if frames else None
        fake = Fake(_C=Fake(_dynamo=compiler))
        with mock.patch.dict(sys.modules, torch=fake):
            return _dynamo._skipper()

    seen = []
    assert with_frames() is None
    with_frames(skip_code=seen.append)("code")
    assert seen == ["code"]
    with_frames(
        set_code_exec_strategy=lambda *arguments: seen.append(arguments),
        _FrameAction=Fake(SKIP=1),
        _FrameExecStrategy=lambda *actions: actions,
    )("code")
    assert seen[1] == ("code", (1, 1))
