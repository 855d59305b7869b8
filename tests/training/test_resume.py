"""A killed and resumed training is the uninterrupted one, bit for bit: weights, metrics, choice of the best."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import pytest

from bertpar.errors import PreemptedError
from bertpar.events import CheckpointRef, CheckpointSaved, Progress, TrainResult
from bertpar.spec import RunSpec
from bertpar.tracking import open_run
from tests.training.conftest import SPEC, Killed, Lab, same_weights, with_trainer


def outcome(result: TrainResult) -> tuple[object, ...]:
    return result.best.step, result.best.metrics, result.last.step, result.last.metrics, result.metrics


def metric_rows(lab: Lab, run_id: str) -> list[tuple[str, int, str]]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=lab.tracking.uri)
    keys = [k for k in client.get_run(run_id).data.metrics if k != "train/examples_per_second"]
    rows = [(m.key, m.step, m.value.hex()) for key in keys for m in client.get_metric_history(run_id, key)]
    return sorted(rows)


VARIANTS = {
    "plain": SPEC,
    "bf16": with_trainer(SPEC, precision="bf16"),
    "validations between": with_trainer(SPEC, validate_every_n_steps=3),
    "early stopping": with_trainer(
        SPEC, validate_every_n_steps=2, early_stopping_patience=2, early_stopping_min_delta=0.9
    ),
    "uneven steps": with_trainer(SPEC, batch_size=3, accumulate=3),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_run_killed_after_every_checkpoint_equals_the_uninterrupted_one(lab: Lab, name: str) -> None:
    spec: RunSpec = VARIANTS[name]
    whole = lab.train(spec, f"whole-{name}")
    steps = sorted({v.checkpoint.step for v in checkpoints(lab, f"whole-{name}")})
    assert len(steps) >= 3
    killed = lab.train_with_kills(spec, f"killed-{name}", steps[:-1])
    assert outcome(killed) == outcome(whole)
    assert same_weights(lab.weights(killed.last), lab.weights(whole.last))
    assert same_weights(lab.weights(killed.best), lab.weights(whole.best))


def test_every_resumption_and_every_pair_of_resumptions_equals_the_uninterrupted_run(lab: Lab) -> None:
    spec = replace(with_trainer(SPEC, validate_every_n_steps=5), checkpoint=replace(SPEC.checkpoint, every_n_steps=4))
    whole = lab.train(spec, "pairs-whole")
    steps = sorted({v.checkpoint.step for v in checkpoints(lab, "pairs-whole")})
    assert steps == [4, 5, 7, 8, 10, 12, 14]
    weights = lab.weights(whole.last)
    deaths = [[first] for first in steps[:-1]] + [[i, j] for i in steps[:-1] for j in steps[:-1] if i < j]
    for kills in deaths:
        killed = lab.train_with_kills(spec, f"pairs-{kills}", kills)
        assert outcome(killed) == outcome(whole), kills
        assert same_weights(lab.weights(killed.last), weights), kills


def test_metric_rows_are_the_same_once_each_after_kills(lab: Lab) -> None:
    for run_id in ("rows-whole", "rows-killed"):
        open_run(lab.opening(SPEC, run_id), lab.store)
    lab.train(SPEC, "rows-whole")
    lab.train_with_kills(SPEC, "rows-killed", [2, 4, 7, 10])
    whole, killed = (metric_rows(lab, lab.close(SPEC, run_id).run_id) for run_id in ("rows-whole", "rows-killed"))
    assert killed == whole
    assert len({(key, step) for key, step, _ in whole}) == len(whole)
    assert {"train/loss", "lr", "val/accuracy", "val/loss"} <= {key for key, _, _ in whole}


def test_other_seeds_and_learning_rates_give_other_weights(lab: Lab) -> None:
    """Without this the tests above could not fail."""
    one = lab.weights(lab.train(SPEC, "seed-1").last)
    assert not same_weights(one, lab.weights(lab.train(replace(SPEC, seed=2), "seed-2").last))
    slower = replace(SPEC, optim=replace(SPEC.optim, lr=9e-4))
    assert not same_weights(one, lab.weights(lab.train(slower, "lr").last))


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(lab: Lab) -> None:
    whole = lab.train(SPEC, "damage-whole")
    with pytest.raises(Killed):
        lab.train(SPEC, "damaged", kill_at_step=6)
    newest, before = lab.saved("damaged", 6), lab.saved("damaged", 4)
    weights = lab.store.fetch(newest.key) / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[len(raw) // 2] ^= 1
    weights.write_bytes(raw)
    result = lab.train(SPEC, "damaged", attempt=2, resume_from=(newest, before))
    assert result.resumed_from_step == 4
    assert any(kind == "note" and "step 6" in value for kind, value in lab.events)
    assert same_weights(lab.weights(result.last), lab.weights(whole.last))


def test_a_run_killed_after_its_last_checkpoint_just_reports(lab: Lab) -> None:
    result = lab.train_with_kills(SPEC, "last", [14])
    assert (result.resumed_from_step, result.last.step, result.total_steps) == (14, 14, 14)


def checkpoints(lab: Lab, run_id: str) -> list[CheckpointSaved]:
    return [
        value
        for _, value in lab.events
        if isinstance(value, CheckpointSaved) and value.checkpoint.key.startswith(f"runs/{run_id}/")
    ]


def test_only_the_best_and_the_last_two_checkpoints_stay(lab: Lab) -> None:
    spec = replace(SPEC, checkpoint=replace(SPEC.checkpoint, keep=1))
    result = lab.train(spec, "pruned")
    existing: list[CheckpointRef] = [
        v.checkpoint for v in checkpoints(lab, "pruned") if lab.store.find(v.checkpoint.key)
    ]
    newest = [v.checkpoint.step for v in checkpoints(lab, "pruned")][-2:]
    assert sorted(c.step for c in existing) == sorted({result.best.step, *newest})


def test_early_stopping_ends_before_the_last_step(lab: Lab) -> None:
    result = lab.train(VARIANTS["early stopping"], "early")
    assert result.stopped_early
    assert result.last.step == 6 < result.total_steps


def test_a_checkpoint_that_was_committed_but_never_signalled_is_found_and_signalled(lab: Lab) -> None:
    with pytest.raises(Killed):
        lab.train(SPEC, "unsignalled", kill_at_step=6)
    lab.events.clear()
    result = lab.train(SPEC, "unsignalled", attempt=2, resume_from=())
    assert result.resumed_from_step == 6
    assert [(c.attempt, c.checkpoint.attempt) for c in checkpoints(lab, "unsignalled") if c.checkpoint.step == 6] == [
        (2, 1)
    ]


@pytest.mark.parametrize(("phase", "step"), [("training", 3), ("training", 7), ("validating", 7)])
def test_sigterm_leaves_in_order_after_the_present_step(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, phase: str, step: int
) -> None:
    monkeypatch.setattr("bertpar.training.callbacks._PROGRESS_SECONDS", 0.0)  # the trigger below needs every step
    run_id = f"sigterm-{phase}-{step}"
    whole = lab.train(SPEC, f"{run_id}-whole")

    def emit(kind: str, value: object) -> None:
        if isinstance(value, Progress) and (value.phase, value.step) == (phase, step) and value.attempt == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(PreemptedError, match=f"after step {step}, no step is lost"):
        lab.train(SPEC, run_id, also=emit)
    result = lab.train(SPEC, run_id, attempt=2, resume_from=(lab.saved(run_id, step),))
    assert result.resumed_from_step == step
    assert outcome(result) == outcome(whole)
    assert same_weights(lab.weights(result.last), lab.weights(whole.last))
