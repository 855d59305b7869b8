"""One sweep under fire: blow after blow, and then nobody helps but what any bertpar command does."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from temporalio.client import Client
from temporalio.service import RPCError

from bertpar import faults, stack
from bertpar.answers import query
from bertpar.client import connect, temporal_spec
from bertpar.errors import BertparError, NotFoundError
from bertpar.observe import SweepView, observe
from bertpar.paths import Home
from bertpar.verify.storm.outcome import UnderFire, predict
from bertpar.verify.storm.plan import TRAINING_POINTS, Action, SweepPlan, Target
from bertpar.verify.storm.sweeps import Sweeps
from bertpar.verify.storm.targets import Targets, send
from bertpar.verify.storm.tracking import MlflowServer
from bertpar.verify.storm.watch import Reach, Watch
from bertpar.verify.sweeps import Place
from bertpar.workflows.training import TrainingWorkflow

_POLL_SECONDS = 0.3
_ORDER_PATIENCE_SECONDS = 6.0
"""How long the storm waits for a process to come to a named point before it strikes elsewhere."""
_MERCY_SECONDS = 10.0
"""How long it waits for runs to recover before it strikes again."""
_ANSWER_SECONDS = (3.0, 12.0)
"""How long it waits for an answer of Temporal: at first, and at most, where even that was too short."""
_REACH: dict[Target, Reach] = {
    "job": "one run",
    "template": "every run",
    "training_worker": "every run",
    "temporal": "every run",
    "supervisor": "every run",
    "all": "every run",
}
"""Who of the training runs can be held up by a blow."""
_TEXT = "A warm and funny film."


class Fire:
    """Carries out the plan of one sweep."""

    def __init__(
        self, home: Home, sweeps: Sweeps, plan: SweepPlan, server: MlflowServer | None, num_blows: int
    ) -> None:
        self._home = home
        self._sweeps = sweeps
        self._plan = plan
        self._server = server if plan.with_mlflow_server else None
        self._num_blows = num_blows
        self._orders = Path(os.environ[faults.VARIABLE])
        self._name = f"storm-{plan.number:03d}"
        self._store = home.root / "stores" / self._name
        self._client: subprocess.Popen[bytes] | None = None
        self._view: SweepView | None = None
        self._watch = Watch()
        self._started = time.monotonic()
        self._counted: set[str] = set()
        self._later: set[asyncio.Task[None]] = set()
        tracking_uri = self._server.database_uri if self._server else None
        self.result = UnderFire(
            number=plan.number, place=Place.of(home, store_root=str(self._store), tracking_uri=tracking_uri)
        )

    async def run(self, deadline_seconds: float) -> UnderFire:
        """Return what happened, once the sweep has ended or `deadline_seconds` have passed since the last blow."""
        self._clear_orders()
        if self._server is not None:
            await self._server.start()
        try:
            async with asyncio.TaskGroup() as group:  # an error in watching ends all
                background = [group.create_task(work) for work in (self._keep_watching(), self._keep_healing())]
                await self._from_start_to_end(deadline_seconds)
                for task in background:
                    task.cancel()
        finally:
            await self._leave_nothing()
        self.result.seconds = time.monotonic() - self._started
        self.result.recoveries = self._watch.recoveries
        return self.result

    async def _from_start_to_end(self, deadline_seconds: float) -> None:
        if self._num_blows:
            for point in (*self._plan.opening, *self._plan.evaluation):
                faults.order(self._orders, point, "kill")
        await self._submit()
        if self._num_blows:
            await self._strike()
        await self._until(self._has_ended, deadline_seconds)
        if self.result.status == "completed":
            await self._predict()

    def forget(self) -> None:
        """Delete the sweep's store: its results are read and agree."""
        shutil.rmtree(self._store, ignore_errors=True)

    # --- the client -----------------------------------------------------------------------------------------

    async def _submit(self) -> None:
        """Type the command, and again where the client was killed before the sweep was accepted."""
        while not self.result.sweep_id:
            if self._client is None or self._client.poll() is not None:
                self._client = self._start_client()
            await asyncio.sleep(_POLL_SECONDS)
            self._count_obeyed()

    def _start_client(self) -> subprocess.Popen[bytes]:
        command = self._sweeps.command(self._name, self._store, self._server.url if self._server else None)
        with (self._home.logs / f"client-{self._name}.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    async def _predict(self) -> None:
        """Predict as a user would, through a kill in the midst of publishing the prediction."""
        if self._num_blows:
            faults.order(self._orders, self._plan.prediction, "kill")
        bertpar = str(Path(sys.executable).with_name("bertpar"))
        command = [bertpar, "predict", f"{self.result.sweep_id}/0", "--text", _TEXT]
        self.result.prediction = await asyncio.to_thread(predict, command)
        self._count_obeyed()

    # --- blows ----------------------------------------------------------------------------------------------

    async def _strike(self) -> None:
        for action in self._plan.actions():
            if self.result.num_blows >= self._num_blows or self._has_ended():
                return
            if await self._carry_out(action):
                await asyncio.sleep(action.pause_seconds)
                if not action.without_mercy:
                    await self._until(lambda: not self._watch.is_waiting(), _MERCY_SECONDS)
            else:
                await asyncio.sleep(0.05)
            self._count_obeyed()

    async def _carry_out(self, action: Action) -> bool:
        """Strike; return whether anything was there to be hit."""
        client_pid = self._client.pid if self._client is not None and self._client.poll() is None else None
        targets = Targets.of(self._home, client_pid)
        if action.how == "order":
            assert action.point is not None
            return bool(targets.pids["job"]) and await self._order(action.point, action.arrivals)
        assert action.target is not None
        if action.target.startswith("mlflow"):
            return self._hit_mlflow(action)
        pids = targets.pids[action.target]
        pids = pids if action.target in ("all", "template") else pids[:1]
        number = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "term": signal.SIGTERM}[action.how]
        if not send(pids, number):
            return False
        if action.how == "stop":
            self._do_later(self._wake(pids, action.outage_seconds))
        self._hit(action.name, _REACH.get(action.target))
        return True

    async def _order(self, point: str, arrivals: int) -> bool:
        before = self.result.num_blows
        faults.order(self._orders, point, *["pass"] * (arrivals - 1), "kill")
        await self._until(lambda: not any(self._orders.glob(f"{point}.*")), _ORDER_PATIENCE_SECONDS)
        for left in self._orders.glob(f"{point}.*"):
            left.unlink(missing_ok=True)
        return self.result.num_blows > before

    def _hit_mlflow(self, action: Action) -> bool:
        assert action.target is not None
        if self._server is None or not self._server.hit(action.target):
            return False
        self._hit(action.name, None)
        self._do_later(self._restart_mlflow(action.outage_seconds))
        return True

    async def _restart_mlflow(self, outage_seconds: float) -> None:
        await asyncio.sleep(outage_seconds)
        if self._server is not None:
            self._server.stop()
            await self._server.start()

    async def _wake(self, pids: list[int], after_seconds: float) -> None:
        try:
            await asyncio.sleep(after_seconds)
        finally:
            send(pids, signal.SIGCONT)

    def _hit(self, name: str, reach: Reach | None) -> None:
        seconds = round(time.monotonic() - self._started, 2)
        self.result.log.append((seconds, name))
        with (self._home.logs / f"{self._name}.log").open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%H:%M:%S')} {seconds:8.2f} s  {name}\n")
        if reach is not None:
            self._watch.hit(name, time.monotonic(), reach=reach)

    def _count_obeyed(self) -> None:
        """Count the orders that processes have died of since the last look."""
        for taken in self._orders.glob("taken-*"):
            if taken.name not in self._counted and taken.read_text(encoding="utf-8") == "kill":
                point = taken.name.removeprefix("taken-").rpartition("-by-")[0].rpartition(".")[0]
                self._hit(f"kill at {point}", "one run" if point in TRAINING_POINTS else None)
            self._counted.add(taken.name)

    # --- watching -------------------------------------------------------------------------------------------

    async def _keep_watching(self) -> None:
        """Look at the sweep over and over."""
        client: Client | None = None
        patience, longest = _ANSWER_SECONDS
        while True:
            try:
                async with asyncio.timeout(patience):
                    client = client or await connect(temporal_spec(), self._home)
                    await self._look(client)
                patience = _ANSWER_SECONDS[0]
            except (BertparError, RPCError, TimeoutError):
                client, patience = None, min(2 * patience, longest)
            await asyncio.sleep(_POLL_SECONDS)

    async def _keep_healing(self) -> None:
        """Do what any command does first, and a client that is attached all the time: start a dead stack again."""
        while True:
            with suppress(BertparError):
                await asyncio.to_thread(stack.heal, self._home)
            await asyncio.sleep(_POLL_SECONDS)

    async def _look(self, client: Client) -> None:
        if not self.result.sweep_id:
            async for workflow in client.list_workflows("WorkflowType = 'CoordinatorWorkflow'"):
                if workflow.id.startswith(f"{self._name}-"):
                    self.result.sweep_id = workflow.id
            return
        view = await observe(client, self.result.sweep_id)
        self._watch.see(view, time.monotonic())
        if view.sweep.status != "running" and not self._has_ended():
            for run in view.runs:
                with suppress(NotFoundError):  # it failed before its training
                    known = await query(client, f"{run.state.run.run_id}/train", TrainingWorkflow.status)
                    self.result.attempts += len(known.attempts)
                    self.result.lost_steps += self._watch.lost_steps(run.state.run.index, known.attempts)
        self._view = view
        self.result.status = view.sweep.status

    def _has_ended(self) -> bool:
        return self._view is not None and self._view.sweep.status != "running"

    async def _until(self, condition: Callable[[], bool], patience_seconds: float) -> None:
        """Return once the condition holds, the sweep has ended, or patience is at its end."""
        deadline = time.monotonic() + patience_seconds
        while not (condition() or self._has_ended()) and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_SECONDS)
            self._count_obeyed()

    # --- afterwards -----------------------------------------------------------------------------------------

    def _do_later(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _leave_nothing(self) -> None:
        for task in self._later:
            task.cancel()  # who sleeps is woken
        await asyncio.gather(*self._later, return_exceptions=True)
        self._clear_orders()
        if self._client is not None:
            self._client.kill()
            self._client.wait()

    def _clear_orders(self) -> None:
        for left in self._orders.iterdir():
            left.unlink(missing_ok=True)
