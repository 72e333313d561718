# SPDX-License-Identifier: Apache-2.0
"""driver.py - MR101 to MR121: NVIDIA's driver, the GPUs, and which variant runs on
each. What needs the driver was asked by a child; what it saw is judged here.
"""

from __future__ import annotations

import os
import re

from . import host, tables
from .facts import api_text, capability_text, numbers
from .finding import ERROR, INFO, OK, SKIP, WARN, Finding, Headline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator

    from .facts import Facts
    from .machine import Machine

# Where libcuda.so.1 may lie without a loader looking there: only to explain.
DRIVER_FOLDERS = (
    "/usr/lib/{arch}-linux-gnu",
    "/usr/lib64",
    "/usr/lib/{arch}-linux-gnu/nvidia/current",
    "/usr/local/nvidia/lib64",
    "/usr/lib/wsl/lib",
    "/usr/lib/{arch}-linux-gnu/tegra",
    "/usr/lib/{arch}-linux-gnu/nvidia",
)
NODES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvidia-uvm")
PTX_COMPILER = "libnvidia-ptxjitcompiler.so.1"
DIED = "MR112"
NOT_OPENED = "no NVIDIA driver"  # how core/driver.c begins if nothing opens
# Answers of the driver that a code of its own explains; the others are MR112.
ANSWERS = ("MR102", "MR105", "MR106", "MR107", "MR109", "MR111")
EXCLUSIVE = {2: "prohibited", 3: "exclusive"}  # CU_DEVICE_ATTRIBUTE_COMPUTE_MODE


def check(facts: Facts) -> Iterator[Finding]:
    yield from _kernel_driver(facts)
    yield from _driver(facts)
    yield from _answer(facts)
    yield from _unversioned(facts)
    yield from _nodes(facts)
    yield from _gpus(facts)
    yield from _variants(facts)


def headlines(facts: Facts, findings: list[Finding]) -> Iterator[Headline]:
    release, api = kernel_release(facts), facts.api
    case = "works" if api and release else "api" if api else "none"
    if facts.probe.get("driver") is None:
        yield Headline("driver", "unknown", {}, SKIP)
    else:
        yield Headline("driver", case, {"release": release, "api": api_text(api)})
    gpus = facts.gpus
    if not gpus:
        yield Headline("gpu", "none", {}, SKIP)
        return
    first = gpus[0]
    values = {
        "count": len(gpus),
        "name": first["name"],
        "capability": capability_text(first["capability"]),
        "variant": chosen(first),
    }
    case = "one" if len(gpus) == 1 else "more"
    yield Headline("gpu", case if chosen(first) else "no_variant", values)


def chosen(gpu: dict[str, Any]) -> str | None:
    """The name of the variant that runs on a GPU."""
    return next((v["name"] for v in gpu["variants"] if v["usable"]), None)


def mode(gpu: dict[str, Any]) -> str | None:
    """ "cubin" or "ptx": how that variant's kernels get there."""
    return next((v["mode"] for v in gpu["variants"] if v["usable"]), None)


# ---- MR101 to MR109, MR111, MR112 -------------------------------------------------


def kernel_release(facts: Facts) -> str:
    """Release of the driver in the kernel, such as 535.104.12; "" if there is none."""
    text = facts.machine.text("/proc/driver/nvidia/version") or ""
    found = re.search(r"\s(\d{3}(?:\.\d+)+)\s", text)
    if found:
        return found[1]
    nvml = (facts.probe.get("nvml") or {}).get("driver", "")
    return nvml or (facts.machine.text("/sys/module/nvidia/version") or "").strip()


def _kernel_driver(facts: Facts) -> Iterator[Finding]:
    release = kernel_release(facts)
    if release:
        yield Finding("MR101", OK, "here", {"release": release})
    elif facts.api:
        yield Finding("MR101", INFO, "hidden", {"api": api_text(facts.api)})
    else:
        yield Finding("MR101", WARN, "none", {})


def _driver(facts: Facts) -> Iterator[Finding]:
    driver, nvml = facts.probe.get("driver"), facts.probe.get("nvml") or {}
    release = kernel_release(facts)
    if driver is None:
        yield Finding("MR102", SKIP, "unknown", {})
    elif driver["api"]:
        yield from _api(facts, driver)
    elif _opened(driver):
        cuda = facts.probe.get("cuda") or {}
        if cuda.get("code", "MR102") == "MR102":  # otherwise _answer has words for it
            evidence = (driver["path"] or "", cuda.get("error") or driver["why"])
            yield Finding("MR102", ERROR, "unfit", {}, tuple(filter(None, evidence)))
    elif nvml.get("driver"):
        yield Finding("MR103", ERROR, "compute", {"release": release}, (driver["why"],))
    elif not release:
        yield Finding("MR102", SKIP, "none", {}, (driver["why"],))
    else:
        yield _missing(facts.machine, driver["why"])


def _opened(driver: dict[str, Any]) -> bool:
    """Whether some libcuda.so.1 was opened, be it fit or not."""
    return bool(driver["path"]) or not driver["why"].startswith(NOT_OPENED)


def _api(facts: Facts, driver: dict[str, Any]) -> Iterator[Finding]:
    values = {
        "release": kernel_release(facts) or "?",
        "api": api_text(driver["api"]),
        "least": tables.LEAST_DRIVER[11],
    }
    if driver["api"] < 1000 * min(tables.LEAST_DRIVER):
        yield Finding("MR102", ERROR, "old", values, (driver["path"] or "",))
        return
    yield Finding("MR102", OK, "here", values, (driver["path"] or "",))
    yield from _compat(facts, driver, values)


def _missing(machine: Machine, why: str) -> Finding:
    """The kernel has a driver, but libcuda.so.1 does not open: say where it lies."""
    for path in driver_files(machine, "libcuda.so.1"):
        case = "broken_link" if machine.is_broken_link(path) else "elsewhere"
        values = {"path": machine.shown(path), "folder": os.path.dirname(path)}
        return Finding("MR102", ERROR, case, values, (path, why))
    inside = "container" if host.sign_of_container(machine) else "missing"
    return Finding("MR102", ERROR, inside, {}, (why,))


def driver_files(machine: Machine, name: str) -> Iterator[str]:
    """Every file of that name, or link that leads nowhere, in the driver's folders."""
    for folder in DRIVER_FOLDERS:
        path = f"{folder.format(arch=machine.arch)}/{name}"
        if machine.exists(path) or machine.is_broken_link(path):
            yield path


def _compat(
    facts: Facts, driver: dict[str, Any], values: dict[str, Any]
) -> Iterator[Finding]:
    """A driver library that works although it is not the kernel driver's own."""
    branch = next(iter(numbers(kernel_release(facts))), 0)
    known = tables.BRANCH_API.get(branch, driver["api"])
    if "/compat/" in (driver["path"] or "") or driver["api"] > known:
        if (facts.probe.get("cuda") or {}).get("error") is None:
            yield Finding("MR106", INFO, "works", values, (driver["path"] or "",))


def _answer(facts: Facts) -> Iterator[Finding]:
    """How the driver answered cuInit and the questions after it."""
    if facts.probe.get("ended"):
        yield _death(facts)
        return
    cuda = facts.probe.get("cuda") or {}
    driver = facts.probe.get("driver")
    if "error" not in cuda or driver is None or not _opened(driver):
        return
    code = cuda["code"] if cuda["code"] in ANSWERS else DIED
    if code == "MR102":  # _driver has said it
        return
    if code == "MR109":
        yield _hidden(facts, cuda["error"])
        return
    status = WARN if code == "MR111" else ERROR
    case = "reboot" if code == "MR106" and "803" in cuda["error"] else "answer"
    path = driver["path"] or "libcuda.so.1"
    values = {"release": kernel_release(facts), "path": path}
    yield Finding(code, status, case, values, (cuda["error"], path))


def _death(facts: Facts) -> Finding:
    """The child ended before it had said all."""
    probe = facts.probe
    values = {"stage": probe["stage"], "how": probe["ended"]}
    late = probe["ended"] == "timeout"
    values["seconds"] = f"{facts.machine.limit:g}"
    case = "hangs" if late else "dies" if probe["stage"] != "start" else "unstarted"
    last = probe.get("stderr", "").splitlines()[-1:]
    return Finding(DIED, ERROR, case, values, tuple(last))


def _hidden(facts: Facts, error: str) -> Finding:
    """The driver works and shows no GPU."""
    environ, nvml = facts.machine.environ, facts.probe.get("nvml") or {}
    count = len(nvml.get("gpus") or ())
    for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"):
        value = environ.get(name)
        void = name.startswith("CUDA") or value in ("", "void", "none")
        if value is not None and void and value != "all":
            values = {"name": name, "value": value}
            case = "hidden" if name.startswith("CUDA") else "withheld"
            return Finding("MR109", WARN, case, values, (error,))
    if count:
        return Finding("MR109", WARN, "unexplained", {"count": count}, (error,))
    return Finding("MR109", WARN, "none", {}, (error,))


# ---- MR104, MR108 -----------------------------------------------------------------


def _unversioned(facts: Facts) -> Iterator[Finding]:
    path = (facts.probe.get("driver") or {}).get("path")
    if not path:
        yield Finding("MR104", SKIP, "none", {})
        return
    beside = os.path.join(os.path.dirname(path), "libcuda.so")
    case = "here" if facts.machine.exists(beside) else "missing"
    status = OK if case == "here" else INFO
    values = {"folder": facts.machine.shown(os.path.dirname(path))}
    yield Finding("MR104", status, case, values, (path,))


def _nodes(facts: Facts) -> Iterator[Finding]:
    machine = facts.machine
    if not machine.exists("/proc/driver/nvidia/version"):  # WSL and Jetson have others
        yield Finding("MR108", SKIP, "none", {})
        return
    numbered = [
        f"/dev/{name}" for name in machine.names("/dev") if re.match(r"nvidia\d", name)
    ]
    nodes = [NODES[0], *(numbered[:1] or NODES[1:2]), NODES[2]]
    missing = [node for node in nodes if not machine.exists(node)]
    closed = [
        node
        for node in nodes
        if node not in missing and not machine.can(node, os.R_OK | os.W_OK)
    ]
    if missing:
        place = "container" if host.sign_of_container(machine) else "missing"
        yield Finding("MR108", ERROR, place, {}, tuple(missing))
    elif closed:
        yield Finding("MR108", ERROR, "closed", {}, tuple(closed))
    else:
        yield Finding("MR108", OK, "open", {})


# ---- MR110, MR111, MR113, MR120, MR121 --------------------------------------------


def _gpus(facts: Facts) -> Iterator[Finding]:
    nvml = facts.probe.get("nvml") or {}
    listed = facts.probe.get("gpus") or []
    if not listed:
        yield Finding("MR110", SKIP, "none", {})
    for number, gpu in enumerate(listed):
        if "error" in gpu:
            yield Finding(DIED, ERROR, "gpu", {"number": number}, (gpu["error"],))
            continue
        values = {
            "number": number,
            "name": gpu["name"],
            "capability": capability_text(gpu["capability"]),
            "memory": f"{gpu['memory'] / 2**30:.0f}",
        }
        yield Finding("MR110", INFO, _kind(gpu, nvml), values)
        if gpu.get("mode") in EXCLUSIVE:
            values["mode"] = EXCLUSIVE[gpu["mode"]]
            yield Finding("MR111", WARN, "mode", values)
    count = len(nvml.get("gpus") or ())
    if listed and count > len(listed) and not nvml.get("mig"):
        values = {"shown": len(listed), "count": count}
        yield Finding("MR109", INFO, "some", values)


def _kind(gpu: dict[str, Any], nvml: dict[str, Any]) -> str:
    if nvml.get("mig"):
        return "mig"
    return "integrated" if gpu.get("integrated") else "gpu"


def _variants(facts: Facts) -> Iterator[Finding]:
    cpu = facts.probe.get("cpu_variant")
    if cpu is not None:
        yield Finding("MR120", OK, "cpu", {"variant": cpu}, _build(facts, cpu))
    gpus = facts.gpus
    for number, gpu in enumerate(gpus):
        yield from _variant(facts, number, gpu)
    if len({gpu["capability"] for gpu in gpus}) > 1:
        texts = [f"{g['name']} ({capability_text(g['capability'])})" for g in gpus]
        yield Finding("MR121", INFO, "unlike", {"gpus": ", ".join(texts)})


def _build(facts: Facts, name: str) -> tuple[str, ...]:
    """How the variant in use was built."""
    builds = {v["name"]: v.get("build") for v in facts.probe.get("cpu_variants", ())}
    return tuple(filter(None, [builds.get(name)]))


def _variant(facts: Facts, number: int, gpu: dict[str, Any]) -> Iterator[Finding]:
    values = {
        "number": number,
        "name": gpu["name"],
        "capability": capability_text(gpu["capability"]),
        "variant": chosen(gpu),
        "api": api_text(facts.api),
    }
    if chosen(gpu) is None:
        values["asked"] = facts.machine.environ.get("MAMBARUN_VARIANT")
        yield _no_variant([v for v in gpu["variants"] if v["mode"] != "cpu"], values)
    elif mode(gpu) == "ptx":
        environ = facts.machine.environ
        kept = environ.get("CUDA_CACHE_DISABLE", "0") == "0"
        values["cache"] = environ.get("CUDA_CACHE_PATH") or "~/.nv/ComputeCache"
        yield Finding("MR120", WARN, "ptx" if kept else "ptx_not_kept", values)
        yield _compiler(facts)
    else:
        yield Finding("MR120", OK, "cubin", values)


# How the verdict on a row begins that says what to do, best first.
REMEDIES = {
    "not installed": "not_installed",
    "not asked for": "asked",
    "needs driver API": "old_driver",
}


def _no_variant(rows: list[dict[str, Any]], values: dict[str, Any]) -> Finding:
    def beginning(begin: str) -> list[dict[str, Any]]:
        return [row for row in rows if row["reason"].startswith(begin)]

    begin = next(filter(beginning, REMEDIES), "")
    case, said = REMEDIES.get(begin, "none"), beginning(begin)
    if case == "asked":
        said = [row for row in rows if row not in said]
    reasons = tuple(f"{row['name']}: {row['reason']}" for row in said)
    return Finding("MR120", ERROR, case, values, reasons)


def _compiler(facts: Facts) -> Finding:
    path = (facts.probe.get("driver") or {}).get("path") or ""
    beside = os.path.join(os.path.dirname(path), PTX_COMPILER)
    found = [beside] if path and facts.machine.exists(beside) else []
    found += driver_files(facts.machine, PTX_COMPILER)
    if found:
        return Finding("MR113", OK, "here", {}, tuple(found[:1]))
    inside = "container" if host.sign_of_container(facts.machine) else "missing"
    return Finding("MR113", ERROR, inside, {})
