"""The storm: its plan and its measurements, and a short one over the whole stack."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil

from bertpar.events import Progress
from bertpar.observe import RunView, SweepView
from bertpar.stack.child import MARK
from bertpar.states import Attempt, RunState, SweepStatus
from bertpar.verify import Place
from bertpar.verify.storm.outcome import Prediction, UnderFire, predict
from bertpar.verify.storm.plan import (
    EVALUATION_POINTS,
    PREDICTION_POINTS,
    SUBMISSION_POINTS,
    TRAINING_POINTS,
    plan_sweep,
)
from bertpar.verify.storm.report import Judged
from bertpar.verify.storm.watch import Recovery, Watch
from tests.specs import OPTIONS, run_ref

RUN = run_ref("sweep/0", swept={})
SWEEP = SweepStatus(
    sweep_id="sweep",
    name="sweep",
    status="running",
    runs=(),
    mlflow=None,
    options=OPTIONS,
)


def seen(attempt: int, step: int, *, resumed_from: int = 0, status: str = "training") -> SweepView:
    """Return the view of a sweep whose run is at `step` in its attempt number `attempt`."""
    attempts = tuple(
        Attempt(number=n, resumed_from_step=resumed_from if n == attempt else 0) for n in range(1, attempt + 1)
    )
    progress = Progress(attempt=attempt, phase="training", step=step, total_steps=100)
    state = RunState(run=RUN, status="training", attempt=attempt, step=step)
    return SweepView(sweep=SWEEP, runs=(RunView(state=state, status=status, attempts=attempts, progress=progress),))


def replace_progress(view: SweepView, progress: Progress | None) -> SweepView:
    return replace(view, runs=tuple(replace(run, progress=progress) for run in view.runs))


def test_the_same_seed_strikes_alike_and_another_one_otherwise() -> None:
    def blows(seed: int, number: int) -> list[object]:
        return list(itertools.islice(plan_sweep(seed, number).actions(), 50))

    assert blows(1, 2) == blows(1, 2)
    assert blows(1, 2) != blows(2, 2)
    assert blows(1, 2) != blows(1, 3)


def test_every_named_point_and_every_process_has_its_turn_within_a_few_sweeps() -> None:
    plans = [plan_sweep(1, number) for number in range(1, 9)]
    actions = [action for plan in plans for action in itertools.islice(plan.actions(), 25)]
    assert {point for plan in plans for point in plan.opening} == set(SUBMISSION_POINTS)
    assert {point for plan in plans for point in plan.evaluation} == set(EVALUATION_POINTS)
    assert {plan.prediction for plan in plans} == set(PREDICTION_POINTS)
    assert {action.point for action in actions if action.point} == set(TRAINING_POINTS)
    processes = {"job", "template", "training_worker", "eval_worker", "client", "temporal", "supervisor", "all"}
    assert {action.target for action in actions if action.how == "kill"} >= processes
    assert {action.name for action in actions} >= {"stop training_worker", "stop job", "term training_worker"}


def test_mlflow_is_hit_only_where_the_storm_has_a_server_of_it() -> None:
    for number in range(1, 7):
        plan = plan_sweep(1, number)
        hits = {a.target for a in itertools.islice(plan.actions(), 200) if a.target and a.target.startswith("mlflow")}
        assert bool(hits) == plan.with_mlflow_server
    assert any(plan_sweep(1, number).with_mlflow_server for number in range(1, 4))


def test_recovery_is_from_the_last_blow_to_the_next_step_of_a_new_attempt() -> None:
    watch = Watch()
    watch.see(seen(1, 10), now=0.0)
    watch.hit("kill job", 1.0, reach="one run")
    watch.hit("kill all", 2.0, reach="every run")
    watch.see(seen(1, 11), now=2.5)  # a heartbeat from before the blow
    watch.see(seen(2, 8, resumed_from=8), now=5.0)  # it has resumed, and made no step yet
    assert (watch.recoveries, watch.is_waiting()) == ([], True)
    watch.see(seen(2, 9, resumed_from=8), now=6.0)
    assert (watch.recoveries, watch.is_waiting()) == ([Recovery(blow="kill all", seconds=4.0)], False)


def test_a_blow_to_a_run_that_has_not_yet_recovered_counts_anew() -> None:
    watch = Watch()
    watch.see(seen(1, 10), now=0.0)
    watch.hit("kill job", 1.0, reach="one run")
    watch.see(replace_progress(seen(1, 10), None), now=2.0)  # its attempt has ended, and the next not begun
    watch.hit("kill temporal", 5.0, reach="every run")
    watch.hit("kill job", 6.0, reach="one run")  # perhaps another run's
    watch.see(seen(2, 9, resumed_from=8), now=8.0)
    assert watch.recoveries == [Recovery(blow="kill temporal", seconds=3.0)]


def test_a_blow_that_ends_no_attempt_is_no_recovery() -> None:
    watch = Watch()
    watch.see(seen(1, 10), now=0.0)
    watch.hit("kill job", 1.0, reach="one run")
    watch.see(seen(1, 12), now=4.0)
    assert watch.is_waiting()
    watch.see(seen(1, 20), now=6.0)
    assert (watch.recoveries, watch.is_waiting()) == ([], False)


def test_lost_steps_are_those_that_an_ended_attempt_had_shown_and_the_next_one_made_again() -> None:
    watch = Watch()
    watch.see(seen(1, 13), now=0.0)
    watch.see(seen(2, 30, resumed_from=8), now=1.0)
    attempts = (
        Attempt(number=1, resumed_from_step=0),
        Attempt(number=2, resumed_from_step=8),
        Attempt(number=3, resumed_from_step=32),
    )
    assert watch.lost_steps(0, attempts) == [5, 0]


def under_fire(prediction: Prediction) -> UnderFire:
    place = Place(store_root="", tracking_uri="", cache=Path())
    return UnderFire(number=1, status="completed", place=place, prediction=prediction)


def predicted_by(code: str) -> Prediction:
    return predict([sys.executable, "-c", code])


def test_a_failed_prediction_is_a_problem_even_where_it_fails_with_the_same_words() -> None:
    failed = under_fire(predicted_by("exit('no such checkpoint')"))
    problem = "bertpar predict failed: exit code 1: no such checkpoint"
    assert failed.failures == [problem]
    assert Judged.of(failed, failed, []).problems == (problem,)


def test_predictions_are_compared() -> None:
    one, other = (under_fire(predicted_by(f"print({label!r})")) for label in ("good", "bad"))
    assert Judged.of(one, one, []).problems == ()
    (problem,) = Judged.of(one, other, []).problems
    assert problem.startswith("bertpar predict: ")


def test_a_prediction_that_is_killed_is_made_again(tmp_path: Path) -> None:
    code = f"import os, pathlib; p = pathlib.Path({str(tmp_path / 'there')!r})\n"
    code += "if not p.exists(): p.touch(); os.kill(os.getpid(), 9)\nprint('good')"
    assert predicted_by(code) == Prediction(printed="good\n")


def storm(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bertpar.verify.storm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=900, env=dict(os.environ))


def test_a_configuration_that_cannot_be_exact_is_refused_before_anything_starts(tmp_path: Path) -> None:
    done = storm("--seed", "1", "--kills", "20", "--home", str(tmp_path), "trainer.num_threads=null")
    assert done.returncode == 2
    assert "trainer.num_threads=null leaves the number of CPU threads" in done.stderr
    assert not (tmp_path / "stack.json").exists()


def test_a_sweep_of_four_under_twenty_kills_ends_unattended_with_identical_results(tmp_path: Path) -> None:
    numbers = tmp_path / "storm.json"
    done = storm("--seed", "228", "--kills", "20", "--home", str(tmp_path), "--json", str(numbers))
    assert done.returncode == 0, done.stdout + done.stderr
    sweeps = json.loads(numbers.read_text())["sweeps"]
    assert {(sweep["status"], *sweep["problems"]) for sweep in sweeps} == {("completed",)}
    assert sum(len(sweep["log"]) for sweep in sweeps) >= 20, sweeps
    assert sum(sweep["attempts"] for sweep in sweeps) > 4 * len(sweeps)
    assert done.stdout.count("IDENTICAL") == len(sweeps)
    assert not [p for p in psutil.process_iter() if _is_of(p, tmp_path)], "the storm has left processes behind"


def _is_of(process: psutil.Process, home: Path) -> bool:
    try:
        return process.environ().get(MARK) == str(home)
    except (psutil.Error, OSError):
        return False
