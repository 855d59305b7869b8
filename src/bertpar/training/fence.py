"""Keeps a superseded attempt from writing: one that was stopped past its heartbeat timeout, and woke up.

On one host each attempt holds a lock for as long as it lives, which a newer attempt takes by killing the holder.
Across hosts, where nobody can be killed, an attempt leaves its mark in the store and looks for newer marks before it
writes; what it may write in between lies under its own number, and the workflow ignores it.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import psutil

from bertpar.errors import StoreError, SupersededError
from bertpar.store import Store

_PATIENCE_SECONDS = 10.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, kw_only=True)
class _Holder:
    """Who holds a run's lock, as written into its file."""

    attempt: int
    host: str
    """Name and boot: process ids mean nothing elsewhere, or after a restart."""
    pid: int
    started: float
    """When the process was created, so that another one under the same id is not taken for it."""


class Fence:
    """What an attempt asks before it writes."""

    def __init__(self, store: Store, run_id: str, attempt: int) -> None:
        self._store = store
        self._marks = f"runs/{run_id}/attempts"
        self._attempt = attempt

    def mark(self) -> None:
        """Make this attempt known to all that share the store."""
        self._store.publish(f"{self._marks}/{self._attempt}", lambda folder: None, {"attempt": self._attempt})

    def check(self) -> None:
        """Return if this is still the newest attempt.

        Raises:
            SupersededError: it is not.
        """
        newest = max((int(key.rpartition("/")[2]) for key in self._store.list(self._marks)), default=0)
        _refuse_if_newer(newest, self._attempt)


@contextmanager
def hold_fence(store: Store, run_id: str, attempt: int) -> Iterator[Fence]:
    """Be the only attempt at the run on this host: an older one that still lives is killed, also if it is stopped.

    Raises:
        SupersededError: a newer attempt has begun.
        StoreError: the lock cannot be had.
    """
    path = store.lock_path(f"runs/{run_id}")
    with store.errors_told(f"cannot lock {run_id}"):
        file = path.open("a+")
    with file:
        with store.errors_told(f"cannot lock {run_id}"):
            _lock(file, path, attempt)
        fence = Fence(store, run_id, attempt)
        fence.check()
        fence.mark()
        yield fence


def _lock(file: IO[str], path: Path, attempt: int) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        holder = _read(path)
        if holder is not None:
            _refuse_if_newer(holder.attempt, attempt)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if holder is not None and holder.host != _this_host():
                return  # a lock that crosses hosts, and whose holder cannot be killed: the marks must do
            if holder is not None:
                _kill(holder)
        if time.monotonic() > deadline:
            raise StoreError(f"the lock {path} of the run is held by {holder}, which could not be ended")
        time.sleep(0.01)
    ours = _Holder(attempt=attempt, host=_this_host(), pid=os.getpid(), started=psutil.Process().create_time())
    file.truncate(0)
    os.write(file.fileno(), json.dumps(asdict(ours)).encode())  # no buffer, which a full disk would keep for the end


def _refuse_if_newer(newest: int, attempt: int) -> None:
    if newest > attempt:
        raise SupersededError(f"attempt {attempt} is superseded by attempt {newest}: it writes nothing more")


def _read(path: Path) -> _Holder | None:
    with suppress(OSError, ValueError, TypeError):  # empty while its holder is about to write
        return _Holder(**json.loads(path.read_text(encoding="utf-8")))
    return None


def _kill(holder: _Holder) -> None:
    assert holder.pid != os.getpid(), "one process makes one attempt at a time"
    with suppress(psutil.NoSuchProcess, ProcessLookupError):
        if psutil.Process(holder.pid).create_time() == holder.started:
            os.killpg(holder.pid, signal.SIGKILL)  # a job process leads a group of its own


def _this_host() -> str:
    with suppress(OSError):
        return f"{platform.node()}/{_BOOT_ID.read_text(encoding='utf-8').strip()}"
    return platform.node()
