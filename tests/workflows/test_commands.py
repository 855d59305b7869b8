"""Commands of `bertpar` against real workflows whose activities follow a script."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError

from bertpar import cli
from bertpar.client import temporal_spec
from bertpar.errors import WorkflowStuckError
from bertpar.events import TrainJob, TrainResult
from bertpar.observe import observe
from bertpar.paths import Home
from bertpar.patience import PatientClient
from bertpar.states import RunBatch, SweepState
from bertpar.worker import make_worker
from bertpar.workflows import WORKFLOWS, CoordinatorWorkflow
from tests.workflows.conftest import Script, at_rest, running_sweep, train_at_once


async def fail_alike(job: TrainJob) -> TrainResult:
    if job.run_id.endswith("/3"):
        return await train_at_once(job)
    raise ApplicationError("KeyError: 'x'", 'File "module.py", line 1, in f\nKeyError', None, type="KeyError")


async def test_resume_lets_a_paused_sweep_go_on_and_refuses_any_other(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    address = client.service_client.config.target_host
    async with running_sweep(client, Script(train=fail_alike), max_parallel=1, max_attempts=1) as sweep:

        async def resume() -> int:
            return await asyncio.to_thread(cli.run, ["resume", sweep.sweep_id, "--address", address])

        handle = await sweep.start()
        assert await resume() == 2
        assert "is not paused" in capsys.readouterr().err
        runs = tuple(sweep.ref(index) for index in range(4))
        await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=runs, final=True))
        await at_rest(handle, lambda status: status.paused is not None)
        assert await resume() == 0
        await handle.result()
        assert [run.status for run in (await handle.query(CoordinatorWorkflow.status)).runs][-1] == "completed"
        assert await resume() == 2


async def test_why_tells_each_try_of_a_run_that_failed_for_good(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    address = client.service_client.config.target_host
    async with running_sweep(client, Script(train=fail_alike), max_attempts=2) as sweep:
        await sweep.run(sweep.ref(0))
        assert await asyncio.to_thread(cli.run, ["why", f"{sweep.sweep_id}/0", "--address", address]) == 0
    told = capsys.readouterr().out
    assert f"run {sweep.sweep_id}/0: failed after 2 attempts at training" in told
    assert told.count("KeyError: KeyError: 'x'") == 2


@workflow.defn(name="CoordinatorWorkflow", sandboxed=False)
class ChangedCoordinator:
    """A coordinator as a later version might have it: not what the history of an older one tells."""

    @workflow.run
    async def run(self, state: SweepState) -> None:
        await workflow.sleep(timedelta(days=1))


async def test_a_sweep_whose_workflow_cannot_answer_is_told_as_that_and_followed_on(
    client: Client, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    queue = "changed-code"

    async with running_sweep(client, Script(), eval_queue=queue) as sweep:
        handle = await sweep.start()
        await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=(sweep.ref(0),), final=False))
        # It waits for another batch: nothing of it is under way, whose end would be one more task that fails.
        await at_rest(handle, lambda status: status.runs[0].status == "completed")
    address = client.service_client.config.target_host
    patient = PatientClient(client, temporal_spec(address), Home(tmp_path))
    changed = make_worker(
        "eval", client, queue=queue, workflows=[ChangedCoordinator], activities=[], num_slots=1, grace=timedelta(0)
    )
    async with changed:
        with pytest.raises(WorkflowStuckError, match=f"workflow {sweep.sweep_id} cannot answer"):
            await observe(client, sweep.sweep_id)
        assert await asyncio.to_thread(cli.run, ["status", sweep.sweep_id, "--address", address]) == 1
        assert "another kind" not in capsys.readouterr().err
        following = asyncio.create_task(patient.ask(lambda c: observe(c, sweep.sweep_id)))
        said = ""
        while not said:
            said = capsys.readouterr().err
            await asyncio.sleep(0.05)
        assert "This client waits" in said
        assert not following.done()
    right = make_worker(
        "eval", client, queue=queue, workflows=WORKFLOWS, activities=[], num_slots=1, grace=timedelta(0)
    )
    async with right:
        assert (await following).sweep.sweep_id == sweep.sweep_id
    await handle.terminate()


async def test_sweeps_are_listed_by_their_start_whatever_ended_last(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    address = client.service_client.config.target_host
    go_on = asyncio.Event()

    async def train(job: TrainJob) -> TrainResult:
        await go_on.wait()
        return await train_at_once(job)

    async with running_sweep(client, Script(train=train)) as first, running_sweep(client, Script()) as second:
        handle = await first.start()
        runs = (first.ref(0), first.ref(1))
        await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=runs, final=True))
        cancelled = await client.start_workflow(
            CoordinatorWorkflow.run,
            SweepState(sweep_id="to-be-cancelled", name="test", options=first.options),
            id="to-be-cancelled",
            task_queue=first.options.eval_queue,
        )
        await second.run(second.ref(0))
        await cancelled.cancel()
        with pytest.raises(WorkflowFailureError):
            await cancelled.result()
        go_on.set()
        await handle.result()

    async def ls(*options: str) -> str:
        assert await asyncio.to_thread(cli.run, ["ls", "-n", "3", "--address", address, *options]) == 0
        return capsys.readouterr().out

    async def settled() -> list[dict[str, object]]:
        """Return the list once the server, which lists a moment later, has all three with their ends."""
        ours = {first.sweep_id, second.sweep_id, "to-be-cancelled"}
        async with asyncio.timeout(60):
            while True:
                sweeps: list[dict[str, object]] = json.loads(await ls("--json"))
                ended = {sweep["sweep_id"] for sweep in sweeps if sweep["status"] != "running"}
                if ended == ours:
                    return sweeps
                await asyncio.sleep(0.1)

    sweeps = await settled()
    assert [sweep["sweep_id"] for sweep in sweeps] == [second.sweep_id, "to-be-cancelled", first.sweep_id]
    assert [sweep["status"] for sweep in sweeps] == ["completed", "cancelled", "completed"]
    assert [sweep["runs"] for sweep in sweeps] == [1, None, 2]
    header, newest, *_ = (await ls()).splitlines()
    assert header.split()[:4] == ["sweep", "status", "runs", "started"]
    assert newest.startswith(second.sweep_id)
