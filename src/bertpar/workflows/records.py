"""What MLflow is told of a sweep and of its runs: the jobs of `open_run` and `close_run`. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Literal

from bertpar.claims import Claimed
from bertpar.events import CheckpointRef, SnapshotRef
from bertpar.ledger import Ledger, ledger_of
from bertpar.mlflow_jobs import (
    CONTINUES_TAG,
    FORKED_TAG,
    REUSED_TAG,
    RUN_KEY_TAG,
    SWEEP_TAG,
    SWEPT_TAG_PREFIX,
    TEMPORAL_TAG,
    CloseRunJob,
    CopiedRows,
    EvaluationRecord,
    OpenRunJob,
)
from bertpar.states import RunRef, RunState, SweepOptions, TrainingOutput
from bertpar.workflows.planning import rank


def run_name(swept: dict[str, str], index: int) -> str:
    """Return what tells this run from its siblings: `lr=1e-05,seed=2`, or its number."""
    return ",".join(f"{key}={value}" for key, value in swept.items()) or f"run {index}"


def training_id(run_id: str) -> str:
    """Return the id of the run's TrainingWorkflow."""
    return f"{run_id}/train"


def opening_of_sweep(sweep_id: str, options: SweepOptions) -> OpenRunJob:
    """Return the job that opens the sweep's own MLflow run, the parent of its runs'."""
    return OpenRunJob(
        tracking=options.tracking,
        identity=sweep_id,
        name=sweep_id,
        parent_identity=None,
        tags={SWEEP_TAG: sweep_id, **_workflow_tags(sweep_id, options)},
        store_root=options.store_root,
        spec_key=None,
    )


def opening_of_run(
    run: RunRef,
    sweep_id: str,
    snapshot: SnapshotRef,
    options: SweepOptions,
    claimed: Claimed | None,
    continues: CheckpointRef | None = None,
) -> OpenRunJob:
    """Return the job that opens a run's MLflow run; `claimed` is None where its data was all that was there.

    `continues` is the equal run's checkpoint that it is known to have gone on from: a claim merely offers some.
    """
    copied = _copied(claimed, continues)
    return OpenRunJob(
        tracking=options.tracking,
        identity=run.run_id,
        name=run_name(run.swept, run.index),
        parent_identity=sweep_id,
        tags={
            SWEEP_TAG: sweep_id,
            "bertpar.snapshot": snapshot.key,
            "bertpar.code_digest": options.code.digest,
            **({"bertpar.provenance": run.provenance} if run.provenance else {}),
            **({FORKED_TAG: run.forked_from} if run.forked_from else {}),
            **({RUN_KEY_TAG: claimed.run_key} if claimed is not None else {}),
            **({CONTINUES_TAG if continues is not None else REUSED_TAG: copied.run_id} if copied is not None else {}),
            **_workflow_tags(training_id(run.run_id), options),
            **{f"{SWEPT_TAG_PREFIX}{key}": value for key, value in run.swept.items()},
        },
        store_root=options.store_root,
        spec_key=run.spec_key,
        snapshot=snapshot,
        copied=copied,
    )


def closing_of_run(
    opening: OpenRunJob,
    status: Literal["FINISHED", "FAILED", "KILLED"],
    ledger: Ledger,
    trained: TrainingOutput | None = None,
    evaluation: EvaluationRecord | None = None,
) -> CloseRunJob:
    """Return the job that ends a run's MLflow run; `trained` is None for a training that did not end well."""
    tags = _tags_of_ledger(ledger)
    if trained is not None:
        tags["bertpar.attempt"] = str(trained.attempts[-1].number)
        tags["bertpar.best_step"] = str(trained.result.best.step)
        if trained.result.inexact:
            tags["bertpar.inexact"] = "; ".join(trained.result.inexact)
    return CloseRunJob(opening=opening, status=status, tags=tags, evaluation=evaluation)


def closing_of_sweep(
    opening: OpenRunJob, status: Literal["FINISHED", "FAILED", "KILLED"], runs: Iterable[RunState]
) -> CloseRunJob:
    """Return the job that ends the sweep's own MLflow run, with the name of the best of its runs."""
    ranked = rank(runs)
    tags = {"bertpar.num_runs": str(len(ranked)), **_tags_of_ledger(ledger_of(ranked))}
    best = next((state for state in ranked if state.status == "completed"), None)
    if best is not None:
        tags["bertpar.best_run"] = best.run.run_id
        tags["bertpar.best_objective"] = str(best.metrics[best.run.objective])
    return CloseRunJob(opening=opening, status=status, tags=tags)


def _tags_of_ledger(ledger: Ledger) -> dict[str, str]:
    """Return tags, not metrics: those of equal runs are compared, and must be equal."""
    return {f"bertpar.{name}": f"{seconds:.1f}" for name, seconds in asdict(ledger).items()}


def _copied(claimed: Claimed | None, continues: CheckpointRef | None) -> CopiedRows | None:
    if continues is not None:
        return CopiedRows(run_id=continues.run_id, last_step=continues.step)
    if claimed is not None and claimed.result is not None:
        return CopiedRows(run_id=claimed.result.run_id, last_step=claimed.result.training.last.step)
    return None


def _workflow_tags(workflow_id: str, options: SweepOptions) -> dict[str, str]:
    tags = {"bertpar.workflow_id": workflow_id}
    if options.temporal_ui:
        tags[TEMPORAL_TAG] = f"{options.temporal_ui}/workflows/{workflow_id.replace('/', '%2F')}"
    return tags
