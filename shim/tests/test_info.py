# SPDX-License-Identifier: Apache-2.0
"""test_info.py - version, info and preload."""

import json
import re
from pathlib import Path

import mambarun
import pytest
from mambarun import _info

ROOT = Path(__file__).resolve().parents[2]


def test_the_version_is_the_librarys():
    number = mambarun.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", number)
    header = ROOT / "libmambarun" / "mambarun.h"
    assert f'#define MBR_VERSION_STRING "{number}"' in header.read_text()


def test_info_is_plain_and_complete():
    facts = mambarun.info()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["version"] == mambarun.__version__
    assert Path(facts["library"]).name == "libmambarun.so"
    assert facts["cpu"]["count"] >= 1 and facts["stamp"]
    names = [variant["name"] for variant in facts["variants"]]
    assert names[:3] == ["cpu_avx512", "cpu_avx2", "cpu_scalar"]
    assert facts["variants"][2]["usable"] is True
    assert all(
        v["reason"] and v["mode"] in ("cpu", "cubin", "ptx") for v in facts["variants"]
    )
    assert not any(v["usable"] for v in facts["variants"] if v["mode"] != "cpu")
    assert [m["name"] for m in facts["modules"]] == list(mambarun.PROMISED)
    assert facts["cuda_driver"]


def test_info_shows_the_environment(monkeypatch):
    folder = str(Path(mambarun.info()["library"]).parent)
    for name in _info.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MAMBARUN_TRACE", "0")
    monkeypatch.setenv("MAMBARUN_PATH", folder)
    assert set(mambarun.info()["environment"]) == {"MAMBARUN_TRACE", "MAMBARUN_PATH"}


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_preload_names_the_variant_in_use(device):
    name = mambarun.preload(device)
    assert name.startswith("cpu_") and mambarun.info()["cpu_variant"] == name
    builds = {v["name"]: v["build"] for v in mambarun.info()["variants"]}
    assert [n for n, build in builds.items() if build] == [name]
    assert re.match(r"\w+ \d+\.\d+.* -O", builds[name]), "compiler, version, flags"
    assert mambarun.preload() == name


def test_preload_takes_devices_of_torch():
    torch = pytest.importorskip("torch")
    assert mambarun.preload(torch.device("cpu")) == mambarun.preload()


@pytest.mark.parametrize("device", ["mps", "cuda:x", "", "-1", -1, None])
def test_preload_refuses_other_devices(device):
    with pytest.raises(ValueError) as caught:
        mambarun.preload(device)
    assert repr(device) in str(caught.value)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", 0])
def test_preload_of_a_gpu_says_why_not(run, device):
    """Where there is one, it is hidden."""
    done = run(
        "import mambarun\n"
        f"try: mambarun.preload({device!r})\n"
        "except RuntimeError as error: print(type(error).__name__); print(error)",
        CUDA_VISIBLE_DEVICES="",
    )
    first, text = done.stdout.split("\n", 1)
    assert first == "CudaError"
    assert "run: python -m mambarun --explain MR1" in text


def test_nothing_runs_before_the_first_call(run):
    code = "import mambarun; print(mambarun.info()['cpu_variant'])"
    assert run(code).stdout == "None\n"


def test_a_forced_variant_is_used(run):
    code = "import mambarun; print(mambarun.preload())"
    assert run(code, MAMBARUN_VARIANT="cpu_scalar").stdout == "cpu_scalar\n"
