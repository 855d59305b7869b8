"""Predictions with a run's checkpoint, from the client's side: input into the store, workflow, output back."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowFailureError

from bertpar.answers import query
from bertpar.catalogue import read_uses, read_whole_catalogue
from bertpar.errors import ERRORS, BertparError, DataError, NotFoundError
from bertpar.events import CheckpointRef, Failure, PredictJob, SnapshotRef
from bertpar.observe import find_run
from bertpar.states import InferenceInput
from bertpar.store import Store
from bertpar.workflows.coordinator import CoordinatorWorkflow
from bertpar.workflows.failures import describe_failure
from bertpar.workflows.inference import InferenceWorkflow


async def predict(
    client: Client, run_id: str, examples: Sequence[dict[str, Any]], cache: Path, step: int | None = None
) -> list[dict[str, Any]]:
    """Return `examples` with labels and probabilities (or scores), by the run's best checkpoint or that of `step`.

    Raises:
        NotFoundError: no such run or checkpoint.
        BertparError: of the class with which the prediction failed.
    """
    sweep, state = await find_run(client, run_id)
    snapshots: dict[str, SnapshotRef] = await query(client, sweep.sweep_id, CoordinatorWorkflow.snapshots)

    store = Store(sweep.options.store_root, cache)
    checkpoint = _choose_checkpoint(store, run_id, state.best, step)
    prediction_id = f"predict-{secrets.token_hex(6)}"
    lines = "".join(json.dumps(example, ensure_ascii=False) + "\n" for example in examples)
    bundle = store.publish(
        f"predictions/{prediction_id}/input", lambda f: _write(f / "input.jsonl", lines), {"run_id": run_id}
    )
    job = PredictJob(
        store_root=sweep.options.store_root,
        spec_key=state.run.spec_key,
        snapshot=snapshots[state.run.snapshot_request],
        checkpoint=checkpoint,
        input_key=bundle.key,
        output_key=f"predictions/{prediction_id}/output",
        demand=state.run.demand,
    )
    try:
        result = await client.execute_workflow(
            InferenceWorkflow.run,
            InferenceInput(job=job, heartbeat_timeout_seconds=sweep.options.heartbeat_timeout_seconds),
            id=f"{run_id}/{prediction_id}",
            task_queue=sweep.options.eval_queue,
            static_summary=f"{len(examples)} texts",
        )
    except WorkflowFailureError as error:
        raise _as_bertpar_error(describe_failure(error.cause)) from error
    output = (store.fetch(result.key) / "output.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in output.rstrip("\n").split("\n")]


def _choose_checkpoint(store: Store, run_id: str, best: CheckpointRef | None, step: int | None) -> CheckpointRef:
    """Return what to predict with. The store is asked what exists: a workflow does not hear what was deleted later."""
    if step is None and best is not None:
        if store.find(best.key) is None:
            raise NotFoundError(f"the best checkpoint of {run_id} is gone: {best.key} is not in store {store.root}")
        return best
    catalogue = read_whole_catalogue(store, run_id, read_uses(store))
    if step is None:
        steps = ", ".join(str(step) for step in catalogue.steps)
        choice = f"choose one of its checkpoints: --step N, of {steps}" if steps else "it has no checkpoint"
        raise NotFoundError(f"{run_id} has no best checkpoint: it is not trained to its end; {choice}")
    return catalogue.find(step)


def read_examples(file: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSONL file.

    Raises:
        DataError: the file is missing, or a line is not a JSON object with a `text` that holds something.
    """
    try:
        lines = file.read_text(encoding="utf-8").split("\n")  # not splitlines: JSON may hold other line separators
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--file {file} cannot be read: {error}") from error
    examples = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            example = json.loads(line)
        except ValueError as error:
            raise DataError(f"--file {file} line {number}: not JSON: {error}") from error
        if not isinstance(example, dict) or not isinstance(example.get("text"), str):
            raise DataError(f'--file {file} line {number}: must be an object like {{"text": "..."}}')
        if not example["text"].strip():
            raise DataError(f"--file {file} line {number}: its text is empty")
        examples.append(example)
    if not examples:
        raise DataError(f"--file {file} has no lines")
    return examples


def _as_bertpar_error(failure: Failure) -> BertparError:
    return ERRORS.get(failure.error_type, BertparError)(failure.message)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
