"""A sweep on its way, with trainings that can be told to leave, as real ones can."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError

from bertpar import steer
from bertpar.events import TrainJob, TrainResult
from bertpar.states import Command, RunBatch, RunState, Steered, SweepStatus
from bertpar.workflows import CoordinatorWorkflow
from tests.workflows.conftest import Script, Sweep, at_rest, checkpoint, running_sweep, save, trained


@dataclass
class Trainings:
    """Trainings that go on until a test lets them end; told to leave, they make a checkpoint, as real ones do."""

    may_end: set[int] = field(default_factory=set)
    """Indices of the runs whose trainings may end."""
    all_may_end: bool = False
    running: set[int] = field(default_factory=set)
    started: list[int] = field(default_factory=list)
    numbers: list[tuple[int, int]] = field(default_factory=list)
    """Run and number of every attempt that began."""

    async def train(self, job: TrainJob) -> TrainResult:
        index = int(job.run_id.rpartition("/")[2])
        self.running.add(index)
        self.started.append(index)
        self.numbers.append((index, job.attempt))
        try:
            while not (self.all_may_end or index in self.may_end):
                activity.heartbeat()
                await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            await save(job, checkpoint(job, job.attempt * 10 + 5))
            raise ApplicationError("left in order", None, job.attempt * 10 + 6, type="PreemptedError") from None
        finally:
            self.running.discard(index)
        return trained(job, checkpoint(job, 100))


@dataclass
class Live:
    """A sweep on its way."""

    sweep: Sweep
    trainings: Trainings
    client: Client

    @property
    def sweep_id(self) -> str:
        return self.sweep.sweep_id

    async def status(self) -> SweepStatus:
        return await self.client.get_workflow_handle(self.sweep_id).query(CoordinatorWorkflow.status)

    async def state(self, index: int) -> RunState:
        return (await self.status()).runs[index]

    async def reaches(self, *statuses: str) -> SweepStatus:
        """Wait until the runs have these states, also for the next command, and return the sweep's."""
        handle = self.client.get_workflow_handle_for(CoordinatorWorkflow.run, self.sweep_id)
        await at_rest(handle, lambda status: [state.status for state in status.runs] == list(statuses))
        return await self.status()

    async def steer(self, kind: object, run: int | None = None, **more: object) -> Steered:
        command = Command(kind=kind, run=run, **more)  # type: ignore[arg-type]
        return await steer.steer(self.client, self.sweep_id, command, print)

    async def begin(self, num_runs: int) -> None:
        handle = await self.sweep.start()
        runs = tuple(self.sweep.ref(index) for index in range(num_runs))
        await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=runs, final=True))

    async def end(self) -> SweepStatus:
        """Let everything end."""
        self.trainings.all_may_end = True
        await self.client.get_workflow_handle(self.sweep_id).result()
        return await self.status()


@asynccontextmanager
async def live(client: Client, num_runs: int, *, starts: bool = True, **options: object) -> AsyncIterator[Live]:
    trainings = Trainings()
    script = Script(train=trainings.train)
    async with running_sweep(client, script, **options) as sweep:  # type: ignore[arg-type]
        alive = Live(sweep, trainings, client)
        if starts:
            await alive.begin(num_runs)
        yield alive


def begun(trainings: Trainings, *indices: int) -> Callable[[], bool]:
    return lambda: trainings.running == set(indices)
