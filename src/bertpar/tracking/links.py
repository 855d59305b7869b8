"""Addresses of pages in MLflow's own UI (routes of MLflow 3)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import quote

from bertpar.mlflow_jobs import SWEEP_TAG

_TRAINING_VIEW = "workflowType=machine_learning"
"""MLflow's UI opens for a newcomer on its pages for language model applications."""

_MOST_RUNS_COMPARED = 50
"""Of more runs the columns are unreadable, and the address grows by 38 characters for each."""


def experiment_url(ui_base: str, experiment_id: str, sweep_id: str | None = None) -> str:
    """Return the page with the experiment's table of runs; of one sweep's runs alone, where it is given."""
    url = f"{ui_base.rstrip('/')}/#/experiments/{quote(experiment_id)}/runs?{_TRAINING_VIEW}"
    return url if sweep_id is None else url + "&searchFilter=" + quote(f"tags.`{SWEEP_TAG}` = '{sweep_id}'")


def run_url(ui_base: str, experiment_id: str, run_id: str) -> str:
    """Return the page of one run."""
    return f"{ui_base.rstrip('/')}/#/experiments/{quote(experiment_id)}/runs/{quote(run_id)}?{_TRAINING_VIEW}"


def compare_url(ui_base: str, experiment_ids: Sequence[str], run_ids: Sequence[str]) -> str:
    """Return the page that compares the runs, side by side."""
    runs, experiments = (quote(json.dumps(list(ids), separators=(",", ":"))) for ids in (run_ids, experiment_ids))
    return f"{ui_base.rstrip('/')}/#/compare-runs?runs={runs}&experiments={experiments}&{_TRAINING_VIEW}"


def sweep_url(ui_base: str, experiment_id: str, sweep_id: str, run_ids: Sequence[str]) -> str:
    """Return the page that shows a sweep best: its one run, the comparison of its runs, or the table of many."""
    if len(run_ids) == 1:
        return run_url(ui_base, experiment_id, run_ids[0])
    if 1 < len(run_ids) <= _MOST_RUNS_COMPARED:
        return compare_url(ui_base, [experiment_id], run_ids)
    return experiment_url(ui_base, experiment_id, sweep_id)
