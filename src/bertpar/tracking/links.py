"""Addresses of pages in MLflow's own UI (routes of MLflow 3)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import quote


def experiment_url(ui_base: str, experiment_id: str) -> str:
    """Return the page with the experiment's table of runs."""
    return f"{ui_base.rstrip('/')}/#/experiments/{quote(experiment_id)}/runs"


def run_url(ui_base: str, experiment_id: str, run_id: str) -> str:
    """Return the page of one run."""
    return f"{ui_base.rstrip('/')}/#/experiments/{quote(experiment_id)}/runs/{quote(run_id)}"


def compare_url(ui_base: str, experiment_ids: Sequence[str], run_ids: Sequence[str]) -> str:
    """Return the page that compares the runs, side by side."""
    runs, experiments = (quote(json.dumps(list(ids), separators=(",", ":"))) for ids in (run_ids, experiment_ids))
    return f"{ui_base.rstrip('/')}/#/compare-runs?runs={runs}&experiments={experiments}"
