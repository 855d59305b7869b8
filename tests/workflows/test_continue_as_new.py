"""A coordinator's history stays bounded: it continues as new, and no run is lost, repeated or prepared twice."""

from __future__ import annotations

from temporalio.client import WorkflowExecutionStatus

from tests.workflows.conftest import SHORT_HISTORIES, Script, running_sweep, start_server

NUM_RUNS = 8


async def test_a_long_sweep_continues_as_new_and_trains_each_run_once() -> None:
    script = Script()
    async with (
        await start_server(*SHORT_HISTORIES) as server,
        running_sweep(server.client, script, max_parallel=2) as sweep,
    ):
        status = await sweep.run(*(sweep.ref(i) for i in range(NUM_RUNS)))
        query = f"WorkflowId = '{sweep.sweep_id}'"
        executions = [w.status async for w in server.client.list_workflows(query)]
    assert executions.count(WorkflowExecutionStatus.CONTINUED_AS_NEW) >= 1
    assert sorted(job.run_id for job in script.train_jobs) == [f"{sweep.sweep_id}/{i}" for i in range(NUM_RUNS)]
    assert [r.status for r in status.runs] == ["completed"] * NUM_RUNS
    assert len(script.snapshot_jobs) == 1
    assert script.opened.count(sweep.sweep_id) == 1
