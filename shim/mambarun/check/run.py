# SPDX-License-Identifier: Apache-2.0
"""run.py - MR601 to MR603: starts the trials in child processes and judges them. The
device's results are compared with a CPU variant's, and on a machine without a GPU the
CPU variant's with those of cpu_scalar.
"""

from __future__ import annotations

import base64
from array import array

from .child import ask
from .driver import chosen, mode
from .finding import ERROR, INFO, OK, SKIP, Finding, Headline
from .modules import supplier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator

    from .facts import Facts

LIMIT = 300.0  # seconds: torch from a network disk, PTX that is compiled
CODES = ("MR601", "MR602", "MR603")

# The largest difference, as a share of the largest value: a few roundings of the type
# that results are stored in. What is wrong is off by the size of the values.
TOLERANCE = {"float16": 2**-9, "bfloat16": 2**-6}
TOLERANCE_FLOAT32 = 2**-14


def check(facts: Facts, bench: bool) -> Iterator[Finding]:
    if facts.torch is None:
        yield from skipped("no_torch")
        return
    device, reference = _places(facts)
    answer = _ask(facts, device, bench)
    yield from _torch(facts, answer)
    if "error" in answer.get("torch", {"error": ""}):
        yield Finding("MR601", SKIP, "no_torch", {})
        yield Finding("MR602", SKIP, "no_torch", {})
        return
    yield from _fork(answer)
    expected = _ask(facts, "cpu", False, reference)
    yield from _compare(facts, answer, expected, device, reference)
    yield from _bench(answer)


def skipped(case: str) -> Iterator[Finding]:
    for code in CODES:
        yield Finding(code, SKIP, case, {})


def headlines(facts: Facts, findings: list[Finding]) -> Iterator[Headline]:
    passed = [f for f in findings if f.code == "MR601" and f.case == "match"]
    tried = [f for f in findings if f.code in CODES and f.status != SKIP]
    if passed:
        yield Headline("run", "match", passed[0].values)
    else:
        case, status = ("fails", OK) if tried else ("not_run", SKIP)
        yield Headline("run", case, {}, status)


def _places(facts: Facts) -> tuple[str, str]:
    """The device under trial, and the variant that its results are compared with ("":
    the best one on the CPU)."""
    if facts.gpus and facts.torch and facts.torch.cuda:
        return "cuda:0", ""
    return "cpu", "cpu_scalar"


def _ask(facts: Facts, device: str, bench: bool, variant: str | None = None) -> Any:
    """variant: the child is the reference, which runs mambarun's modules with that."""
    machine = facts.machine
    environ = dict(machine.environ)
    devices = [device]
    if variant is not None:
        environ.pop("MAMBARUN_VARIANT", None)
        environ.pop("MAMBARUN_DISABLE", None)
        environ["MAMBARUN_PREFER"] = "ours"
        if variant:
            environ["MAMBARUN_VARIANT"] = variant
    elif device != "cpu" and len(facts.gpus) > 1:
        devices.append("cuda:1")
    task = {
        "name": "trial",
        "device": device,
        "devices": devices,
        "install": machine.hook is not None or variant is not None,
        "fork": variant is None,
        "bench": bench,
    }
    return ask(machine, task, LIMIT, path=machine.sys_path, environ=environ)


# ---- MR603, MR602 -----------------------------------------------------------------


def _torch(facts: Facts, answer: dict[str, Any]) -> Iterator[Finding]:
    torch = answer.get("torch") or {}
    if "error" in torch:
        values = {"error": torch["error"].splitlines()[0]}
        yield Finding("MR603", ERROR, "torch", values, tuple(torch["trace"]))
        return
    if not torch:
        yield _death(answer, "MR603")
        return
    failed = False
    for key, module in answer.items():
        if key.startswith("import/") and "error" in module:
            name = key[len("import/") :]
            if supplier(facts, name).why == "disabled":
                continue
            failed = True
            values = {"name": name, "error": module["error"]}
            yield Finding("MR603", ERROR, "module", values, tuple(module["trace"]))
    if not failed:
        yield Finding("MR603", OK, "imports", {"torch": torch["version"]})


def _death(answer: dict[str, Any], code: str) -> Finding:
    """The child ended, with nothing said about why."""
    how = answer.get("ended") or "?"
    values = {"how": how, "stage": answer.get("stage", "?")}
    last = tuple(answer.get("stderr", "").splitlines()[-3:])
    return Finding(code, ERROR, "dies", values, last)


def _fork(answer: dict[str, Any]) -> Iterator[Finding]:
    fork = answer.get("fork")
    if fork is None:
        yield Finding("MR602", SKIP, "not_reached", {})
    elif "error" in fork:
        yield Finding("MR602", ERROR, "fails", {}, (fork["error"],))
    else:
        yield Finding("MR602", OK, "works", {})


# ---- MR601 ------------------------------------------------------------------------


def _compare(
    facts: Facts, answer: Any, expected: Any, device: str, reference: str
) -> Iterator[Finding]:
    against = {_key(r): r for r in _listed(expected, "result/")}
    results = _listed(answer, "result/")
    worst: dict[str, float] = {}
    failed = False
    for result in results:
        values = {n: result[n] for n in ("module", "call", "case", "device")}
        fault = _judge(result, against.get(_key(result)), worst)
        if fault is not None:
            failed = True
            values.update(fault[1])
            yield Finding("MR601", ERROR, fault[0], values, fault[2])
    if answer.get("ended") or expected.get("ended"):
        failed = True
        yield _death(answer if answer.get("ended") else expected, "MR601")
    yield from _left_out(facts)
    if results and not failed:
        yield Finding(
            "MR601", OK, "match", _summary(facts, results, worst, device, reference)
        )
        yield from _loads(answer)
        yield from _each(results)


def _loads(answer: dict[str, Any]) -> Iterator[Finding]:
    """For -v: how the variant of each GPU was built, and how soon it was there."""
    for load in _listed(answer, "load/"):
        if load["device"] != "cpu" and "error" not in load:
            values = {**load, "seconds": f"{load['seconds']:.2f}"}
            yield Finding("MR601", OK, "loads", values, (load["build"] or "",))


def _listed(answer: dict[str, Any], prefix: str) -> list[dict[str, Any]]:
    return [value for key, value in answer.items() if key.startswith(prefix)]


def _key(result: dict[str, Any]) -> tuple[str, ...]:
    """A result on a stream is compared with the one of the same numbers without."""
    case = "float32" if result["case"] == "stream" else result["case"]
    return result["module"], result["call"], case


def _judge(result: Any, expected: Any, worst: dict[str, float]) -> Any:
    """None, or the case of MR601, its values and the evidence. worst gains."""
    if "error" in result:
        error = result["error"].splitlines()[0]
        return "raises", {"error": error}, tuple(result["trace"])
    if expected is None or "error" in expected:
        return "no_reference", {}, tuple((expected or {}).get("trace", ()))
    allowed = TOLERANCE.get(result["case"], TOLERANCE_FLOAT32)
    pair = result["outputs"], expected["outputs"]
    same = len(pair[0]) == len(pair[1])
    error = max(map(_error, *pair), default=0.0) if same else float("inf")
    kind = result["case"] if result["case"] in TOLERANCE else "float32"
    worst[kind] = max(worst.get(kind, 0.0), error)
    if error <= allowed:
        return None
    return "differs", {"error": f"{error:.1e}", "allowed": f"{allowed:.1e}"}, ()


def _error(one: str, other: str) -> float:
    """The largest difference as a share of the largest value; infinite for a NaN."""
    a, b = (array("f", base64.b64decode(text)) for text in (one, other))
    if len(a) != len(b):
        return float("inf")
    scale = max(map(abs, b), default=0.0) or 1.0
    error = 0.0
    for x, y in zip(a, b):
        difference = abs(x - y) / scale
        if not difference <= error:  # also true of a NaN
            error = difference if difference == difference else float("inf")
    return error


def _summary(
    facts: Facts, results: Any, worst: Any, device: str, reference: str
) -> dict[str, Any]:
    errors = ", ".join(f"{kind} {error:.1e}" for kind, error in worst.items())
    times = [r["seconds"] for r in results if r["case"] == "float32"]
    return {
        "count": len({r["module"] for r in results}),
        "calls": len(results),
        "device": device,
        "variant": _variant(facts, device),
        "reference": reference or facts.probe.get("cpu_variant"),
        "errors": errors,
        "milliseconds": f"{1e3 * max(times, default=0.0):.2f}",
    }


def _variant(facts: Facts, device: str) -> str:
    """What runs there, such as "cuda12_sm80, cubin"."""
    if device == "cpu":
        return str(facts.probe.get("cpu_variant"))
    return f"{chosen(facts.gpus[0])}, {mode(facts.gpus[0])}"


def _each(results: Any) -> Iterator[Finding]:
    """One line per module, for -v."""
    for name in dict.fromkeys(r["module"] for r in results):
        mine = [r for r in results if r["module"] == name]
        values = {
            "module": name,
            "cases": ", ".join(dict.fromkeys(r["case"] for r in mine)),
            "devices": ", ".join(dict.fromkeys(r["device"] for r in mine)),
            "times": ", ".join(
                f"{r['call']} {1e3 * r['seconds']:.2f} ms"
                for r in mine
                if r["case"] == "float32" and r["device"] == mine[0]["device"]
            ),
        }
        yield Finding("MR601", OK, "module", values)


def _left_out(facts: Facts) -> Iterator[Finding]:
    from .. import PROMISED

    for name in PROMISED:
        if supplier(facts, name).provider == "other":
            yield Finding("MR601", INFO, "other", {"module": name})


def _bench(answer: dict[str, Any]) -> Iterator[Finding]:
    if "copy" in answer:
        values = {"speed": f"{answer['copy'] / 1e9:.0f}", "case": answer["bench_case"]}
        yield Finding("MR601", INFO, "copy", values)
    for row in _listed(answer, "bench/"):
        values = {
            "module": row["module"],
            "call": row["call"],
            "milliseconds": f"{1e3 * row['seconds']:.3f}",
            "share": f"{100 * row['share']:.0f}",
        }
        yield Finding("MR601", INFO, "bench", values)
