# SPDX-License-Identifier: Apache-2.0
"""Puts cases to a provider that runs in child processes. A crash, a hang, a corrupted
CUDA context or a word on stdout is one failed case with its name; the rest goes on in a
new child."""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Callable, Sequence

from .spec import Spec

START_SECONDS = 300  # torch, the driver; it may compile PTX
MOST_WORDS = 400  # of what a provider prints


class Unavailable(Exception):
    """The provider cannot run here: NotSupported, with the reason."""


class Broken(Exception):
    """The provider, or the suite, does not even start."""


class Died(Exception):
    """The child is gone, or was ended because it did not answer."""


class Child:
    """One process. `seconds` is the limit of a case."""

    def __init__(self, spec: Spec, device: str, seed: int, seconds: float) -> None:
        self.seconds = seconds
        self.log = tempfile.TemporaryFile()
        self.seen = 0  # of the log
        self.rest = b""
        self.facts: dict[str, str] = {}
        self.answers, theirs = os.pipe()
        arguments = [str(spec), device, str(seed), str(theirs)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.child", *arguments],
            stdin=subprocess.PIPE,
            stdout=self.log,
            stderr=self.log,
            pass_fds=[theirs],
            env=environment(spec),
            start_new_session=True,  # Ctrl-C is the parent's
        )
        os.close(theirs)

    def hello(self) -> dict[str, str]:
        """What the provider is, or Unavailable, or Broken."""
        try:
            said = self.read(START_SECONDS)
        except Died as reason:
            raise Broken(f"{reason}: {self.printed()}") from None
        if "unsupported" in said:
            raise Unavailable(said["unsupported"])
        if "broken" in said:
            raise Broken(said["broken"].strip())
        self.printed()  # what an import prints is nobody's fault
        return said["facts"]

    def ask(self, name: str) -> dict[str, Any]:
        """The answer to a case; Died if there is none."""
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(name.encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            raise Died(self.death()) from None
        said = self.read(self.seconds)
        words = self.printed()
        if words:
            said["outcome"] = "failed"
            said["text"] = f"wrote to stdout or stderr: {words}; {said['text']}"
        return said

    def read(self, seconds: float) -> dict[str, Any]:
        while b"\n" not in self.rest:
            if not select.select([self.answers], [], [], seconds)[0]:
                self.kill()
                raise Died(f"no answer within {seconds:g} s")
            piece = os.read(self.answers, 1 << 16)
            if not piece:
                raise Died(self.death())
            self.rest += piece
        line, _, self.rest = self.rest.partition(b"\n")
        return json.loads(line)

    def printed(self) -> str:
        """What came on stdout and stderr since the last time."""
        size = os.fstat(self.log.fileno()).st_size
        words = os.pread(self.log.fileno(), MOST_WORDS, self.seen)
        self.seen = size
        return words.decode("utf-8", "replace").strip()

    def death(self) -> str:
        status = self.process.wait()
        if status >= 0:
            return f"exited with status {status}"
        return f"died of {signal.Signals(-status).name}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> str:
        """How it ended, if not well."""
        try:
            assert self.process.stdin is not None
            self.process.stdin.close()
            status = self.process.wait(timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            self.kill()
            status = 0  # ended by us: whatever it waited for, its cases are judged
        os.close(self.answers)
        self.log.close()
        return self.death() if status < 0 else ""


def environment(spec: Spec) -> dict[str, str]:
    """Of a child: silent, with the variant forced, and this package to be found."""
    env = {**os.environ, "MAMBARUN_TRACE": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    if spec.kind == "mambarun":
        env["MAMBARUN_VARIANT"] = spec.name
    root = Path(__file__).resolve().parents[len((__package__ or "").split("."))]
    paths = [env.get("PYTHONPATH", ""), str(root)]
    env["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return env


class Listener:
    """Who hears of a run: what the provider says it is, then each case as it is judged,
    one after the other."""

    def began(self, facts: dict[str, str]) -> None:
        raise NotImplementedError

    def seen(self, name: str, answer: dict[str, Any]) -> None:
        raise NotImplementedError


def run(
    spec: Spec,
    device: str,
    seed: int,
    names: Sequence[str],
    listener: Listener,
    seconds: float = 60,
    jobs: int = 1,
) -> None:
    """Every named case. Unavailable or Broken if the provider cannot start."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in names:
        waiting.put(name)
    lock = threading.Lock()

    def report(name: str, answer: dict[str, Any]) -> None:
        with lock:
            listener.seen(name, answer)

    def start() -> Child:
        child = Child(spec, device, seed, seconds)
        try:
            child.facts = child.hello()
        except (Unavailable, Broken):
            child.close()
            raise
        return child

    first = start()
    listener.began(first.facts)
    count = max(1, min(jobs, len(names)))
    workers = [Worker(start, waiting, report) for _ in range(count)]
    workers[0].child = first
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    except KeyboardInterrupt:
        for worker in workers:
            worker.stop()
        raise
    for worker in workers:
        if worker.fault:
            raise worker.fault


class Worker(threading.Thread):
    """Takes cases while there are any, with one child after the other."""

    def __init__(
        self,
        start: Callable[[], Child],
        waiting: queue.SimpleQueue[str],
        report: Callable[[str, dict[str, Any]], None],
    ) -> None:
        super().__init__(daemon=True)
        self.start_child, self.waiting, self.report = start, waiting, report
        self.child: Child | None = None
        self.fault: Exception | None = None
        self.stopped = False

    def run(self) -> None:
        try:
            self.work()
        except Exception as fault:  # of the suite: run() raises it
            self.fault = fault

    def stop(self) -> None:
        """What its child is at is not judged any more."""
        self.stopped = True
        if self.child:
            self.child.process.kill()

    def work(self) -> None:
        last = ""
        while not self.stopped:
            try:
                name = self.waiting.get_nowait()
            except queue.Empty:
                break
            if self.child is None:
                self.child = self.start_child()
            self.judge(self.child, name)
            last = name
        ended = self.child.close() if self.child else ""
        if ended and not self.stopped:
            self.report("end of the process", failed(f"{ended} after {last}"))

    def judge(self, child: Child, name: str) -> None:
        try:
            answer = child.ask(name)
        except Died as death:
            words = child.printed()
            answer = failed(f"{death}: {words}" if words else str(death))
            answer["lost"] = True
        if answer["lost"]:
            child.close()
            self.child = None
        if not self.stopped:
            self.report(name, answer)


def failed(text: str) -> dict[str, Any]:
    return {
        "outcome": "failed",
        "text": text,
        "figures": [],
        "lost": False,
        "seconds": 0,
    }
