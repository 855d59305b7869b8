"""The benchmarks start and can render what they measured; they are not run here."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def first_step(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    loader = SourceFileLoader("first_step", str(BENCHMARKS / "first_step"))
    spec = importlib.util.spec_from_loader("first_step", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "first_step", module)  # dataclasses look their module up
    loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("benchmark", "said"), [("first_step", "first training step"), ("durability_cost", "undisturbed training")]
)
def test_help_says_what_is_measured(benchmark: str, said: str) -> None:
    command = [sys.executable, BENCHMARKS / benchmark, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


def test_the_table_has_medians_of_times_and_maxima_of_memory(first_step: ModuleType) -> None:
    def warm(seconds: float | None, mib: float) -> object:
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

    text = io.StringIO()
    table = first_step.summarise([warm(5.0, 700.0), warm(50.0, 600.0), warm(6.0, 650.0), warm(None, 1.0)])
    Console(file=text, width=200).print(table)
    assert text.getvalue().splitlines()[1].split() == ["warm", "4", "1.0", "2.0", "6.0", "30.0", "700", "1400"]
