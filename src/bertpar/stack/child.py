"""One supervised process: started as a group, restarted with back-off, and never outliving its supervisor."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bertpar.logs import open_log

MARK = "BERTPAR_STACK_OF"
"""Environment variable of all that a stack started, children's children included: the stack's home."""

_MAX_LOG_BYTES = 10_000_000
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class Role:
    """What to run, and how to see that it serves."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    log: Path
    is_ready: Callable[[int], bool]
    """Given the pid: does it serve? Asked until the first yes."""
    grace_seconds: float
    """From SIGTERM to SIGKILL."""
    once: bool = False
    """Ready when it has ended with exit code 0, and then not started again."""


class Child:
    """A role's process, through all its restarts."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.ready = False
        self.done = False
        self.num_failures = 0
        """How often in a row it ended without having become ready."""
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._start_at = 0.0
        self._num_ends = 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def tend(self) -> bool:
        """Start the process when due, notice its end and its readiness. Return whether something changed."""
        if self.done:
            return False
        if self._process is None:
            if time.monotonic() < self._start_at:
                return False
            self._start()
            return True
        if (code := self._process.poll()) is not None:
            self._ended(code)
            return True
        if not self.ready and not self.role.once and self.role.is_ready(self._process.pid):
            self.ready, self.num_failures = True, 0
            return True
        return False

    def terminate(self) -> None:
        """Ask the process, but not its own children, to leave in order."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def is_gone(self) -> bool:
        """Say whether the process has ended; what is left of its group is then killed."""
        if self._process is None:
            return True
        if self._process.poll() is None:
            return False
        self.kill()
        return True

    def kill(self) -> None:
        """Kill the whole process group now."""
        if self._process is not None:
            kill_group(self._process.pid)
            self._process.wait()
            self._process = None
        self.ready = False

    def _start(self) -> None:
        _rotate(self.role.log)
        with open_log(self.role.log) as log:
            self._process = subprocess.Popen(
                self.role.argv,
                env=dict(self.role.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent(),
            )
        self._started_at = time.monotonic()

    def _ended(self, code: int) -> None:
        lived_seconds = time.monotonic() - self._started_at
        was_ready = self.ready
        self.kill()
        if self.role.once and code == 0:
            self.ready = self.done = True
            return
        self.num_failures = 0 if was_ready else self.num_failures + 1
        self._num_ends = 1 if lived_seconds > 60 else self._num_ends + 1
        delay_seconds = backoff_seconds(self._num_ends, was_ready=was_ready)
        say(f"{self.role.name} ended with code {code}; again in {delay_seconds:g} s")
        self._start_at = time.monotonic() + delay_seconds


def backoff_seconds(num_ends: int, *, was_ready: bool) -> float:
    """Return the wait before the next start after so many quick ends in a row: 0.1 s, doubling to 30 s.

    To 2 s for a service that had served: it was killed, and sweeps wait for it.
    """
    return min(0.1 * 2.0 ** min(num_ends - 1, 20), 2.0 if was_ready else 30.0)


def kill_group(pgid: int) -> None:
    """Kill every process of the group; a group that is gone is fine."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pgid, signal.SIGKILL)


def kill_leftovers(home_root: Path) -> list[int]:
    """Kill all processes that a stack of this home ever started and that still live. Return their pids."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid not in own and process.environ().get(MARK) == str(home_root):
                process.kill()
                found.append(process)
        except (psutil.Error, OSError):
            continue  # somebody else's, or gone
    psutil.wait_procs(found, timeout=5)
    return [process.pid for process in found]


def say(text: str) -> None:
    """Print a line for the supervisor's log; on a full disk it is lost."""
    with contextlib.suppress(OSError):
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", flush=True)


def _rotate(log: Path) -> None:
    with contextlib.suppress(OSError):
        if log.exists() and log.stat().st_size > _MAX_LOG_BYTES:
            log.replace(log.with_name(f"{log.name}.1"))


def _die_with_parent() -> Callable[[], None] | None:
    """Return what a child does first, so that the kernel kills it when its supervisor dies (Linux only)."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def ask_kernel() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the request
            os._exit(1)

    return ask_kernel
