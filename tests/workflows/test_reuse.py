"""Equal runs are computed once: those that are done, those in flight, and those that were stopped half-way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from temporalio import activity, workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError

from bertpar.activities.reuse import claim_run
from bertpar.checkpoints import checkpoint_key, reference_to
from bertpar.claims import KeptResult
from bertpar.codec import publish_spec
from bertpar.errors import CheckpointDamagedError
from bertpar.events import CheckpointRef, EvaluateJob, EvaluateResult, TrainJob, TrainResult
from bertpar.mlflow_jobs import CONTINUES_TAG, REUSED_TAG, CloseRunJob, CopiedRows, OpenRunJob
from bertpar.results import claim, claims, identify_stored, keep_result
from bertpar.states import RunBatch, RunRef, SweepState, SweepStatus
from bertpar.store import Store
from bertpar.worker import make_worker
from bertpar.workflows import CoordinatorWorkflow
from tests.unit.test_compose import run_spec
from tests.workflows.conftest import SNAPSHOT, Script, Sweep, running_sweep, save, trained, until


class Work:
    """Trainings and evaluations that leave real bundles in a real store, so that real claims find them."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(str(folder / "store"), folder / "cache")
        self.spec_key = publish_spec(self.store, run_spec())
        self.takes_offers = True
        """Trainings go on from the checkpoints of equal runs, as on the kind of machine that made them."""
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def train(self, job: TrainJob) -> TrainResult:
        continues = job.resume_from[0] if job.resume_from and self.takes_offers else None
        if continues is not None:
            await save(job, continues)
        last = self._checkpoint(job, 10)
        await save(job, last)
        while not self.go_on.is_set():
            activity.heartbeat()
            await asyncio.sleep(0.05)
        return replace(trained(job, last), continues=continues)

    async def evaluate(self, job: EvaluateJob) -> EvaluateResult:
        bundle = self.store.publish(f"runs/{job.run_id}/evaluation/e", lambda f: (f / "r").write_text("r") and None)
        result = EvaluateResult(key=bundle.key, digest=bundle.digest, metrics={"test/accuracy": 0.75})
        if job.kept_with is not None:
            assert job.code is not None
            identity = identify_stored(self.store, job.spec_key, job.snapshot, job.code)
            keep_result(self.store, identity, KeptResult(run_id=job.run_id, training=job.kept_with, evaluation=result))
        return result

    def _checkpoint(self, job: TrainJob, step: int) -> CheckpointRef:
        meta = {"step": step, "attempt": job.attempt, "metrics": {"val/accuracy": 0.5}, "work_seconds": 7.0}
        key = checkpoint_key(job.run_id, job.attempt, step)
        return reference_to(self.store.publish(key, lambda f: (f / "w").write_text("w") and None, meta))


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    monkeypatch.setenv("BERTPAR_HOME", str(tmp_path / "home"))
    return Work(tmp_path)


def script(work: Work, **behaviour: Callable[..., Awaitable[object]]) -> Script:
    return Script(train=work.train, evaluate=work.evaluate, claim_run=claim_run, **behaviour)  # type: ignore[arg-type]


def equal(sweep: Sweep, work: Work, index: int) -> RunRef:
    return replace(sweep.ref(index), spec_key=work.spec_key)


async def test_a_run_that_was_computed_before_is_not_computed_again_and_says_whose_it_is(
    client: Client, work: Work
) -> None:
    options = {"store_root": work.store.root}
    async with running_sweep(client, script(work), **options) as first:
        await first.run(equal(first, work, 0))
    async with running_sweep(client, later := script(work), **options) as second:
        (state,) = (await second.run(equal(second, work, 0))).runs
    assert not later.train_jobs
    assert (state.status, state.reused, state.origin) == ("completed", True, f"{first.sweep_id}/0")
    assert state.metrics == {"val/accuracy": 0.5, "test/accuracy": 0.75}
    (closed, _) = later.close_jobs
    assert closed.opening.tags[REUSED_TAG] == f"{first.sweep_id}/0"
    assert closed.evaluation is not None
    assert not closed.evaluation.model
    assert closed.opening.copied is not None
    assert closed.opening.copied.run_id == f"{first.sweep_id}/0"


@pytest.mark.parametrize("cache", ["off", "read"])
async def test_a_sweep_that_may_not_offer_its_results_leaves_none(client: Client, work: Work, cache: str) -> None:
    options = {"store_root": work.store.root}
    async with running_sweep(client, script(work), cache=cache, **options) as first:
        await first.run(equal(first, work, 0))
    async with running_sweep(client, later := script(work), **options) as second:
        await second.run(equal(second, work, 0))
    assert len(later.train_jobs) == 1


@pytest.mark.parametrize(("cache", "num_trained"), [("off", 1), ("read", 0)])
async def test_a_sweep_takes_what_is_there_unless_it_may_not(
    client: Client, work: Work, cache: str, num_trained: int
) -> None:
    options = {"store_root": work.store.root}
    async with running_sweep(client, script(work), **options) as first:
        await first.run(equal(first, work, 0))
    async with running_sweep(client, later := script(work), cache=cache, **options) as second:
        await second.run(equal(second, work, 0))
    assert len(later.train_jobs) == num_trained


async def test_two_equal_runs_in_flight_train_once(client: Client, work: Work) -> None:
    work.go_on.clear()
    async with running_sweep(client, told := script(work), store_root=work.store.root) as sweep:
        handle = await sweep.start()
        refs = (equal(sweep, work, 0), equal(sweep, work, 1))
        await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=refs, final=True))
        await until(lambda: len(told.claim_jobs) >= 4)  # the second has come back to ask again
        work.go_on.set()
        await handle.result()
        states = (await handle.query(CoordinatorWorkflow.status)).runs
    assert len(told.train_jobs) == 1
    assert sorted(state.reused for state in states) == [False, True]
    assert [state.status for state in states] == ["completed", "completed"]


async def cancelled_half_way(client: Client, work: Work) -> str:
    """Return the id of a run that was cancelled after it had made a checkpoint."""
    work.go_on.clear()
    async with running_sweep(client, script(work), store_root=work.store.root) as sweep:
        handle = await sweep.start()
        runs = (equal(sweep, work, 0),)
        await handle.execute_update(CoordinatorWorkflow.add_runs, RunBatch(runs=runs, final=True))
        await until(lambda: bool(work.store.list("runs")))
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
    work.go_on.set()
    return f"{sweep.sweep_id}/0"


async def test_the_run_of_a_cancelled_sweep_is_gone_on_with_from_its_last_checkpoint(
    client: Client, work: Work
) -> None:
    cancelled = await cancelled_half_way(client, work)
    opened: list[OpenRunJob] = []
    told = asyncio.Event()

    async def open_run(job: OpenRunJob) -> None:
        opened.append(job)
        if job.copied is not None:
            told.set()

    async def train(job: TrainJob) -> TrainResult:
        result = await work.train(job)
        await told.wait()
        return result

    later = Script(train=train, evaluate=work.evaluate, claim_run=claim_run, open_run=open_run)
    async with running_sweep(client, later, store_root=work.store.root) as second:
        (state,) = (await second.run(equal(second, work, 0))).runs
    (job,) = later.train_jobs
    assert [c.key for c in job.resume_from] == [f"runs/{cancelled}/checkpoints/attempt-1/step-00000010"]
    assert (state.reused, state.origin, state.saved_seconds) == (False, cancelled, 7.0)
    copied = CopiedRows(run_id=cancelled, last_step=10)
    runs = [job for job in (*opened, later.close_jobs[0].opening) if job.spec_key is not None]
    assert [job.copied for job in runs] == [None, copied, copied], (
        "told when, and only when, an attempt goes on from it"
    )
    assert [job.tags.get(CONTINUES_TAG) for job in runs] == [None, cancelled, cancelled]


async def test_a_checkpoint_that_is_offered_and_not_gone_on_from_is_nowhere_said_to_be(
    client: Client, work: Work
) -> None:
    await cancelled_half_way(client, work)
    work.takes_offers = False
    async with running_sweep(client, later := script(work), store_root=work.store.root) as second:
        (state,) = (await second.run(equal(second, work, 0))).runs
    assert len(later.train_jobs[0].resume_from) == 1
    assert (state.status, state.origin, state.saved_seconds) == ("completed", None, 0.0)
    opening = later.close_jobs[0].opening
    assert CONTINUES_TAG not in opening.tags
    assert opening.copied is None


async def test_a_reused_result_that_is_found_damaged_is_computed_again(client: Client, work: Work) -> None:
    options = {"store_root": work.store.root}
    async with running_sweep(client, script(work), **options) as first:
        await first.run(equal(first, work, 0))
    evaluation = Path(work.store.root) / "runs" / first.sweep_id / "0" / "evaluation" / "e" / "r"
    evaluation.write_text("x")

    async def close_run(job: CloseRunJob) -> None:
        if job.evaluation is not None and evaluation.exists():
            raise ApplicationError("damaged", type=CheckpointDamagedError.error_type(), non_retryable=True)

    async with running_sweep(client, later := script(work, close_run=close_run), **options) as second:
        (state,) = (await second.run(equal(second, work, 0))).runs
    assert (state.status, state.reused, len(later.train_jobs)) == ("completed", False, 1)


async def test_a_claim_says_the_run_key_even_where_nothing_is_reused(client: Client, work: Work) -> None:
    async with running_sweep(client, Script(), cache="off") as sweep:
        (state,) = (await sweep.run(sweep.ref(0))).runs
    assert state.run_key == f"key-{sweep.sweep_id}/0"


async def test_a_run_that_is_made_again_is_not_taken_for_its_own_reuse(client: Client, work: Work) -> None:
    num_closings = 0

    async def close_run(job: CloseRunJob) -> None:
        nonlocal num_closings
        num_closings += job.evaluation is not None
        if num_closings == 1 and job.evaluation is not None:
            raise ApplicationError("damaged", type=CheckpointDamagedError.error_type(), non_retryable=True)

    async with running_sweep(client, told := script(work, close_run=close_run), store_root=work.store.root) as sweep:
        (state,) = (await sweep.run(equal(sweep, work, 0))).runs
    assert (state.status, state.reused, state.origin, len(told.train_jobs)) == ("completed", False, None, 2)
    assert REUSED_TAG not in told.close_jobs[0].opening.tags


@workflow.defn(name="CoordinatorWorkflow", sandboxed=False)
class StuckSweep:
    """A sweep that its worker's code does not understand."""

    @workflow.run
    async def run(self, state: SweepState) -> None:
        await workflow.wait_condition(lambda: False)

    @workflow.query
    def status(self) -> SweepStatus:
        raise RuntimeError("this sweep began with other code")


async def test_a_sweep_that_cannot_answer_keeps_nobody_waiting(client: Client, work: Work) -> None:
    async with running_sweep(client, told := script(work), store_root=work.store.root) as sweep:
        stuck = Sweep(client, told, f"stuck-{sweep.sweep_id}", replace(sweep.options, eval_queue="stuck"))
        identity = identify_stored(work.store, work.spec_key, SNAPSHOT, sweep.options.code)
        claim(work.store, identity, 1, f"{stuck.sweep_id}/0")
        async with make_worker("eval", client, queue="stuck", num_slots=1, workflows=[StuckSweep], activities=[]):
            handle = await stuck.start()
            (state,) = (await sweep.run(equal(sweep, work, 0))).runs
            await handle.terminate()
    assert (state.status, len(told.train_jobs)) == ("completed", 1)
    assert list(claims(work.store, identity.key).values()) == [f"{stuck.sweep_id}/0", f"{sweep.sweep_id}/0"]
