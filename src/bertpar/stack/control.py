"""What commands do with the local stack: start it, look at it, stop it, ask it for MLflow's page."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress

from bertpar.code import code_digest
from bertpar.errors import StackError
from bertpar.paths import HOME_VARIABLE, Home
from bertpar.stack.child import kill_leftovers
from bertpar.stack.ports import is_serving
from bertpar.stack.record import (
    EVAL_WORKER,
    MLFLOW,
    MLFLOW_INIT,
    SUPERVISOR,
    TEMPORAL,
    TRAINING_WORKER,
    Stack,
    current_record,
    is_locked,
    last_record,
    ui_request_file,
    wanted_file,
)
from bertpar.stack.roles import is_healthy, supervisor_environment
from bertpar.stack.settings import Settings, settings_from_environment

OnWait = Callable[[str], None]
"""Called with one sentence for the user when something takes a while or is worth knowing."""

_POLL_SECONDS = 0.03
_LEAST_FREE_BYTES = 65536
"""A stack begins only where so much can be written: a supervisor that has no space for its record is of no use."""
_HOPELESS_FAILURES = 3
"""Ends in a row without having become ready, after which waiting for a service is given up."""


def read(home: Home) -> Stack | None:
    """Return the stack that runs now (state `starting`, `up` or `stopping`), or None."""
    return current_record(home)


def runs_other_code(stack: Stack) -> bool:
    """Say whether bertpar's source has changed since the stack was started."""
    return stack.code != code_digest()


def ensure_up(
    home: Home,
    *,
    slots: int | None = None,
    port: int | None = None,
    ui_port: int | None = None,
    timeout_seconds: float = 60.0,
    on_wait: OnWait = lambda _message: None,
) -> Stack:
    """Return the running stack, after starting it where it is not. Two callers at once share one.

    What is None comes from BERTPAR_SLOTS, BERTPAR_PORT and BERTPAR_UI_PORT, which only matter at a start.
    What is given must also hold for a stack that runs already.

    Raises:
        StackError: it does not come up (with the reason or the end of a log), or runs with other choices.
    """
    given = Settings(slots=slots, port=port, ui_port=ui_port)
    stack = _bring_up(home, given, timeout_seconds, on_wait, while_wanted=False)
    assert stack is not None
    return stack


def heal(home: Home, *, timeout_seconds: float = 60.0, on_wait: OnWait = lambda _message: None) -> Stack | None:
    """Return the stack that runs now, after starting it again where it died; None where nobody wants one.

    It died if it has been up, is no more, and `bertpar down` is not the reason: it was killed, or the machine
    went down. Unfinished sweeps then go on. A `bertpar down` at the same moment wins.

    Raises:
        StackError: it does not come up again.
    """
    if (running := current_record(home)) is not None or not wanted_file(home).exists():
        return running
    return _bring_up(home, Settings(), timeout_seconds, on_wait, while_wanted=True)


def _bring_up(
    home: Home, given: Settings, timeout_seconds: float, on_wait: OnWait, *, while_wanted: bool
) -> Stack | None:
    """Start a supervisor where none lives, and wait for its stack; None if `while_wanted` and it no longer is."""
    launched: subprocess.Popen[bytes] | None = None
    announced = False
    deadline = time.monotonic() + timeout_seconds
    while True:
        stack = current_record(home)
        if stack is not None and stack.state == "up":
            _check_agrees(stack, given)
            for note in stack.notes if launched is not None else ():
                on_wait(note)
            return stack
        if stack is not None:
            _check_hope(home, stack)
        if not announced:
            announced = True
            died = wanted_file(home).exists() and not is_locked(home)
            on_wait(
                f"the local stack in {home.root} has died; starting it again, unfinished sweeps go on"
                if died
                else f"starting the local stack in {home.root}"
            )
        if launched is not None and (launched.poll() or 0) > 0:  # killed (< 0): by the one that was first
            raise _launch_failure(home)
        if not is_locked(home) and (launched is None or launched.poll() is not None):
            if while_wanted and not wanted_file(home).exists():
                return None
            launched = _launch(home, given)
        if time.monotonic() > deadline:
            raise _timed_out(home, stack, timeout_seconds)
        time.sleep(_POLL_SECONDS)


def down(home: Home, *, timeout_seconds: float = 60.0) -> bool:
    """Stop the stack in order, workers first; kill it where that takes longer than `timeout_seconds`.

    Unfinished sweeps stay in the database and go on at the next start. Return whether anything was running.
    """
    wanted_file(home).unlink(missing_ok=True)  # first of all: from now on nobody heals it
    deadline = time.monotonic() + timeout_seconds
    while (stack := current_record(home)) is None and is_locked(home) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)  # its supervisor has only just begun
    if stack is not None:
        with suppress(ProcessLookupError):
            os.kill(stack.pids[SUPERVISOR], signal.SIGTERM)
        while is_locked(home) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        if (still := current_record(home)) is not None and still.token == stack.token:
            with suppress(ProcessLookupError):
                os.kill(stack.pids[SUPERVISOR], signal.SIGKILL)
    ui_request_file(home).unlink(missing_ok=True)
    # Another command may have started a new one by now, which sees to leftovers itself.
    leftovers = [] if is_locked(home) else kill_leftovers(home.root)
    return stack is not None or bool(leftovers)


def request_mlflow_ui(home: Home, *, timeout_seconds: float = 60.0, on_wait: OnWait = lambda _message: None) -> str:
    """Return the URL of MLflow's page over the local database, once it answers; start the stack if needed.

    Raises:
        StackError: the stack or the page does not come up.
    """
    stack = ensure_up(home, on_wait=on_wait)
    if stack.mlflow_ui is not None and is_healthy(stack.mlflow_ui):
        return stack.mlflow_ui
    ui_request_file(home).touch()
    with suppress(ProcessLookupError):
        os.kill(stack.pids[SUPERVISOR], signal.SIGUSR1)  # look now
    on_wait("starting MLflow's page")
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        current = current_record(home)
        if current is None:
            raise StackError(f"the local stack ended meanwhile.{log_tail(home, SUPERVISOR)}")
        if current.mlflow_ui is not None and is_healthy(current.mlflow_ui):
            return current.mlflow_ui
        if current.failures.get(MLFLOW, 0) >= _HOPELESS_FAILURES:
            break
        time.sleep(_POLL_SECONDS)
    raise StackError(f"MLflow's page does not come up.{log_tail(home, MLFLOW)}")


def log_tail(home: Home, role: str, num_lines: int = 12) -> str:
    """Return the end of a role's log with its path, ready to follow a sentence."""
    path = home.logs / f"{role}.log"
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-num_lines:]
    except OSError:
        return ""
    return f" The end of {path}:\n" + "\n".join(f"  {line}" for line in lines) if lines else f" (Nothing in {path}.)"


def _launch(home: Home, given: Settings) -> subprocess.Popen[bytes]:
    """Start a supervisor that outlives this process. It gives way where another is already there."""
    chosen = settings_from_environment(os.environ)
    argv = [sys.executable, "-m", "bertpar.stack.supervisor", "--home", str(home.root)]
    for option, value in (
        ("--slots", given.slots or chosen.slots),
        ("--port", given.port or chosen.port),
        ("--ui-port", given.ui_port or chosen.ui_port),
    ):
        argv += [option, str(value)] if value is not None else []
    try:
        home.logs.mkdir(parents=True, exist_ok=True)
        home.lock_file.touch()
        with tempfile.TemporaryFile(dir=home.root) as file:
            file.write(bytes(_LEAST_FREE_BYTES))
        with (home.logs / f"{SUPERVISOR}.log").open("ab") as log:
            return subprocess.Popen(
                argv,
                env=supervisor_environment(home),
                cwd=home.root,  # not the caller's folder: that one may be unmounted or deleted some day
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
    except OSError as error:
        raise StackError(
            f"{HOME_VARIABLE}={home.root} cannot be written: {error}. Free some space there if it is full, "
            f"or name a folder that this user may write: export {HOME_VARIABLE}=/path/to/folder"
        ) from error


def _check_agrees(stack: Stack, given: Settings) -> None:
    for name, wanted, actual in (
        ("slots", given.slots, stack.slots),
        ("port", given.port, stack.temporal_port),
        ("ui-port", given.ui_port, stack.temporal_ui_port),
    ):
        if wanted is not None and wanted != actual:
            raise StackError(
                f"the local stack runs with {name}={actual}, not {wanted}. Stop it first (bertpar down: "
                f"unfinished runs go on from their last checkpoint), then: bertpar up --{name} {wanted}"
            )


def _check_hope(home: Home, stack: Stack) -> None:
    for role, num_failures in stack.failures.items():
        if role not in (MLFLOW, MLFLOW_INIT) and num_failures >= _HOPELESS_FAILURES:
            raise StackError(f"{role} of the local stack ends again and again.{log_tail(home, role)}")


def _launch_failure(home: Home) -> StackError:
    failed = last_record(home)
    if failed is not None and failed.state == "failed" and failed.error:
        return StackError(failed.error)
    return StackError(f"the local stack could not be started.{log_tail(home, SUPERVISOR)}")


def _timed_out(home: Home, stack: Stack | None, timeout_seconds: float) -> StackError:
    waited = f"the local stack is not up after {timeout_seconds:g} s"
    if stack is None:
        return StackError(f"{waited}.{log_tail(home, SUPERVISOR)}")
    if stack.state == "stopping":
        return StackError(f"{waited}: another command is stopping it. Try again.")
    if not is_serving(stack.temporal_port):
        return StackError(f"{waited}: its Temporal server does not answer.{log_tail(home, TEMPORAL)}")
    logs = "".join(log_tail(home, role) for role in stack.pids if role in (EVAL_WORKER, TRAINING_WORKER))
    return StackError(f"{waited}: its server answers, but a worker is missing.{logs}")
