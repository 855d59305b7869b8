"""A run that goes on from an equal run's checkpoint, or that begins with another run's weights."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bertpar import jobs
from bertpar.checkpoints import find_checkpoints
from bertpar.code import loaded_code
from bertpar.errors import CodeChangedError, CorruptError, ModelError
from bertpar.mlflow_jobs import CopiedRows, MlflowRun
from bertpar.spec import RunSpec, StartSpec
from bertpar.tracking import open_run
from bertpar.tracking.rows import EXAMPLES_PER_SECOND, read_rows
from bertpar.training import continuity
from bertpar.training.fingerprint import machine_fingerprint
from tests.training.conftest import SPEC, Killed, Lab, same_weights, with_trainer


def stopped_at(lab: Lab, run_id: str, step: int, spec: RunSpec = SPEC) -> None:
    with pytest.raises(Killed):
        lab.train(spec, run_id, kill_at_step=step)


def started_from(lab: Lab, run_id: str, step: int) -> StartSpec:
    checkpoint = lab.saved(run_id, step)
    return StartSpec(run_id=run_id, step=step, key=checkpoint.key, digest=checkpoint.digest)


def test_going_on_from_an_equal_runs_checkpoint_gives_the_bits_of_one_run(lab: Lab) -> None:
    whole = lab.train(SPEC, "whole")
    stopped_at(lab, "stopped", 6)
    result = lab.train(SPEC, "going-on", resume_from=(lab.saved("stopped", 6),))
    assert (result.resumed_from_step, result.continues) == (6, lab.saved("stopped", 6))
    assert same_weights(lab.weights(whole.last), lab.weights(result.last))
    assert whole.metrics == result.metrics
    assert min(c.step for c in find_checkpoints(lab.store, "going-on")) == 7


def test_whose_checkpoint_a_run_went_on_from_is_known_after_a_kill_too(lab: Lab) -> None:
    stopped_at(lab, "whose", 4)
    began = lab.saved("whose", 4)
    with pytest.raises(Killed):
        lab.train(SPEC, "whose-on", resume_from=(began,), kill_at_step=7)
    assert lab.train(SPEC, "whose-on", attempt=2).continues == began


def test_the_work_that_led_to_a_result_is_counted_across_runs_and_what_was_lost_is_not(lab: Lab) -> None:
    stopped_at(lab, "counted", 6)
    before = lab.store.find(lab.saved("counted", 6).key)
    assert before is not None
    result = lab.train(SPEC, "counted-on", resume_from=(lab.saved("counted", 6),))
    assert 0 < before.meta["work_seconds"] < result.work_seconds < before.meta["work_seconds"] + result.train_seconds


def test_an_equal_runs_checkpoints_are_never_pruned(lab: Lab) -> None:
    spec = replace(SPEC, checkpoint=replace(SPEC.checkpoint, keep=1))
    stopped_at(lab, "theirs", 6, spec)
    before = find_checkpoints(lab.store, "theirs")
    result = lab.train(spec, "ours", resume_from=tuple(before))
    assert find_checkpoints(lab.store, "theirs") == before
    assert len(find_checkpoints(lab.store, "ours")) < result.total_steps - 6


def test_an_equal_runs_checkpoint_of_another_kind_of_machine_is_passed_over(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_at(lab, "elsewhere", 4)
    other = machine_fingerprint() | {"processor": "an abacus"}
    monkeypatch.setattr(continuity, "machine_fingerprint", lambda: other)
    result = lab.train(SPEC, "here", resume_from=(lab.saved("elsewhere", 4),))
    assert (result.resumed_from_step, result.inexact, result.continues) == (0, (), None)


def test_a_run_that_goes_on_from_another_shows_its_metric_rows_too(lab: Lab) -> None:
    stopped_at(lab, "first-half", 6)
    first = open_run(lab.opening(SPEC, "first-half"), lab.store)
    lab.train(SPEC, "second-half", resume_from=(lab.saved("first-half", 6),))
    opening = replace(lab.opening(SPEC, "second-half"), copied=CopiedRows(run_id="first-half", last_step=6))
    second = open_run(opening, lab.store)
    lab.close(SPEC, "second-half")
    lab.train(SPEC, "all-at-once")
    whole = lab.close(SPEC, "all-at-once")
    assert steps_of(lab, first) == [], "the rows of the first half were waiting in its checkpoint"
    assert steps_of(lab, second) == steps_of(lab, whole)


def steps_of(lab: Lab, run: MlflowRun) -> list[tuple[str, int, float]]:
    rows = read_rows(lab.tracking.uri, run.run_id)
    return sorted((row.key, row.step, row.value) for row in rows if row.key != EXAMPLES_PER_SECOND)


def test_a_model_that_was_changed_in_place_is_refused(lab: Lab) -> None:
    changed = replace(lab.snapshot, model_digest="0" * 64)
    with pytest.raises(ModelError, match="is another than the one that the sweep began with"):
        lab.train(SPEC, "changed-model", snapshot=changed)


def test_a_job_for_other_code_is_refused_before_it_begins(lab: Lab) -> None:
    job = replace(lab.job(SPEC, "other-code"), code=replace(loaded_code(), digest="0" * 64))
    with pytest.raises(CodeChangedError):
        jobs.run("train", job, lambda kind, value: None)
    assert find_checkpoints(lab.store, "other-code") == []


def test_a_fork_begins_with_the_weights_of_its_checkpoint_and_a_schedule_of_its_own(lab: Lab) -> None:
    origin = lab.train(SPEC, "origin")
    still = replace(SPEC.optim, lr=1e-30, weight_decay=0.0)
    spec = replace(with_trainer(SPEC, max_steps=2), optim=still, start=started_from(lab, "origin", origin.last.step))
    result = lab.train(spec, "fork")
    assert (result.total_steps, result.resumed_from_step) == (2, 0)
    assert same_weights(lab.weights(origin.last), lab.weights(result.last))
    unforked = lab.train(replace(spec, start=None), "unforked")
    assert not same_weights(lab.weights(origin.last), lab.weights(unforked.last))


def test_a_killed_fork_goes_on_from_its_own_checkpoint(lab: Lab) -> None:
    origin = lab.train(SPEC, "origin-2")
    spec = replace(SPEC, seed=5, start=started_from(lab, "origin-2", origin.last.step))
    whole, killed = lab.train(spec, "fork-whole"), lab.train_with_kills(spec, "fork-killed", [4])
    assert same_weights(lab.weights(whole.last), lab.weights(killed.last))


def test_a_fork_whose_weights_do_not_fit_or_are_gone_says_so(lab: Lab) -> None:
    lab.train(with_trainer(SPEC, max_steps=2), "origin-3")
    start = started_from(lab, "origin-3", 2)
    smaller = replace(SPEC, model=replace(SPEC.model, num_layers=1), start=start)
    with pytest.raises(ModelError, match="a fork of origin-3 must have its model and number of labels"):
        lab.train(smaller, "fork-smaller")
    with pytest.raises(CorruptError, match="missing"):
        lab.train(replace(SPEC, start=replace(start, key=f"{start.key}9")), "fork-of-nothing")
