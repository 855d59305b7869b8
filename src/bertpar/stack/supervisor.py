"""The supervisor of the local stack: one process per home that starts the services and keeps them alive.

Run as `python -m bertpar.stack.supervisor --home H`. It has one thread, on purpose: the kernel's promise to
kill the services with their parent is about the thread that started them.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import socket
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from bertpar.code import code_digest
from bertpar.errors import BertparError, StackError
from bertpar.machine import default_training_slots
from bertpar.paths import Home
from bertpar.stack import roles
from bertpar.stack.child import Child, kill_leftovers, say
from bertpar.stack.ports import LOOPBACK, is_free, pick_port
from bertpar.stack.record import (
    EVAL_WORKER,
    MLFLOW,
    MLFLOW_INIT,
    SUPERVISOR,
    TEMPORAL,
    TRAINING_WORKER,
    Stack,
    acquire_lock,
    last_record,
    still_holds_lock,
    ui_request_file,
    wanted_file,
    write_record,
)
from bertpar.stack.settings import Settings

_TICK_SECONDS = {"starting": 0.05, "up": 1.0}
_REQUIRED = frozenset({TEMPORAL, EVAL_WORKER, TRAINING_WORKER})
"""What the stack needs to be up."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGUSR1)


def main() -> int:
    """Supervise until SIGTERM. Return 0 also where another supervisor is already there.

    What runs goes on when the disk is full; nothing begins with a full one.
    """
    parser = argparse.ArgumentParser(description="Keeps bertpar's local services alive.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--slots", type=int)
    parser.add_argument("--port", type=int)
    parser.add_argument("--ui-port", type=int)
    args = parser.parse_args()
    home = Home(args.home)
    token = uuid.uuid4().hex
    try:
        lock = acquire_lock(home, token)
        if lock is None:
            return 0
        stack = plan_stack(home, Settings(slots=args.slots, port=args.port, ui_port=args.ui_port), token)
        write_record(home, stack)
        try:
            executable = roles.temporal_executable()
            _check_chosen_ports(stack, args.port, args.ui_port)
        except BertparError as error:
            write_record(home, replace(stack, state="failed", error=str(error), pids={}))
            say(str(error))
            return error.exit_code
    except OSError as error:
        say(f"the local stack in {home.root} cannot start: {error}")
        return StackError.exit_code
    Supervisor(home, stack, executable, lock).run()
    return 0


def plan_stack(home: Home, settings: Settings, token: str) -> Stack:
    """Decide ports and slots: the user's choice, else those of last time where still possible."""
    last = last_record(home)
    temporal_port = settings.port or pick_port(last.temporal_port if last else None, set())
    ui_port = settings.ui_port or pick_port(last.temporal_ui_port if last else None, {temporal_port})
    mlflow_port = pick_port(last.mlflow_port if last else None, {temporal_port, ui_port})
    kept_slots = last.slots if last is not None and last.slots_chosen else None
    return Stack(
        state="starting",
        token=token,
        temporal_address=f"{LOOPBACK}:{temporal_port}",
        temporal_ui=f"http://{LOOPBACK}:{ui_port}",
        mlflow_port=mlflow_port,
        mlflow_tracking_uri=home.mlflow_uri,
        store=str(home.store),
        slots=settings.slots or kept_slots or default_training_slots(),
        slots_chosen=settings.slots is not None or kept_slots is not None,
        pids={SUPERVISOR: os.getpid()},
        code=code_digest(),
    )


def _check_chosen_ports(stack: Stack, port: int | None, ui_port: int | None) -> None:
    for name, chosen in (("port", port), ("ui-port", ui_port)):
        if chosen is not None and not is_free(chosen):
            raise StackError(
                f"{name}={chosen} on {LOOPBACK} is taken by another program. "
                f"Choose another, or leave it out and bertpar picks a free one."
            )


class Supervisor:
    """Keeps the services of one home alive, and `stack.json` true.

    A disk that is full ends neither: trainings wait for space with their state in memory.
    """

    def __init__(self, home: Home, stack: Stack, executable: Path, lock: int) -> None:
        self._home = home
        self._lock = lock
        self._stack = stack
        self._written = stack
        """What `stack.json` holds."""
        self._executable = executable
        self._env = roles.child_environment(home)
        self._children: dict[str, Child] = {}
        self._stops_asked = 0
        self._has_served = False

    def run(self) -> None:
        """Start everything, tend it until SIGTERM, and stop it in order."""
        wakeup = self._catch_signals()
        if leftovers := kill_leftovers(self._home.root):
            say(f"killed what an earlier supervisor left behind: {leftovers}")
        self._start_services()
        while not self._stops_asked:
            if not still_holds_lock(self._home, self._lock):
                self._abandon()
                return
            self._tend_mlflow_page()
            changes = [child.tend() for child in self._children.values()]
            if any(changes):
                self._describe()
            self._publish()
            self._wait(wakeup)
        self._stop(wakeup)

    def _start_services(self) -> None:
        self._note_versions()
        service_roles = [
            roles.temporal_role(self._home, self._stack, self._executable, self._env),
            *roles.worker_roles(self._home, self._stack, self._env),
        ]
        if not self._home.mlflow_db.exists():  # it appears whole
            service_roles.append(roles.mlflow_init_role(self._home, self._env))
        self._children = {role.name: Child(role) for role in service_roles}

    def _tend_mlflow_page(self) -> None:
        if MLFLOW not in self._children and ui_request_file(self._home).exists():
            init = self._children.get(MLFLOW_INIT)
            if init is None or init.done:
                self._children[MLFLOW] = Child(roles.mlflow_role(self._home, self._stack, self._env))

    def _describe(self) -> None:
        """Note what runs now."""
        page = self._children.get(MLFLOW)
        required = [child for name, child in self._children.items() if name in _REQUIRED]
        serves = all(child.ready for child in required)
        self._stack = replace(
            self._stack,
            state="up" if serves else "starting",
            pids={SUPERVISOR: os.getpid()}
            | {name: child.pid for name, child in self._children.items() if child.pid is not None},
            failures={n: child.num_failures for n, child in self._children.items() if child.num_failures},
            mlflow_ui=f"http://{LOOPBACK}:{self._stack.mlflow_port}" if page and page.ready else None,
        )

    def _publish(self) -> None:
        """Write down what has changed; what cannot be written now is tried again at the next tick."""
        with suppress(OSError):
            if self._stack.state == "up" and not self._has_served:
                wanted_file(self._home).touch()
                self._has_served = True  # once: a `bertpar down` that is about to reach us has removed it
            if self._stack != self._written:
                write_record(self._home, self._stack)
                self._written = self._stack

    def _abandon(self) -> None:
        """The home was deleted or replaced under us: end without touching what is there now."""
        say(f"{self._home.root} is no longer the folder that this stack was started in")
        for child in self._children.values():
            child.kill()

    def _stop(self, wakeup: socket.socket) -> None:
        """Stop the workers first, so that they can still tell the server, and the server last."""
        self._stack = replace(self._stack, state="stopping")
        self._publish()
        for names in ((EVAL_WORKER, TRAINING_WORKER, MLFLOW_INIT), (MLFLOW,), (TEMPORAL,)):
            group = [self._children[name] for name in names if name in self._children]
            for child in group:
                child.terminate()
            deadline = time.monotonic() + max((child.role.grace_seconds for child in group), default=0)
            while self._stops_asked < 2 and time.monotonic() < deadline:
                if sum(child.is_gone() for child in group) == len(group):
                    break
                self._wait(wakeup, 0.05)
            for child in group:
                child.kill()
        kill_leftovers(self._home.root)
        self._stack = replace(self._stack, state="down", pids={}, failures={}, mlflow_ui=None)
        self._publish()
        say("stopped")

    def _note_versions(self) -> None:
        """Record which Temporal wrote the database, and say so when this is another one."""
        version = roles.temporal_version(self._executable)
        mark = self._home.root / "temporal.db.version"
        before = mark.read_text(encoding="utf-8") if mark.exists() and self._home.temporal_db.exists() else None
        if before and before != version:
            note = (
                f"{self._home.temporal_db} was written by {before!r} and is now served by {version!r}; the "
                f"development server promises no compatibility. If it does not start, install the former."
            )
            say(note)
            self._stack = replace(self._stack, notes=(*self._stack.notes, note))
        if before != version:
            with suppress(OSError):
                mark.write_text(version, encoding="utf-8")
        self._stack = replace(self._stack, temporal_version=version)

    def _catch_signals(self) -> socket.socket:
        reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._wakeup_writer = writer  # kept open
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)
        return reader

    def _on_signal(self, number: int, _frame: object) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stops_asked += 1

    def _wait(self, wakeup: socket.socket, seconds: float | None = None) -> None:
        """Sleep until the next look is due or a signal came."""
        busy = self._stack.state != "up" or any(not child.ready for child in self._children.values())
        tick_seconds = seconds or _TICK_SECONDS["starting" if busy else "up"]
        if select.select([wakeup], [], [], tick_seconds)[0]:
            wakeup.recv(4096)


if __name__ == "__main__":
    sys.exit(main())
