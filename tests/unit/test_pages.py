"""Addresses of web pages, and the report that shows them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest
from rich.console import Console

from bertpar import tracking
from bertpar.mlflow_jobs import MlflowRun
from bertpar.observe import RunView, SweepView
from bertpar.pages import mlflow_base, mlflow_page, temporal_page
from bertpar.paths import Home
from bertpar.render import final_report
from bertpar.spec import TrackingSpec
from bertpar.states import RunState, SweepStatus
from tests import specs

OPTIONS = replace(
    specs.OPTIONS,
    tracking=TrackingSpec(uri="sqlite:////home/mlflow.db", experiment="bertpar"),
    temporal_ui="http://t:1/namespaces/default",
)


def sweep_view(num_runs: int) -> SweepView:
    states = [
        RunState(
            run=specs.run_ref(f"s/{i}"),
            status="completed",
            mlflow_run_id=f"m{i}",
            metrics={"val/accuracy": 0.5 + i / 100},
        )
        for i in range(num_runs)
    ]
    sweep = SweepStatus(
        sweep_id="s",
        name="s",
        status="completed",
        runs=tuple(states),
        mlflow=MlflowRun(experiment_id="7", run_id="parent"),
        options=OPTIONS,
    )
    return SweepView(sweep=sweep, runs=tuple(RunView(state=s, status=s.status) for s in states))


def page(view: SweepView) -> str:
    return unquote(mlflow_page(view.sweep, view.mlflow_run_ids(), "http://m:5"))


def report(view: SweepView, mlflow_ui: str | None) -> str:
    text = io.StringIO()
    Console(file=text, width=200).print(final_report(view, mlflow_ui), soft_wrap=True)
    return unquote(text.getvalue())


def test_links_follow_the_routes_of_mlflows_page() -> None:
    view = "workflowType=machine_learning"
    assert tracking.run_url("http://h:1/", "7", "abc") == f"http://h:1/#/experiments/7/runs/abc?{view}"
    assert tracking.experiment_url("http://h:1", "7") == f"http://h:1/#/experiments/7/runs?{view}"
    assert (
        tracking.compare_url("http://h:1", ["7"], ["a", "b"])
        == f"http://h:1/#/compare-runs?runs=%5B%22a%22%2C%22b%22%5D&experiments=%5B%227%22%5D&{view}"
    )


def test_a_sweeps_page_compares_its_runs() -> None:
    assert page(sweep_view(2)).startswith('http://m:5/#/compare-runs?runs=["m0","m1"]&experiments=["7"]')


def test_a_sweep_of_one_has_its_runs_page_and_one_of_many_the_table() -> None:
    assert page(sweep_view(1)).startswith("http://m:5/#/experiments/7/runs/m0?")
    assert page(sweep_view(60)).endswith("searchFilter=tags.`bertpar.sweep` = 's'")


def test_a_sweep_that_mlflow_does_not_know_yet_has_its_start_page() -> None:
    view = sweep_view(2)
    assert mlflow_page(replace(view.sweep, mlflow=None), [], "http://m:5") == "http://m:5"


def test_a_workflow_id_with_a_slash_is_one_segment() -> None:
    assert temporal_page("http://t:1/namespaces/default", "s/0/train").endswith("/workflows/s%2F0%2Ftrain")


@pytest.mark.parametrize(
    ("uri", "base"),
    [
        ("http://me:secret@m:5", "http://m:5"),
        ("https://m/prefix", "https://m/prefix"),
        ("postgresql://h/d", None),
    ],
)
def test_mlflows_page_is_where_its_server_is(uri: str, base: str | None, tmp_path: Path) -> None:
    assert mlflow_base(uri, Home(tmp_path)) == base


def test_without_a_running_page_of_mlflow_there_is_no_address(tmp_path: Path) -> None:
    assert mlflow_base(Home(tmp_path).mlflow_uri, Home(tmp_path)) is None


def test_the_report_ends_with_links_that_work() -> None:
    text = report(sweep_view(2), "http://m:5")
    assert "Temporal: http://t:1/namespaces/default/workflows/s\n" in text
    assert 'MLflow:   http://m:5/#/compare-runs?runs=["m0","m1"]' in text
    assert "bertpar predict s/1 " in text  # the best


def test_the_report_names_the_command_where_mlflows_page_is_not_running() -> None:
    assert "MLflow:   bertpar ui s   (starts MLflow's page)" in report(sweep_view(2), None)
