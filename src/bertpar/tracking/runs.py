"""MLflow runs: exactly one for each run and sweep of bertpar, whatever attempts come and go."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from bertpar.codec import fetch_spec
from bertpar.errors import StoreError
from bertpar.events import CloseRunJob, MlflowRun, OpenRunJob, SnapshotRef
from bertpar.spec import DataSpec, RunSpec, flatten
from bertpar.store import Store
from bertpar.tracking.connection import find_or_create_experiment, mlflow_client

IDENTITY_TAG = "bertpar.id"
"""The tag by which a run is found again."""

TEMPORAL_TAG = "bertpar.temporal_url"
"""The tag with Temporal's page of the run's or sweep's workflow."""

_PER_BATCH = 100  # MLflow's limit for parameters and for tags
_DIGEST_LENGTH = 36  # MLflow's limit


def open_run(job: OpenRunJob, store: Store) -> MlflowRun:
    """Return the MLflow run of `job.identity`, RUNNING, with its tags, parameters, config.yaml and dataset.

    A run that is FINISHED stays as it is. Saying it again changes nothing, and two who say it at once get the
    same run: on one host by a lock; across hosts the earliest run stays and the others are deleted.

    Raises:
        CorruptError: the RunSpec is missing or damaged.
        TrackingError: MLflow cannot be reached or refuses.
    """
    spec = fetch_spec(store, job.spec_key) if job.spec_key is not None else None
    # One lock for all: it also keeps two runs from adding the same experiment or dataset at once.
    with _only_one(store, "mlflow"), mlflow_client(job.tracking.uri) as client:
        experiment_id = find_or_create_experiment(client, job.tracking)
        run = _find_or_create(client, experiment_id, job)
        run_id = run.info.run_id
        if run.info.status != "FINISHED":
            if run.info.status != "RUNNING":
                client.update_run(run_id, status="RUNNING")
            _log_tags(client, run_id, job.tags)
            if spec is not None:
                _log_config(client, run_id, spec)
            if spec is not None and job.snapshot is not None:
                _log_dataset(client, run_id, spec.data, job.snapshot)
    return MlflowRun(experiment_id=experiment_id, run_id=run_id)


def close_run(job: CloseRunJob) -> None:
    """Give the run its tags and its final status; a run that has that status keeps its end time.

    Raises:
        TrackingError: MLflow cannot be reached or refuses.
    """
    with mlflow_client(job.tracking.uri) as client:
        _log_tags(client, job.mlflow_run_id, job.tags)
        if client.get_run(job.mlflow_run_id).info.status != job.status:
            client.set_terminated(job.mlflow_run_id, status=job.status)


def _find_or_create(client: Any, experiment_id: str, job: OpenRunJob) -> Any:
    found = _find(client, experiment_id, job.identity)
    if not found:
        tags = {IDENTITY_TAG: job.identity, "mlflow.source.name": "bertpar", "mlflow.source.type": "LOCAL"}
        if (page := job.tags.get(TEMPORAL_TAG)) is not None:
            # MLflow makes no links of tags. Said once: from then on the description is the user's.
            tags["mlflow.note.content"] = f"[Workflow in Temporal]({page})"
        if job.parent_mlflow_run_id is not None:
            tags["mlflow.parentRunId"] = job.parent_mlflow_run_id
        created = client.create_run(experiment_id, run_name=job.name, tags=tags)
        # Creating is not idempotent: a client's own retry of a lost answer makes a second run.
        found = _find(client, experiment_id, job.identity) or [created]
    for duplicate in found[1:]:
        client.delete_run(duplicate.info.run_id)
    return found[0]


def _find(client: Any, experiment_id: str, identity: str) -> list[Any]:
    """Return the active runs that carry the identity, the earliest first."""
    quote = '"' if "'" in identity else "'"
    runs = client.search_runs([experiment_id], f"tags.`{IDENTITY_TAG}` = {quote}{identity}{quote}")
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


@contextmanager
def _only_one(store: Store, name: str) -> Iterator[None]:
    """Let one process of this host at a time in; the lock goes with its holder, however that ends."""
    try:
        file = store.lock_path(name).open("w")
    except OSError as error:
        raise StoreError(f"store.root={store.root}: cannot lock {name}: {error}") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
