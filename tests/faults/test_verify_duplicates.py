"""The same sweep launched ten times at once is one sweep: one coordinator, one set of runs, one MLflow run each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bertpar.paths import Home
from bertpar.verify import Place, faults, read_sweep

LAUNCH = """
import asyncio
from bertpar.composing import compose_sweep
from bertpar.paths import home
from bertpar.submit import submit

batch = compose_sweep(["experiment=smoke", "lr=1e-3,3e-3"], home())
asyncio.run(submit(batch, home(), sweep_id="the-one", final=True, say=print))
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    yield Home(tmp_path)
    bertpar(Home(tmp_path), "down")


def environment(home: Home) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("TEMPORAL_", "BERTPAR_", "MLFLOW_"))}
    return {**clean, "BERTPAR_HOME": str(home.root)}


def bertpar(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bertpar.cli", *arguments]
    return subprocess.run(command, env=environment(home), capture_output=True, text=True, check=False, timeout=300)


def test_ten_launches_at_once_of_the_same_sweep_are_one_sweep(home: Home) -> None:
    launches = [
        subprocess.Popen([sys.executable, "-c", LAUNCH], env=environment(home), stderr=subprocess.PIPE)
        for _ in range(10)
    ]
    errors = [launch.communicate(timeout=300)[1].decode() for launch in launches]
    assert [launch.returncode for launch in launches] == [0] * 10, errors
    assert bertpar(home, "attach", "the-one").returncode == 0
    assert [sweep["sweep_id"] for sweep in json.loads(bertpar(home, "ls", "--json").stdout)] == ["the-one"]
    found = read_sweep(Place.of(home), "the-one")
    assert found.parent_statuses == ("FINISHED",)
    assert list(found.runs) == ["lr=0.001", "lr=0.003"]
    assert [(run.statuses, faults(run)) for run in found.runs.values()] == [(("FINISHED",), [])] * 2
