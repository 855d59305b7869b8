"""Clients of MLflow, and the two things that must exist before a run: a database and an experiment."""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from bertpar.errors import TrackingError, TrackingRefusedError
from bertpar.paths import Home
from bertpar.spec import TrackingSpec
from bertpar.tracking.address import check_reachable, sqlite_path, without_password

ARTIFACTS_FOLDER = "mlartifacts"
"""Where runs' files go, beside a SQLite database. For the local one that is Home.mlflow_artifacts."""

_CLIENT_DEFAULTS = {
    # MLflow's own: seven retries of two minutes each. Whoever calls us retries, and must hear of it first.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_REFUSALS = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "INVALID_STATE")
"""What MLflow answers where asking again will not help: something was deleted, or says otherwise."""

_LONGEST_REASON = 400
_KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Has MLflow's UI show an experiment as one of training, not of language model applications."""


@contextmanager
def mlflow_client(uri: str) -> Iterator[Any]:
    """Give the block an MlflowClient of `uri`; whatever MLflow raises in it becomes a TrackingError.

    A SQLite database that is not there is made first. Do nothing but MLflow in the block: an OSError is taken
    for MLflow's.
    """
    import_mlflow()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        initialise_database(uri)
        yield _client(uri)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        kind = TrackingRefusedError if getattr(error, "error_code", None) in _REFUSALS else TrackingError
        raise kind(f"tracking.uri={without_password(uri)}: {reason or type(error).__name__}") from error


def import_mlflow() -> None:
    """Import MLflow's client, which is slow, with the settings that it reads from the environment."""
    for name, value in _CLIENT_DEFAULTS.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow.tracking", "mlflow.store.tracking.sqlalchemy_store", "sqlalchemy.dialects.sqlite"):
        import_module(name)


def initialise_local_database(home: Home) -> None:
    """Make the local database, if it is not there."""
    initialise_database(home.mlflow_uri)


def initialise_database(uri: str) -> None:
    """Make the SQLite database of `uri` in WAL mode, if it is not there; other URIs are left alone.

    Any number of processes may call this at once. The file appears whole, by a rename: two processes that
    both make MLflow's tables crash each other, and a killed one would leave half of them.

    Raises:
        TrackingError: the file cannot be made.
    """
    path = sqlite_path(uri)
    if path is None or _has_content(path):
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f".{path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _has_content(path):
                _make_database(path)
    except OSError as error:
        check_reachable(TrackingSpec(uri=uri, experiment=""))  # knows what to tell the user
        raise TrackingError(f"tracking.uri={uri} cannot be made: {error}") from error


def ensure_experiment(tracking: TrackingSpec) -> str:
    """Return the id of the experiment of that name, made if need be; one for all who ask at once.

    Raises:
        TrackingRefusedError: the experiment was deleted.
        TrackingError: MLflow cannot be reached.
    """
    with mlflow_client(tracking.uri) as client:
        return find_or_create_experiment(client, tracking)


def tag_filter(tag: str, operator: Literal["=", "LIKE"], value: str) -> str:
    """Return MLflow's filter for runs with such a tag."""
    quote = '"' if "'" in value else "'"
    return f"tags.`{tag}` {operator} {quote}{value}{quote}"


def find_or_create_experiment(client: Any, tracking: TrackingSpec) -> str:
    """Do ensure_experiment with a client that is there already."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(tracking.experiment)
    if experiment is None:
        # Somebody else may be quicker: the name is unique, so that the loser of the race just looks again.
        with suppress(MlflowException):
            location = _artifact_location(tracking)
            return str(client.create_experiment(tracking.experiment, artifact_location=location, tags=_KIND))
        experiment = client.get_experiment_by_name(tracking.experiment)
    where = f"tracking.experiment={tracking.experiment} cannot be used in MLflow at {without_password(tracking.uri)}"
    if experiment is None:
        raise TrackingError(f"{where}: it cannot be created")
    if experiment.lifecycle_stage != "active":
        raise TrackingRefusedError(
            f"{where}: it is deleted there. Restore it (mlflow experiments restore), or choose another name"
        )
    return str(experiment.experiment_id)


def _artifact_location(tracking: TrackingSpec) -> str | None:
    """Return where a new experiment's files go; None leaves it to the server."""
    path = sqlite_path(tracking.uri)
    if path is None:
        return None
    # MLflow's default for SQLite is the working folder of whoever comes first
    folder = re.sub(r"[^\w.-]+", "_", tracking.experiment)
    return (path.resolve().parent / ARTIFACTS_FOLDER / folder).as_uri()


@lru_cache(maxsize=8)
def _client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def _make_database(path: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        # The store also makes MLflow's own experiment "Default", whose files must go to the final place too.
        store = SqlAlchemyStore(f"sqlite:///{unfinished}", (path.resolve().parent / ARTIFACTS_FOLDER).as_uri())
        store.engine.dispose()
        with closing(sqlite3.connect(unfinished)) as connection:
            # kept in the file: four writers wait 0.2 s at the tail instead of 1-2 s
            connection.execute("PRAGMA journal_mode=WAL")
        unfinished.rename(path)
