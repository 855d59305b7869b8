"""The benchmarks start, and can render and judge what they measured."""

from __future__ import annotations

import io
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from tests.benchmarks.scripts import BENCHMARKS, SCRIPTS, load


def printed(table: Table) -> list[list[str]]:
    """Return the table's lines, each as its words."""
    text = io.StringIO()
    Console(file=text, width=200).print(table)
    return [line.split() for line in text.getvalue().splitlines() if line.strip()]


@pytest.fixture
def common(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return load("common", monkeypatch)


@pytest.mark.parametrize("benchmark", SCRIPTS)
def test_every_benchmark_says_what_it_measures_and_takes_the_common_options(benchmark: str) -> None:
    command = [sys.executable, BENCHMARKS / benchmark, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "See benchmarks/README.md." in " ".join(done.stdout.split())
    for option in ("--repeats", "--quick", "--note", "--json"):
        assert option in done.stdout


def test_readme_tells_of_every_benchmark() -> None:
    told = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    assert [name for name in SCRIPTS if f"\n## {name}\n" not in told] == []


def test_run_runs_every_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sorted({*load("run", monkeypatch).BENCHMARKS, "run"}) == SCRIPTS


def test_rounds_begin_with_different_subjects(common: ModuleType) -> None:
    turns = list(common.by_turns("abc", 2, lambda subject, number: f"{subject}{number}"))
    assert turns == ["a0", "b0", "c0", "b1", "c1", "a1"]


def test_a_table_has_medians_and_their_ratios_to_the_reference(common: ModuleType) -> None:
    seconds = {"ours": (2.0, 1.0, 30.0), "theirs": (8.0, 9.0, 1.0)}
    rows = [{"subject": subject, "wall_seconds": s} for subject, times in seconds.items() for s in times]
    table = common.ratio_table("", rows, {"wall_seconds": 1}, reference="ours", of="wall_seconds")
    assert printed(table)[1:] == [
        ["ours", "3", "2.0", "1.0", "to", "30.0", "1.00"],
        ["theirs", "3", "8.0", "1.0", "to", "9.0", "4.00"],
    ]


@pytest.mark.parametrize(
    ("bounds", "verdict"),
    [
        ({"at_least": 2}, "met"),
        ({"at_least": 3}, "MISSED"),
        ({"at_most": 2}, "MISSED"),
        ({"at_least": 2, "at_most": 3}, "met"),
        ({}, "2.5"),
    ],
)
def test_a_figure_is_judged_by_its_bounds(common: ModuleType, bounds: dict[str, float], verdict: str) -> None:
    assert printed(common.figures_table([common.Figure(name="ratio", value=2.5, **bounds)]))[1][-1] == verdict


def test_the_first_steps_table_has_medians_of_times_and_maxima_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    first_step = load("first_step", monkeypatch)

    def warm(seconds: float | None, mib: float) -> Any:
        return first_step.Measurement(
            name="warm",
            overrides=("lr=1e-4",),
            mlflow_open_seconds=1.0,
            data_ready_seconds=2.0,
            first_step_seconds=seconds,
            whole_seconds=30.0,
            training_mib=mib,
            stack_mib=mib * 2,
            load_before=0.1,
        )

    table = first_step.summarise([warm(5.0, 700.0), warm(50.0, 600.0), warm(6.0, 650.0), warm(None, 1.0)])
    assert printed(table)[1] == ["warm", "4", "1.0", "2.0", "6.0", "30.0", "700", "1400"]


def test_sweeps_are_compared_with_the_fastest_peer_of_each_kind_and_with_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sweeps = load("sweeps", monkeypatch)
    ours = {"bertpar": 10.0, "limit": 8.0, "bertpar fp32": 20.0, "bertpar =precision": 8.0}
    seconds = {**ours, "hydra_basic": 50.0, "ray_tune": 45.0, "ray_tune =precision": 20.0}
    measurements = [
        sweeps.Measurement(
            workload="short runs",
            subject=subject,
            wall_seconds=wall,
            cpu_seconds=wall,
            test_accuracy=0.75,
            test_accuracies=[0.75],
            steps=[3],
        )
        for subject, wall in seconds.items()
    ]
    figures = sweeps.figures_of(measurements, "short runs", judged=True)
    assert [figure.value for figure in figures] == [4.5, 2.5, 2.25, 1.25, 0.0]
    assert [figure.is_met for figure in figures] == [True, True, True, False, True]
