"""Where a person looks at a sweep: the addresses of its web pages."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote, urlsplit

from bertpar import stack, tracking
from bertpar.paths import Home
from bertpar.states import SweepStatus


def mlflow_base(tracking_uri: str, home: Home) -> str | None:
    """Return the address of MLflow's page over that store, without credentials, if one is known to be served now."""
    if tracking_uri.startswith(("http://", "https://")):
        parts = urlsplit(tracking_uri)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    if tracking_uri != home.mlflow_uri:
        return None
    running = stack.read(home)
    return running.mlflow_ui if running is not None else None


def mlflow_page(sweep: SweepStatus, mlflow_run_ids: Sequence[str], base: str) -> str:
    """Return MLflow's page of the sweep under `base`: the comparison of its runs, where there are several."""
    if sweep.mlflow is None:
        return base
    return tracking.sweep_url(base, sweep.mlflow.experiment_id, sweep.sweep_id, mlflow_run_ids)


def temporal_page(temporal_ui: str, workflow_id: str) -> str:
    """Return Temporal's page of a workflow; `temporal_ui` includes the namespace."""
    return f"{temporal_ui}/workflows/{quote(workflow_id, safe='')}"
