"""The sweep's report: made once, after the last run and before the sweep's MLflow run is closed; never in its way."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError

from bertpar import cli
from bertpar.activities.report import make_report as really_make_report
from bertpar.events import TrainJob, TrainResult
from bertpar.mlflow_jobs import ReportJob
from bertpar.spec import TrackingSpec
from bertpar.states import RunBatch, tracking_queue
from bertpar.store import Store
from bertpar.workflows import CoordinatorWorkflow
from tests.workflows.conftest import Script, running_sweep, train_at_once, until
from tests.workflows.test_compare_command import finished_sweep


async def test_the_report_comes_after_the_runs_and_before_the_sweeps_mlflow_run_is_closed(client: Client) -> None:
    script = Script()
    closed_before: list[set[str]] = []

    async def make_report(job: ReportJob) -> None:
        closed_before.append(set(script.closed))

    script.make_report = make_report
    async with running_sweep(client, script) as sweep:
        await sweep.run(sweep.ref(0), sweep.ref(1))
        assert closed_before == [{f"{sweep.sweep_id}/0", f"{sweep.sweep_id}/1"}]
        assert [(job.opening.identity, job.status) for job in script.report_jobs] == [(sweep.sweep_id, "completed")]
        assert script.queues["make_report"] == tracking_queue(sweep.options.eval_queue)
        assert script.closed[sweep.sweep_id] == "FINISHED"


async def test_a_report_that_cannot_be_made_leaves_the_sweep_completed(client: Client) -> None:
    async def make_report(job: ReportJob) -> None:
        raise ApplicationError("no page", type="KeyError", non_retryable=True)

    script = Script(make_report=make_report)
    async with running_sweep(client, script) as sweep:
        status = await sweep.run(sweep.ref(0))
        assert status.status == "completed"
        assert script.closed[sweep.sweep_id] == "FINISHED"
        assert len(script.report_jobs) == 1


async def test_an_outage_is_waited_for_but_not_without_end(client: Client) -> None:
    async def make_report(job: ReportJob) -> None:
        if len(script.report_jobs) == 1:
            raise ApplicationError("MLflow is away", type="TrackingError")

    script = Script(make_report=make_report)
    async with running_sweep(client, script) as sweep:
        await sweep.run(sweep.ref(0))
        assert len(script.report_jobs) == 2
        history = await client.get_workflow_handle(sweep.sweep_id).fetch_history()
    scheduled = [event.activity_task_scheduled_event_attributes for event in history.events]
    (policy,) = [what.retry_policy for what in scheduled if what.activity_type.name == "make_report"]
    assert policy.maximum_attempts == 6


async def test_a_cancelled_sweep_has_a_report_that_says_so(client: Client) -> None:
    async def train(job: TrainJob) -> TrainResult:
        await asyncio.Event().wait()
        return await train_at_once(job)

    script = Script(train=train)
    async with running_sweep(client, script) as sweep:
        handle = await sweep.start()
        await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=(sweep.ref(0),), final=True))
        await until(lambda: bool(script.train_jobs))
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        assert [job.status for job in script.report_jobs] == ["cancelled"]


async def test_a_sweep_of_which_no_run_began_has_no_report(client: Client) -> None:
    script = Script()
    async with running_sweep(client, script) as sweep:
        handle = await sweep.start()
        await handle.signal(CoordinatorWorkflow.close)
        await handle.result()
        assert script.report_jobs == []


async def test_the_page_is_an_artifact_of_the_sweeps_mlflow_run_and_a_command_writes_it(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(str(tmp_path / "store"), tmp_path / "cache")
    tracking = TrackingSpec(uri=f"sqlite:///{tmp_path / 'mlflow.db'}", experiment="test")
    right = [True, False] * 20
    script = Script(make_report=really_make_report)
    async with finished_sweep(client, store, [right, right], script=script, tracking=tracking) as sweep:
        (artifact,) = await asyncio.to_thread(lambda: list((tmp_path / "mlartifacts").rglob("report.html")))
        logged = artifact.read_text(encoding="utf-8")
        address = client.service_client.config.target_host
        out = tmp_path / "page.html"

        async def report(to: Path) -> int:
            return await asyncio.to_thread(cli.run, ["report", sweep.sweep_id, "--out", str(to), "--address", address])

        assert await report(out) == 0
        assert await report(tmp_path) == 2
        assert f"--out {tmp_path} is a folder" in capsys.readouterr().err
        assert await report(tmp_path / "no" / "page.html") == 2
    for page in (logged, out.read_text(encoding="utf-8")):
        assert f"<h1>{sweep.sweep_id}</h1>" in page
        assert '<span class="status completed">completed</span>' in page
        assert "Winner not separable from runner-up" in page
