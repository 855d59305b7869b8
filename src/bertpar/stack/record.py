"""What is known about the local stack: the file `stack.json`, and the lock that says who may write it.

The supervisor holds the lock for as long as it lives, and the lock's file holds a token that the record
repeats. So a record is current exactly if somebody holds the lock and both tokens agree: no pids, no clocks.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal

from bertpar.paths import Home

State = Literal["starting", "up", "stopping", "down", "failed"]

SUPERVISOR = "supervisor"
TEMPORAL = "temporal"
EVAL_WORKER = "eval_worker"
TRAINING_WORKER = "training_worker"
MLFLOW = "mlflow"
MLFLOW_INIT = "mlflow_init"
"""Roles: the keys of `Stack.pids` and the names of the log files."""

NAMESPACE = "default"
"""The only namespace of the local server."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The local stack as its supervisor last described it. These are the fields of `stack.json`."""

    state: State
    token: str
    """Of the supervisor that wrote this."""
    temporal_address: str
    temporal_ui: str
    mlflow_port: int
    mlflow_ui: str | None = None
    """URL of MLflow's page while it is served; None otherwise."""
    mlflow_tracking_uri: str
    store: str
    namespace: str = NAMESPACE
    slots: int
    """Runs that train at once."""
    slots_chosen: bool = False
    """The user chose `slots`: the next start keeps it."""
    pids: dict[str, int] = field(default_factory=dict)
    """Process ids by role; each but the supervisor's leads a process group of its own."""
    failures: dict[str, int] = field(default_factory=dict)
    """By role, how often in a row its process ended without having become ready."""
    temporal_version: str | None = None
    code: str
    """Digest of the code that the workers were started with."""
    notes: tuple[str, ...] = ()
    """What the user should know, one sentence each."""
    error: str | None = None
    """Why the supervisor gave up (state `failed`)."""

    @property
    def temporal_port(self) -> int:
        return int(self.temporal_address.rsplit(":", 1)[1])

    @property
    def temporal_ui_port(self) -> int:
        return int(self.temporal_ui.rsplit(":", 1)[1])


def wanted_file(home: Home) -> Path:
    """The file that is there from the stack's first being up until `bertpar down`, whatever happens to it meanwhile."""
    # A file of its own, not a state in the record: an orderly reboot ends a supervisor as `bertpar down` does.
    return home.root / "stack.wanted"


def ui_request_file(home: Home) -> Path:
    """The file whose presence asks for MLflow's page."""
    return home.root / "mlflow-ui.wanted"


def write_record(home: Home, stack: Stack) -> None:
    """Replace `stack.json` atomically. Only the holder of the lock may do so."""
    temporary = home.stack_file.with_name(f".{home.stack_file.name}.{os.getpid()}")
    temporary.write_text(json.dumps(asdict(stack), indent=1) + "\n", encoding="utf-8")
    temporary.replace(home.stack_file)


def last_record(home: Home) -> Stack | None:
    """Return what `stack.json` holds, current or not; None where it is missing or of another version."""
    try:
        raw = json.loads(home.stack_file.read_text(encoding="utf-8"))
        known = {f.name for f in fields(Stack)}
        stack = Stack(**{key: value for key, value in raw.items() if key in known})
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return Stack(**{**asdict(stack), "notes": tuple(stack.notes)})


def current_record(home: Home) -> Stack | None:
    """Return the record of the supervisor that is alive now, or None."""
    stack = last_record(home)
    if stack is None or stack.token != _lock_holder(home):
        return None
    return stack if _is_alive(stack.pids.get(SUPERVISOR)) else None


def is_locked(home: Home) -> bool:
    """Say whether a supervisor lives."""
    try:
        descriptor = os.open(home.lock_file, os.O_RDONLY)
    except OSError:
        return False
    try:
        # Shared, so that two who look never see each other; a supervisor that starts meanwhile tries again.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def acquire_lock(home: Home, token: str, *, patience_seconds: float = 1.0) -> int | None:
    """Take the lock until the descriptor is closed or this process ends; None if another holds it."""
    descriptor = os.open(home.lock_file, os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                return None
            time.sleep(0.02)
    os.pwrite(descriptor, token.encode(), 0)  # over the last one: that needs no space on a full disk
    os.truncate(descriptor, len(token.encode()))
    return descriptor


def still_holds_lock(home: Home, descriptor: int) -> bool:
    """Say whether the locked file is the one that others would see: somebody may have deleted the home."""
    try:
        return os.path.samestat(home.lock_file.stat(), os.fstat(descriptor))
    except OSError:
        return False


def _lock_holder(home: Home) -> str | None:
    if not is_locked(home):
        return None
    with suppress(OSError):
        return home.lock_file.read_text(encoding="utf-8")
    return None


def _is_alive(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
