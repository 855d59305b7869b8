"""An MLflow server of the storm's own, so that it can be away: a process group that is killed and started again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import suppress

import psutil

from bertpar.paths import Home
from bertpar.stack.ports import LOOPBACK, pick_port
from bertpar.stack.roles import is_healthy
from bertpar.tracking import initialise_database
from bertpar.verify.storm.plan import Target
from bertpar.verify.storm.targets import send

_START_SECONDS = 60.0


class MlflowServer:
    """`mlflow server` over a database of its own. Whoever reads results reads the database."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None
        self._port = pick_port(None, set())
        self.database_uri = f"sqlite:///{home.root / 'mlflow-server' / 'mlflow.db'}"

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self._port}"

    async def start(self) -> None:
        """Start it, unless it runs, and wait until it answers."""
        if self._process is None:
            await asyncio.to_thread(initialise_database, self.database_uri)
            self._process = self._launch()
        deadline = asyncio.get_running_loop().time() + _START_SECONDS
        while not await asyncio.to_thread(is_healthy, self.url):
            if asyncio.get_running_loop().time() > deadline:
                raise RuntimeError(f"the storm's MLflow server does not answer at {self.url}")
            await asyncio.sleep(0.2)

    def _launch(self) -> subprocess.Popen[bytes]:
        folder = self._home.root / "mlflow-server"
        argv = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", LOOPBACK]
        argv += ["--port", str(self._port), "--backend-store-uri", self.database_uri]
        argv += ["--artifacts-destination", (folder / "artifacts").as_uri()]
        env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (folder / "server.log").open("ab") as log:
            return subprocess.Popen(argv, env=env, stdout=log, stderr=log, start_new_session=True)

    def hit(self, target: Target) -> bool:
        """Kill the parent alone, a child, or the whole group; say whether there was one."""
        if self._process is None:
            return False
        pid = self._process.pid
        with suppress(psutil.Error, ProcessLookupError):
            if target == "mlflow_group":
                os.killpg(pid, signal.SIGKILL)
                return True
            children = [child.pid for child in psutil.Process(pid).children()]
            return send([pid] if target == "mlflow_parent" else children[-1:], signal.SIGKILL)
        return False

    def stop(self) -> None:
        """End all of it: children of a killed parent go on serving."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
