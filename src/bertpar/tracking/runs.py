"""MLflow runs: exactly one for each run and sweep of bertpar, whatever attempts come and go."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from bertpar import faults
from bertpar.checkpoints import waiting_rows
from bertpar.codec import fetch_spec
from bertpar.errors import CorruptError, TrackingError, TrackingRefusedError
from bertpar.events import SnapshotRef
from bertpar.mlflow_jobs import (
    IDENTITY_TAG,
    REUSED_TAG,
    SWEEP_TAG,
    TEMPORAL_TAG,
    CloseRunJob,
    CopiedRows,
    MlflowRun,
    OpenRunJob,
)
from bertpar.spec import DataSpec, RunSpec, flatten
from bertpar.store import Store
from bertpar.tracking.connection import find_or_create_experiment, mlflow_client, tag_filter
from bertpar.tracking.evaluations import log_evaluation
from bertpar.tracking.rows import log_missing_rows, read_rows

INCOMPLETE_TAG = "bertpar.incomplete"
"""The tag that says of a run that did not complete why its newest metric rows are missing."""

_PER_BATCH = 100  # MLflow's limit for parameters and for tags
_DIGEST_LENGTH = 36  # MLflow's limit


def open_run(job: OpenRunJob, store: Store) -> MlflowRun:
    """Return the MLflow run of `job.identity`, RUNNING, with its tags, parameters, config.yaml and dataset.

    A run that is FINISHED stays as it is. Saying it again changes nothing, and two who say it at once get the
    same run: the first whose id is in the store (`mlflow_run_key`) stays, and others are deleted.

    Raises:
        CorruptError: the RunSpec is missing or damaged.
        StoreError: the store is away.
        TrackingRefusedError: the run or its experiment was deleted in MLflow.
        TrackingError: MLflow cannot be reached.
    """
    store.check_there()
    spec = fetch_spec(store, job.spec_key) if job.spec_key is not None else None
    # One lock for all: it also keeps two runs from adding the same experiment or dataset at once.
    with store.only_one("mlflow"), mlflow_client(job.tracking.uri) as client:
        run = _the_one_run(client, job, store)
        run_id = run.info.run_id
        if run.info.status != "FINISHED":
            if run.info.status != "RUNNING":
                client.update_run(run_id, status="RUNNING")
            _log_tags(client, run_id, job.tags)
            if REUSED_TAG in run.data.tags and REUSED_TAG not in job.tags:  # the result was damaged: it is made here
                client.delete_tag(run_id, REUSED_TAG)
            if spec is not None:
                _log_config(client, run_id, spec)
            if spec is not None and job.snapshot is not None:
                _log_dataset(client, run_id, spec.data, job.snapshot)
            if job.copied is not None:
                _copy_rows(client, job.tracking.uri, run_id, job.copied, store)
    return MlflowRun(experiment_id=run.info.experiment_id, run_id=run_id)


def mlflow_run_key(identity: str) -> str:
    """Return the bundle in the store that names the MLflow run of `identity`, once there is one."""
    return f"runs/{identity}/mlflow"


def find_opened(store: Store, identity: str) -> MlflowRun | None:
    """Return the MLflow run of `identity` if it was opened already, without asking MLflow."""
    bundle = store.find(mlflow_run_key(identity))
    return MlflowRun(**bundle.meta) if bundle is not None else None


def close_run(job: CloseRunJob, store: Store) -> MlflowRun:
    """Give the run all that it does not have yet, its tags and its final status.

    That is whatever an outage or a kill kept from it: the run itself, metric rows that wait in its newest
    checkpoint, and the evaluation with the model's files. A run that has that status already is left as it is.

    Raises:
        CorruptError: what is to be logged of a finished run is missing or damaged in the store.
        TrackingRefusedError, TrackingError: as open_run.
    """
    uri = job.opening.tracking.uri
    if (opened := find_opened(store, job.opening.identity)) is not None:
        with mlflow_client(uri) as client:
            if client.get_run(opened.run_id).info.status == job.status:
                return opened
    run = open_run(job.opening, store)
    tags = dict(job.tags)
    try:
        log_missing_rows(uri, run.run_id, waiting_rows(store, job.opening.identity))
    except CorruptError as error:
        if job.status == "FINISHED":  # its checkpoint can be made again
            raise
        tags[INCOMPLETE_TAG] = str(error)
    if job.evaluation is not None:
        assert job.opening.snapshot is not None
        log_evaluation(uri, run.run_id, job.evaluation, job.opening.snapshot, store)
    with mlflow_client(uri) as client:
        _log_tags(client, run.run_id, tags)
        client.set_terminated(run.run_id, status=job.status)
    return run


def _copy_rows(client: Any, uri: str, run_id: str, copied: CopiedRows, store: Store) -> None:
    """Log what the other run has logged, or has still to log, up to the step from which this one goes on."""
    rows = []
    try:
        if (origin := find_opened(store, copied.run_id)) is not None:
            rows += read_rows(uri, origin.run_id)
        rows += waiting_rows(store, copied.run_id)
    except (
        TrackingRefusedError,
        CorruptError,
    ) as error:  # deleted, or another server's: the rest is there all the same
        client.set_tag(run_id, INCOMPLETE_TAG, f"the metric rows of {copied.run_id} cannot be read: {error}")
    log_missing_rows(uri, run_id, [r for r in rows if r.step <= copied.last_step and not r.key.startswith("test/")])


def _the_one_run(client: Any, job: OpenRunJob, store: Store) -> Any:
    experiment_id = find_or_create_experiment(client, job.tracking)
    opened = find_opened(store, job.identity) or _find_or_create(client, experiment_id, job, store)
    for other in _find(client, experiment_id, job.identity):
        # Creating is not idempotent: a client's own retry of a lost answer makes a second run, at any later time.
        if other.info.run_id != opened.run_id:
            client.delete_run(other.info.run_id)
    run = client.get_run(opened.run_id)
    if run.info.lifecycle_stage != "active":
        raise TrackingRefusedError(
            f"MLflow run {opened.run_id} of {job.identity} was deleted. "
            f"Restore it: mlflow runs restore --run-id {opened.run_id}"
        )
    return run


def _find_or_create(client: Any, experiment_id: str, job: OpenRunJob, store: Store) -> MlflowRun:
    found = _find(client, experiment_id, job.identity)
    if not found:
        tags = {IDENTITY_TAG: job.identity, "mlflow.source.name": "bertpar", "mlflow.source.type": "LOCAL"}
        if (sweep_id := job.tags.get(SWEEP_TAG)) is not None:
            # Not with the other tags later on, which a second run, left by a lost answer, never gets.
            tags[SWEEP_TAG] = sweep_id
        if (page := job.tags.get(TEMPORAL_TAG)) is not None:
            # MLflow makes no links of tags. Said once: from then on the description is the user's.
            tags["mlflow.note.content"] = f"[Workflow in Temporal]({page})"
        if job.parent_identity is not None:
            tags["mlflow.parentRunId"] = _parent_run_id(store, job.parent_identity)
        created = client.create_run(experiment_id, run_name=job.name, tags=tags)
        faults.reach("mlflow.run_created")
        found = _find(client, experiment_id, job.identity) or [created]
    chosen = MlflowRun(experiment_id=experiment_id, run_id=found[0].info.run_id)
    store.publish(mlflow_run_key(job.identity), lambda folder: None, asdict(chosen))
    return find_opened(store, job.identity) or chosen  # another host may have been first


def _parent_run_id(store: Store, identity: str) -> str:
    parent = find_opened(store, identity)
    if parent is None:
        raise TrackingError(f"the MLflow run of sweep {identity} is not open yet; its runs' wait for it")
    return parent.run_id


def _find(client: Any, experiment_id: str, identity: str) -> list[Any]:
    """Return the active runs that carry the identity, the earliest first."""
    runs = client.search_runs([experiment_id], tag_filter(IDENTITY_TAG, "=", identity))
    return sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))


def _log_tags(client: Any, run_id: str, tags: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag

    entities = [RunTag(key, value) for key, value in tags.items()]
    for start in range(0, len(entities), _PER_BATCH):
        client.log_batch(run_id, tags=entities[start : start + _PER_BATCH], synchronous=True)


def _log_config(client: Any, run_id: str, spec: RunSpec) -> None:
    from mlflow.entities import Param
    from omegaconf import OmegaConf

    params = [Param(key, _as_typed(value)) for key, value in sorted(_resolved(spec).items())]
    for start in range(0, len(params), _PER_BATCH):
        client.log_batch(run_id, params=params[start : start + _PER_BATCH], synchronous=True)
    client.log_text(run_id, OmegaConf.to_yaml(OmegaConf.create(spec.config)), "config.yaml")


def _resolved(spec: RunSpec) -> dict[str, Any]:
    """Return the configuration, flat, with what null stood for where the specification has decided it."""
    decided = flatten({key: value for key, value in asdict(spec).items() if key != "config"})
    return {key: decided.get(key) if value is None else value for key, value in flatten(spec.config).items()}


def _as_typed(value: Any) -> str:
    """Return a value as one types it on the command line: null, true, 1e-05, text without quotes."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _log_dataset(client: Any, run_id: str, data: DataSpec, snapshot: SnapshotRef) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source_type, source = _source(data)
    profile = {"num_rows": sum(snapshot.num_examples.values()), **snapshot.num_examples}
    dataset = Dataset(
        name=data.name,
        digest=snapshot.digest[:_DIGEST_LENGTH],
        source_type=source_type,
        source=json.dumps(source),
        profile=json.dumps(profile | {"snapshot": snapshot.key, "digest": snapshot.digest}),
    )
    client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def _source(data: DataSpec) -> tuple[str, dict[str, Any]]:
    """Return MLflow's name for the kind of source, and the fields by which MLflow finds it again."""
    if data.source == "hub":
        return "hugging_face", {"path": data.path, "config_name": data.config_name, "revision": data.revision}
    if data.source == "files":
        return "local", {"uri": data.train_file}
    return "code", {"tags": {"mlflow.source.name": "bertpar", "dataset": data.path}}
