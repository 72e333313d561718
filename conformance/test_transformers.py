# SPDX-License-Identifier: Apache-2.0
"""transformers' MambaForCausalLM, unchanged and with random weights, on the device of
--variant: its fast path is taken, through mamba_ssm and causal_conv1d into the stand-in
modules, and gives what its slow path does. Without the packages: run ci/callers.sh."""

from __future__ import annotations

import inspect
from collections import Counter
from typing import Any, Iterator

import pytest
import torch

from .conftest import NOT_SUPPORTED
from .test_upstream import upstream

upstream("mamba_ssm")
upstream("causal_conv1d")
modeling = upstream("transformers.models.mamba.modeling_mamba")

import causal_conv1d_cuda  # noqa: E402
import selective_scan_cuda  # noqa: E402

#: what transformers takes from the two packages where it finds them
FAST = (
    "mamba_inner_fn",
    "mamba_selective_scan",
    "mamba_selective_state_update",
    "causal_conv1d_fn",
    "causal_conv1d_update",
)
if not hasattr(modeling, "mamba_selective_scan"):
    pytest.skip(
        NOT_SUPPORTED + "a transformers before 5.5, whose fast path is another",
        allow_module_level=True,
    )

#: share of the largest element that 16-bit arithmetic in another order may differ by
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 4e-2}
LAYERS, TOKENS = 3, 40


@pytest.fixture(autouse=True)
def on_device(candidate: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    torch.set_default_device(candidate.device)
    yield candidate.device
    torch.set_default_device(None)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each function of our modules was called."""
    found: Counter[str] = Counter()
    for module in (selective_scan_cuda, causal_conv1d_cuda):
        for name, function in inspect.getmembers(module, callable):

            def counted(*args: Any, _name: str = name, _call: Any = function) -> Any:
                found[_name] += 1
                return _call(*args)

            if not name.startswith("_"):
                monkeypatch.setattr(module, name, counted)
    return found


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Any:
    """slow(call): its result with transformers' own functions in torch."""

    def run(call: Any) -> Any:
        with monkeypatch.context() as patch:
            for name in FAST:
                own = inspect.unwrap(getattr(modeling, name))
                patch.setattr(modeling, name, own)
            return call()

    return run


def model(dtype: torch.dtype) -> Any:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(
        vocab_size=128, hidden_size=64, state_size=16, num_hidden_layers=LAYERS
    )
    return MambaForCausalLM(config).to(torch.get_default_device(), dtype)


def tokens() -> torch.Tensor:
    return torch.randint(0, 128, (2, TOKENS))


def near(got: torch.Tensor, want: torch.Tensor, dtype: torch.dtype, name: str) -> None:
    largest = float(want.abs().max())
    worst = float((got.float() - want.float()).abs().max())
    assert 0 < largest < float("inf"), name
    assert worst <= TOLERANCE[dtype] * largest, f"{name}: {worst} of {largest}"


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_training_takes_the_fast_path(
    dtype: torch.dtype, calls: Counter[str], slow: Any
) -> None:
    net, ids = model(dtype).train(), tokens()

    def step() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        net.zero_grad()
        out = net(input_ids=ids, labels=ids, use_cache=False)
        out.loss.backward()
        return out.logits.detach(), {
            name: p.grad.clone() for name, p in net.named_parameters()
        }

    logits, gradients = step()
    # mamba_inner_fn computes the convolution again on the way back.
    assert calls == {
        "fwd": LAYERS,
        "bwd": LAYERS,
        "causal_conv1d_fwd": 2 * LAYERS,
        "causal_conv1d_bwd": LAYERS,
    }
    wanted, wanted_gradients = slow(step)
    assert sum(calls.values()) == 5 * LAYERS  # and no more
    near(logits, wanted, dtype, "logits")
    for name, gradient in gradients.items():
        near(gradient, wanted_gradients[name], dtype, "gradient of " + name)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_a_whole_prompt_takes_the_fast_path(
    dtype: torch.dtype, calls: Counter[str], slow: Any
) -> None:
    net, ids = model(dtype).eval(), tokens()

    def prompt() -> torch.Tensor:
        with torch.no_grad():
            return net(input_ids=ids, use_cache=True).logits

    got = prompt()
    assert calls == {"fwd": LAYERS, "causal_conv1d_fwd": LAYERS}
    near(got, slow(prompt), dtype, "logits")
    assert sum(calls.values()) == 2 * LAYERS


def test_generation_takes_the_fast_path(
    on_device: str, calls: Counter[str], slow: Any
) -> None:
    if on_device == "cpu":
        pytest.skip(NOT_SUPPORTED + "their selective_state_update is a triton kernel")
    net, ids, new = model(torch.float32).eval(), tokens(), 12

    def generate() -> Any:
        return net.generate(
            ids,
            max_new_tokens=new,
            min_new_tokens=new,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )

    got = generate()
    assert calls == {
        "fwd": LAYERS,
        "causal_conv1d_fwd": LAYERS,
        "causal_conv1d_update": (new - 1) * LAYERS,
    }
    want = slow(generate)
    assert torch.equal(got.sequences, want.sequences)
    for step, (one, other) in enumerate(zip(got.logits, want.logits)):
        near(one, other, torch.float32, f"logits of token {step}")
