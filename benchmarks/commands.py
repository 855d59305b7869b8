"""What a command costs, with all processes that it leaves behind for a while."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_PR_SET_CHILD_SUBREAPER = 36
_STRAGGLERS_SECONDS = 20.0


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Wall time of a command, and the processor time of all its processes that have ended."""

    wall_seconds: float
    cpu_seconds: float


def run_command(command: Sequence[str], env: Mapping[str, str], *, cwd: Path, detaches: bool = False) -> Cost:
    """Run `command` to its end and return what it took.

    On Linux, processes that its own children left behind count too: they are waited for, unless the command
    `detaches` what is meant to live on.

    Raises:
        SystemExit: it failed; with what it said.
    """
    _adopt_orphans(not detaches)
    others = set(psutil.Process().children())
    cpu_before, began = _cpu_of_ended_children(), time.perf_counter()
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    wall_seconds = time.perf_counter() - began
    if not detaches:
        _adopt_orphans(False)
        _wait_for(set(psutil.Process().children()) - others)
    if done.returncode != 0:
        raise SystemExit(
            f"error: {' '.join(command)} ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
        )
    return Cost(wall_seconds=wall_seconds, cpu_seconds=_cpu_of_ended_children() - cpu_before)


def _adopt_orphans(adopt: bool) -> None:
    """Have processes whose parent has ended become children of this one, or no longer."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(adopt))


def _wait_for(stragglers: set[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(stragglers, _STRAGGLERS_SECONDS)
    for process in alive:
        with suppress(psutil.Error):
            process.kill()
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _cpu_of_ended_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
