"""Workflows in flight survive an upgrade: histories that were recorded replay, and an incompatible change is noticed.

After a deliberate change of a workflow's commands, record anew: `python -m tests.workflows.record_histories`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from temporalio import workflow
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from bertpar.payloads import DATA_CONVERTER
from bertpar.states import TrainingInput, TrainingOutput
from bertpar.workflows import WORKFLOWS
from tests.workflows.record_histories import HISTORIES
from tests.workflows.strict import sandbox

RECORDED = sorted(HISTORIES.glob("*.json"))


def history(path: Path) -> WorkflowHistory:
    return WorkflowHistory.from_json(path.stem, path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", RECORDED, ids=lambda p: p.stem)
async def test_a_recorded_history_replays(path: Path) -> None:
    replayer = Replayer(workflows=WORKFLOWS, data_converter=DATA_CONVERTER, workflow_runner=sandbox())
    await replayer.replay_workflow(history(path))


def test_every_kind_of_history_is_recorded() -> None:
    assert {p.stem for p in RECORDED} >= {
        "coordinator-one_failed",
        "coordinator-cancelled",
        "coordinator-paused",
        "coordinator-out_of_budget",
        "training-resumed",
        "training-failed",
        "training-lost",
        "training-left",
        "training-out_of_budget",
        "evaluation",
        "evaluation-retried",
        "inference",
    }


@workflow.defn(name="TrainingWorkflow", sandboxed=False)
class Incompatible:
    """Sleeps where the recorded workflow opened its MLflow run."""

    @workflow.run
    async def run(self, job: TrainingInput) -> TrainingOutput:
        await workflow.sleep(1)
        raise AssertionError


async def test_an_incompatible_workflow_is_noticed() -> None:
    replayer = Replayer(workflows=[Incompatible], data_converter=DATA_CONVERTER)
    with pytest.raises(workflow.NondeterminismError):
        await replayer.replay_workflow(history(HISTORIES / "training-resumed.json"))
