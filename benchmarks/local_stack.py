"""A local stack of a benchmark's own: started by the first command, gone at the end, its processor time accounted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from common import ROOT


class LocalStack:
    """The stack of one home, as a user has it who types commands into a shell."""

    def __init__(self, home: Path) -> None:
        self.home = home
        foreign = ("TEMPORAL_", "BERTPAR_", "MLFLOW_")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(foreign)} | {"BERTPAR_HOME": str(home)}

    def pids(self) -> dict[str, int]:
        """Return the process ids of the services by role; empty while there are none."""
        try:
            pids: dict[str, int] = json.loads((self.home / "stack.json").read_text())["pids"]
        except (OSError, ValueError, KeyError):
            return {}  # not there yet
        return pids

    def processes(self) -> set[psutil.Process]:
        """Return the services and all processes below them."""
        return family(self.pids().values())

    def cpu_seconds(self) -> float:
        """Return the processor time of the services and their jobs, the ended ones included, since the stack began."""
        total = 0.0
        for process in self.processes():
            with suppress(psutil.Error):
                times = process.cpu_times()  # children_*: those that have ended
                total += times.user + times.system + times.children_user + times.children_system
        return total

    def command(self, *arguments: str) -> list[str]:
        """Return the command line of `bertpar ARGUMENTS`."""
        return [sys.executable, "-m", "bertpar.cli", *arguments]

    def sweep_command(self, *overrides: str) -> list[str]:
        """Return the command line of a sweep."""
        return [sys.executable, str(ROOT / "train.py"), "-m", *overrides]

    def sweep(self, *overrides: str) -> None:
        """Run a sweep to its end."""
        self._run(self.sweep_command(*overrides))

    def ask(self, *arguments: str) -> Any:
        """Return what `bertpar ARGUMENTS --json` says."""
        return json.loads(self._run(self.command(*arguments, "--json")))

    def down(self) -> None:
        """Stop the services."""
        self._run(self.command("down"))

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(command, cwd=ROOT, env=self.env, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"error: {' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done.stdout


@contextmanager
def local_stack() -> Iterator[LocalStack]:
    """Give a stack of a fresh home, which no service runs yet; both are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="bertpar-bench-", ignore_cleanup_errors=True) as folder:
        stack = LocalStack(Path(folder))
        try:
            yield stack
        finally:
            stack.down()


def family(roots: Iterable[int]) -> set[psutil.Process]:
    """Return the processes and all below them."""
    members: set[psutil.Process] = set()
    for root in roots:
        with suppress(psutil.Error):  # it has just ended
            members |= {psutil.Process(root), *psutil.Process(root).children(recursive=True)}
    return members
