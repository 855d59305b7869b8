"""Commands of `bertpar` against real workflows whose activities follow a script."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.client import Client
from temporalio.exceptions import ApplicationError

from bertpar import cli
from bertpar.events import RunBatch, TrainJob, TrainResult
from bertpar.workflows import CoordinatorWorkflow
from tests.workflows.conftest import Script, running_sweep, train_at_once


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
        async with asyncio.timeout(30):
            while (await handle.query(CoordinatorWorkflow.status)).paused is None:
                await asyncio.sleep(0.1)
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
