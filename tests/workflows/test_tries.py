"""How often an activity is tried: an outage costs none of the tries that a failure of its own is given."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
from temporalio.client import Client
from temporalio.common import RetryPolicy

from bertpar.activities import _job
from bertpar.errors import StoreError, failure_of
from bertpar.events import EvaluateJob, EvaluateResult
from bertpar.workflows import calls
from tests.workflows.conftest import Script, evaluate_at_once, running_sweep

NUM_TRIES = 3
OUTAGE, FAILURE = StoreError("the store is away"), KeyError("a bug")
TROUBLES = {
    0: [OUTAGE, OUTAGE, FAILURE, OUTAGE, FAILURE],
    1: [FAILURE, OUTAGE, FAILURE, FAILURE],
}
"""What goes wrong with the evaluation of each run before it succeeds."""


async def test_outages_and_failures_are_counted_apart(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_job, "_MAX_FAILURES", NUM_TRIES)
    monkeypatch.setattr(calls, "PATIENT", RetryPolicy(initial_interval=timedelta(milliseconds=50)))
    tries: Counter[int] = Counter()

    async def evaluate(job: EvaluateJob) -> EvaluateResult:
        index = int(job.run_id.rpartition("/")[2])
        tries[index] += 1
        async with _job.heartbeats():
            if tries[index] <= len(TROUBLES[index]):
                raise _job.application_error(failure_of(TROUBLES[index][tries[index] - 1]))
            return await evaluate_at_once(job)

    async with running_sweep(client, Script(evaluate=evaluate)) as sweep:
        runs = (await sweep.run(sweep.ref(0), sweep.ref(1))).runs
    assert [run.status for run in runs] == ["completed", "failed"]
    assert tries == {0: 6, 1: 4}
