"""What `bertpar why` reads out of recorded histories, and how it says it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHistory

from bertpar.attempts import TrainingAttempt, slot_times, training_attempts, with_losses
from bertpar.cli.why import attempts_table, evaluation_line, headline
from bertpar.events import Failure
from bertpar.follow import make_console
from bertpar.tries import evaluation_tries
from bertpar.why import RunRecord

HISTORIES = Path(__file__).parents[1] / "histories"


def recorded(*names: str) -> list[list[HistoryEvent]]:
    """Return the histories of these names, as if of one workflow's executions."""
    texts = {name: (HISTORIES / f"{name}.json").read_text(encoding="utf-8") for name in names}
    return [list(WorkflowHistory.from_json(name, text).events) for name, text in texts.items()]


def attempts_of(name: str) -> tuple[TrainingAttempt, ...]:
    """Return the attempts in a recorded history, which had their slots as soon as they were queued."""
    history = recorded(name)
    return training_attempts(history, {a.number: a.queued_at for a in training_attempts(history, {})})


def record(training: str, evaluation: str = "evaluation") -> RunRecord:
    return RunRecord(
        run_id="sweep/0",
        status="completed",
        failure=None,
        attempts=attempts_of(training),
        evaluation=evaluation_tries(recorded(evaluation)),
    )


def printed(record: RunRecord) -> str:
    console = make_console()
    with console.capture() as capture:
        console.print(attempts_table(record))
    return capture.get()


def test_a_lost_attempt_reached_the_step_of_its_last_heartbeat() -> None:
    first, *_ = attempts_of("training-lost")
    assert (first.outcome, first.reached_step, first.heard_from) == ("failed", 7, "heartbeat")
    assert first.cause is not None
    assert first.cause.error_type == "WorkerLostError"
    assert first.started_at is not None
    assert first.ended_at is not None
    assert (first.ended_at - first.started_at).total_seconds() > 2  # the heartbeat timeout


def test_a_checkpoint_found_in_the_store_is_where_an_attempt_resumed() -> None:
    first, second, _ = attempts_of("training-lost")
    assert second.resumed_from_step == 6
    assert first.lost_steps == 1


def test_an_attempt_killed_before_it_told_of_a_checkpoint_has_reached_it() -> None:
    first, second, *_ = attempts_of("training-lost")
    killed, following = with_losses(
        [replace(first, reached_step=30, heard_from="heartbeat"), replace(second, resumed_from_step=40)]
    )
    assert (killed.reached_step, killed.heard_from, killed.lost_steps) == (40, "checkpoint", 0)
    assert following.lost_steps is None


def test_a_failure_that_names_its_step_came_before_that_step_was_done() -> None:
    _, second, third = attempts_of("training-lost")
    assert second.cause == Failure(error_type="OutOfMemoryError", message="out of memory", step=9)
    assert (second.reached_step, second.heard_from, second.lost_steps) == (8, "failure", 2)
    assert (third.outcome, third.reached_step, third.lost_steps) == ("completed", 10, None)


def test_of_a_process_that_died_the_last_checkpoint_is_known() -> None:
    first, second = attempts_of("training-resumed")
    assert (first.reached_step, first.heard_from, second.resumed_from_step) == (5, "checkpoint", 5)
    assert first.cause == Failure(error_type="ProcessDiedError", message="killed")


def test_a_run_that_failed_for_good_names_its_cause() -> None:
    (only,) = attempts_of("training-failed")
    assert (only.outcome, only.lost_steps) == ("failed", None)
    assert only.cause == Failure(error_type="NotANumberError", message="loss is nan")


def test_an_attempt_without_an_end_in_history_is_running_if_it_has_a_slot() -> None:
    (history,) = recorded("training-lost")
    unended = [event for event in history if not event.HasField("activity_task_completed_event_attributes")]
    waiting = training_attempts([unended], {})[-1]
    assert (waiting.outcome, waiting.started_at) == ("queued", None)
    running = training_attempts([unended], {waiting.number: waiting.queued_at})[-1]
    assert (running.outcome, running.started_at) == ("running", waiting.queued_at)


def test_an_attempt_begins_when_its_sweep_was_told_that_it_has_a_slot_and_waits_until_then() -> None:
    times = slot_times(recorded("coordinator-one_failed"))
    told = training_attempts(recorded("training-resumed"), times[0])
    assert {a.number: a.started_at for a in told} == times[0]
    seconds = replace(record("training-resumed"), attempts=told).train_seconds
    late = {number: at + timedelta(milliseconds=5) for number, at in times[0].items()}
    waited = training_attempts(recorded("training-resumed"), late)
    assert replace(record("training-resumed"), attempts=waited).train_seconds == pytest.approx(seconds - 0.01)


def test_an_attempt_that_ended_while_it_waited_for_a_slot_took_no_time() -> None:
    (only,) = training_attempts(recorded("training-failed"), {})
    assert (only.outcome, only.started_at) == ("failed", None)
    assert replace(record("training-failed"), attempts=(only,)).train_seconds == 0


def test_an_evaluation_tells_its_tries_and_its_last_failure() -> None:
    tries = evaluation_tries(recorded("evaluation-retried"))
    assert tries is not None
    assert (tries.num_tries, tries.outcome) == (2, "completed")
    assert tries.last_failure == Failure(error_type="StoreError", message="No space left on device")
    assert "StoreError: No space left on device" in evaluation_line(tries)


def test_tries_are_counted_over_all_executions_of_an_evaluation() -> None:
    tries = evaluation_tries(recorded("evaluation-retried", "evaluation"))
    assert tries is not None
    assert tries.num_tries == 3
    assert tries.last_failure is not None


def test_the_headline_counts_attempts_and_steps_done_again() -> None:
    told = headline(record("training-lost", "evaluation-retried"))
    assert told.startswith("run sweep/0: completed after 3 attempts at training, 0:0")
    assert told.endswith("at least 3 steps done again")


def test_a_run_without_a_failure_says_so() -> None:
    untroubled = record("training-resumed")
    untroubled = replace(untroubled, attempts=untroubled.attempts[1:])
    assert headline(untroubled) == "run sweep/0: completed; no attempt failed"


def test_a_run_that_failed_before_its_training_names_its_failure() -> None:
    failed = replace(
        record("training-lost"),
        status="failed",
        attempts=(),
        evaluation=None,
        failure=Failure(error_type="DataError", message="no column x"),
    )
    assert headline(failed) == "run sweep/0: failed, DataError: no column x"


def test_each_attempt_is_a_row_with_its_steps_and_its_end() -> None:
    rows = printed(record("training-lost")).splitlines()
    assert len(rows) == 4
    assert "≥ 7" in rows[1]
    assert rows[1].endswith("WorkerLostError: no sign of life from the worker (heartbeat timeout)")
    assert rows[3].split()[-1] == "completed"


def test_the_json_form_has_times_causes_and_totals() -> None:
    plain = record("training-lost").as_json()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["totals"]["attempts"] == 3
    assert plain["totals"]["lost_steps"] == 3
    assert plain["attempts"][0]["cause"]["error_type"] == "WorkerLostError"
    assert plain["attempts"][0]["started_at"].endswith("+00:00")
