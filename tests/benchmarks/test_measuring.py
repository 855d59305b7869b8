"""A smoke of each benchmark: it measures what it says, on little work. Nothing here judges a time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bertpar import jobs
from bertpar.paths import Home
from bertpar.training import run
from tests.benchmarks.scripts import BENCHMARKS, load

TINY = (
    "model=tiny",
    "data.train_size=64",
    "data.validation_size=16",
    "data.test_size=16",
    "trainer.batch_size=8",
)


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("BERTPAR_HOME", str(tmp_path))
    return load("preparation", monkeypatch).prepare(TINY, Home(tmp_path))


@pytest.fixture(scope="module")
def stack() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch, load("local_stack", patch).local_stack() as stack:
        yield stack


def test_the_limit_trains_to_the_same_bits_as_a_training_process(
    prepared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare, preparation = load("bare", monkeypatch), load("preparation", monkeypatch)
    training = bare.BareTraining(prepared, prepared.spec)
    steps = [step for _ in training.legs for step in training.steps()]
    result = jobs.train(preparation.train_job(prepared, prepared.spec), prepared.store, lambda kind, value: None)
    folder = prepared.store.fetch(result.last.key, digest=result.last.digest)
    trained = load_file(folder / "model.safetensors")
    weights = training.module.model.state_dict()
    assert steps == list(range(1, result.total_steps + 1))
    assert trained.keys() == weights.keys()
    assert all(torch.equal(trained[name], weights[name]) for name in weights)


def test_throughput_times_the_steps_of_every_subject(prepared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    throughput = load("throughput", monkeypatch)
    monkeypatch.setattr(run, "PlannedSteps", run.PlannedSteps)  # a subject marks the steps of its own process
    threads = torch.get_num_threads()
    measured = [throughput.measure(prepared, subject, seed=0, num_steps=3) for subject in throughput.SUBJECTS]
    torch.set_num_threads(threads)
    assert {m.steps for m in measured} == {3}
    assert all(m.examples_per_cpu_second > 0 for m in measured)


def test_run_measures_what_it_is_told_to_and_keeps_the_figures(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    command = [sys.executable, BENCHMARKS / "run", "--quick", "--only", "durability_cost", "--json", file, "--", *TINY]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(file.read_text(encoding="utf-8"))["durability_cost"]
    assert {m["subject"] for m in result["measurements"]} == {"bare", "model_checkpoint", "bertpar"}
    assert all(figure["name"] in done.stdout for figure in result["figures"])


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[ModuleType, Any]:
    sweeps, preparation = load("sweeps", monkeypatch), load("preparation", monkeypatch)
    task = preparation.Task(learning_rates=(1e-3,), seeds=(1, 2), overrides=TINY)
    return sweeps, sweeps.Workbench("tiny", task, tmp_path)


@pytest.mark.parametrize("peer", ["hydra_basic", "hydra_joblib", "ray_tune", "hf_trainer"])
def test_a_peer_does_the_same_work_as_its_users_would(
    peer: str, bench: tuple[ModuleType, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    peers, environments = load("peer_commands", monkeypatch), load("environments", monkeypatch)
    needed = peers.PEERS_BY_NAME[peer].environment
    if peer == "hydra_basic":  # nothing that it needs is missing here
        monkeypatch.setattr(peers, "environment_of", lambda name: Path(sys.executable))
    elif not environments.is_ready(needed):
        pytest.skip(f"benchmarks/sweeps --subjects {peer} would make its environment, which takes a network")
    measured = bench[1].measure(f"{peer} =precision", 0)
    assert measured.steps == [16, 16]
    assert measured.cpu_seconds > 0
    assert all(0 <= accuracy <= 1 for accuracy in measured.test_accuracies)


def test_a_subject_that_fails_costs_no_other_measurement(
    bench: tuple[ModuleType, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweeps, workbench = bench
    failing = [sys.executable, "-c", "raise SystemExit('no such option')"]
    monkeypatch.setattr(type(sweeps.PEERS_BY_NAME["ray_tune"]), "command", lambda *_: failing)
    failures: list[str] = []
    assert sweeps.try_to_measure(workbench, failures, "ray_tune", 0) is None
    assert sweeps.try_to_measure(workbench, failures, "limit", 0).steps == [16, 16]
    (failure,) = failures
    assert failure.startswith("tiny, round 1, ray_tune: ")
    assert "no such option" in failure
    assert failure in capsys.readouterr().err


def test_the_limit_and_bertpar_do_the_same_work(bench: tuple[ModuleType, Any], stack: Any) -> None:
    limit = bench[1].measure("limit", 0)
    measured = bench[1].measure_sweep_on(stack, "bertpar")
    assert measured.steps == limit.steps == [16, 16]
    assert measured.test_accuracies == limit.test_accuracies
    assert measured.cpu_seconds > 0


def test_accuracy_compares_the_configured_way_with_the_padded_one(stack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracy = load("accuracy", monkeypatch)
    comparison = accuracy.compare(stack, (1, 2), TINY)
    difference, low, high = (figure.value for figure in accuracy.figures_of(comparison))
    assert low <= difference <= high
    assert {c["subject"] for c in comparison["configurations"]} == {"as configured", " ".join(accuracy.REFERENCE)}


def test_first_step_sees_when_a_sweep_began_to_train(stack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first_step = load("first_step", monkeypatch)
    measured = first_step.measure("cold", stack, [*first_step.ONE_STEP, *TINY])
    assert measured.mlflow_open_seconds <= measured.data_ready_seconds <= measured.first_step_seconds
    assert measured.first_step_seconds <= measured.whole_seconds


def test_recovery_times_what_a_kill_costs(stack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    recovery = load("recovery", monkeypatch)
    monkeypatch.setattr(recovery, "LONGEST_PAUSE_SECONDS", 0.0)
    stack.sweep(*recovery.A_LONG_RUN, *TINY)
    measured = recovery.measure(recovery.Victim(stack), recovery.PROCESS, 0)
    stack.ask("cancel", "last")
    assert measured.seconds > 0


def test_orchestration_counts_what_a_sweep_of_no_ops_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    orchestration = load("orchestration", monkeypatch)
    measurements = [asdict(orchestration.measure(kind, 2)) for kind in ("bertpar", "bare")]
    ours, bare = measurements
    assert bare["all_events"] > 5 * orchestration.bare_parent.NUM_ACTIVITIES
    assert ours["all_events"] > ours["coordinator_events"] > 0
    assert all(m["worker_cpu_ms"] > 0 and m["server_cpu_ms"] > 0 and m["worker_mib"] > 0 for m in measurements)
    assert orchestration.table_of(measurements).row_count == 3
    assert {figure.name for figure in orchestration.figures_of(measurements) if figure.value <= 0} == set()


def test_fixed_costs_accounts_for_everybody_who_works_for_a_run(stack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed_costs = load("fixed_costs", monkeypatch)
    monkeypatch.setattr(fixed_costs, "_SECONDS_TO_SETTLE", 0.0)
    stack.sweep(*fixed_costs.TINY_RUN)
    measured = fixed_costs.measure(stack, 2, 100)
    roles = (measured.client, measured.eval_jobs, measured.training_jobs, measured.eval_worker, measured.temporal)
    assert min(roles) > 0
    assert measured.cpu >= sum(roles) * 0.99


def test_durability_cost_finds_the_parts_that_it_accounts_for(monkeypatch: pytest.MonkeyPatch) -> None:
    durability_cost = load("durability_cost", monkeypatch)
    (measured,) = load("bare", monkeypatch).in_forks(durability_cost.measure, [(durability_cost.BERTPAR, TINY)], 1)
    assert set(measured.parts) == set(durability_cost.PARTS)
    assert min(measured.parts.values()) > 0
    assert measured.checkpoints_per_step > 0
