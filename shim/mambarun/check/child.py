# SPDX-License-Identifier: Apache-2.0
"""child.py - asks libmambarun and the driver in a freshly executed process with a time
limit, so that a driver that crashes, hangs or prints harms nobody. The child is
_probe.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .machine import Machine

# The child sees no start-up file and not the current folder, only this package.
BOOT = """\
import json, sys
folders, path, task = map(json.loads, sys.argv[1:])
sys.path[:] = (path or sys.path) + [folders[0].rpartition("/")[0]]
import mambarun
mambarun.__path__[:] = folders
from mambarun import _probe
_probe.main(task)
"""
MOST_STDERR = 2000  # characters kept of what a child complained


def probe(machine: Machine) -> dict[str, Any]:
    """What libmambarun and the driver say: the facts of _probe.facts, by name, and what
    `ask` adds."""
    return ask(machine, {"name": "facts"}, machine.limit)


def ask(
    machine: Machine,
    task: dict[str, Any],
    limit: float,
    path: list[str] | None = None,
    environ: dict[str, str] | None = None,
) -> dict[str, Any]:
    """The facts that a child says before it ends or the limit is over. Added are
    "ended": how, if not well: "timeout", "SIGSEGV" or "exit 1"; "stage": what it did
    last; "stderr": the end of what it complained. path: its sys.path, if not the bare
    interpreter's."""
    arguments = [json.dumps(a) for a in (_own(), path or [], task)]
    command = [sys.executable, "-I", "-S", "-c", BOOT, *arguments]
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=machine.environ if environ is None else environ,
            start_new_session=True,
        )
    except OSError as cause:
        return {"ended": "not started", "stage": "start", "stderr": str(cause)}
    try:
        out, err = child.communicate(timeout=limit)
        ended = _ending(child.returncode)
    except subprocess.TimeoutExpired as late:
        out, err, ended = late.stdout or b"", late.stderr or b"", "timeout"
        _end(child)
    return {**_lines(out), "ended": ended, "stderr": _tail(err)}


def _own() -> list[str]:
    import mambarun

    return list(mambarun.__path__)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill it with all it started. A process that hangs in the kernel's driver cannot
    be waited for: leave it."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait(1)
    except (OSError, subprocess.TimeoutExpired):
        pass
    for pipe in (child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()
    child.returncode = child.returncode or -signal.SIGKILL  # nobody waits again


def _ending(status: int) -> str | None:
    if status >= 0:
        return f"exit {status}" if status else None
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _lines(out: bytes) -> dict[str, Any]:
    """The child's lines, each one JSON object; anything else on its pipe is not its
    own."""
    said: dict[str, Any] = {"stage": "start"}
    for line in out.decode("utf-8", "replace").splitlines():
        try:
            said.update(json.loads(line))
        except (ValueError, TypeError):
            continue
    return said


def _tail(err: bytes) -> str:
    return err.decode("utf-8", "replace").strip()[-MOST_STDERR:]
