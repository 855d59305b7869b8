"""A home of its own with a real local stack, used as a user would: through processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bertpar import faults

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@dataclass
class User:
    """Somebody at a shell with a BERTPAR_HOME."""

    home: Path

    @property
    def environment(self) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("TEMPORAL_", "BERTPAR_", "MLFLOW_"))}
        return {**clean, "BERTPAR_HOME": str(self.home), faults.VARIABLE: str(self.home / "orders")}

    def order(self, point: str, action: str) -> None:
        """Have the next process that reaches the named point die or stop."""
        (self.home / "orders").mkdir(exist_ok=True)
        faults.order(self.home / "orders", point, action)

    def run(self, *command: str, check: bool = True, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done

    def train(self, *overrides: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "train.py", "-m", *overrides, check=check)

    def start_training(self, *overrides: str) -> subprocess.Popen[str]:
        return self._start(sys.executable, "train.py", "-m", *overrides)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return self._start(str(BIN / "bertpar"), *arguments)

    def _start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # where a shell runs the tests in its background, SIGINT is ignored, which a child would inherit
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def bertpar(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(str(BIN / "bertpar"), *arguments, check=check)

    def json(self, *arguments: str) -> Any:
        return json.loads(self.bertpar(*arguments, "--json", check=False).stdout)

    def stack(self) -> dict[str, Any]:
        return dict(json.loads((self.home / "stack.json").read_text()))

    def newest_sweep(self) -> str:
        return str(self.json("ls")[0]["sweep_id"])

    def temporal(self, *arguments: str) -> str:
        stack = self.stack()
        return self.run(str(BIN / "temporal"), *arguments, "--address", stack["temporal_address"]).stdout


@pytest.fixture(scope="session")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    user = User(tmp_path_factory.mktemp("home"))
    yield user
    user.bertpar("down", check=False)


def until(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """Wait for `condition` to give something true, and return it; fails the test when it does not in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.2)
    raise AssertionError(f"not in {seconds} s")
