"""The processes of a stack, found as somebody with `ps` and `kill` would, and hit."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import psutil

from bertpar.paths import Home
from bertpar.stack.record import EVAL_WORKER, SUPERVISOR, TEMPORAL, TRAINING_WORKER, last_record
from bertpar.verify.storm.plan import Target


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Who can be hit at one moment, by pid."""

    pids: dict[Target, list[int]]

    @classmethod
    def of(cls, home: Home, client_pid: int | None) -> Targets:
        """Look around now. Processes come and go: what is listed may be gone a moment later."""
        record = last_record(home)
        roles = record.pids if record is not None else {}
        training, evaluating = _templates(roles.get(TRAINING_WORKER)), _templates(roles.get(EVAL_WORKER))
        pids: dict[Target, list[int]] = {
            "client": _alive([client_pid]),
            "supervisor": _alive([roles.get(SUPERVISOR)]),
            "temporal": _alive([roles.get(TEMPORAL)]),
            "training_worker": _alive([roles.get(TRAINING_WORKER)]),
            "eval_worker": _alive([roles.get(EVAL_WORKER)]),
            "template": training,
            "job": _children(training),
            "eval_job": _children(evaluating),
        }
        # the supervisor first: it would start again what dies before it
        pids["all"] = [pid for target in sorted(pids, key=lambda t: t != "supervisor") for pid in pids[target]]
        pids["all"] += evaluating
        return cls(pids=pids)


def send(pids: Iterable[int], number: signal.Signals) -> bool:
    """Send the signal to each process; say whether any was there to get it."""
    hit = False
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            hit = True
    return hit


def _alive(pids: Iterable[int | None]) -> list[int]:
    alive = []
    for pid in pids:
        with suppress(psutil.Error):
            if pid is not None and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                alive.append(pid)
    return alive


def _templates(worker_pid: int | None) -> list[int]:
    return _children([worker_pid] if worker_pid is not None else [])


def _children(pids: Iterable[int]) -> list[int]:
    found = []
    for pid in pids:
        with suppress(psutil.Error):
            found += [child.pid for child in psutil.Process(pid).children()]
    return _alive(found)
