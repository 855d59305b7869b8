"""What the tests of the stack look at: processes, and conditions that come true."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import psutil

from bertpar.paths import Home
from bertpar.stack.child import MARK

T = TypeVar("T")


def processes_of(home: Home) -> list[int]:
    """Return the pids of everything that a stack of this home started and that still runs."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(home.root) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


def wait_for(find: Callable[[], T | None], what: str, *, seconds: float = 20.0) -> T:
    """Return what `find` finds, as soon as it finds something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := find():
            return found
        time.sleep(0.02)
    raise AssertionError(f"no {what} within {seconds} s")
