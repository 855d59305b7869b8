"""Compute time spent, lost and saved, as arithmetic on what a sweep hears of its attempts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bertpar.events import AttemptEnded, CheckpointRef, TrainResult
from bertpar.ledger import Ledger, entry, is_used_up, ledger_of, stopped_early_seconds, until, used_up_at
from bertpar.render import ledger_text
from bertpar.states import RunState
from tests.unit.test_pages import sweep_view


def run(**changes: object) -> RunState:
    """Return a run whose first attempt has held a slot since second 1000."""
    state = replace(sweep_view(1).runs[0].state, attempt=1, has_slot=True, slot_since=1000.0)
    return replace(state, **changes)  # type: ignore[arg-type]


def ended(seconds: float | None, kept: float, attempt: int = 1) -> AttemptEnded:
    return AttemptEnded(run=0, attempt=attempt, seconds=seconds, noticed_at=1100.0, kept_seconds=kept)


def after(state: RunState, end: AttemptEnded) -> RunState:
    return replace(state, **entry(state, end))


def test_an_undisturbed_attempt_has_lost_nothing() -> None:
    state = after(run(), ended(60.0, kept=60.0))
    assert (state.spent_seconds, state.lost_seconds, state.slot_since) == (60.0, 0.0, None)


def test_a_killed_attempt_has_lost_what_its_checkpoints_do_not_hold() -> None:
    state = after(run(), ended(60.0, kept=45.0))
    assert (state.spent_seconds, state.lost_seconds) == (60.0, 15.0)


def test_the_attempt_that_goes_on_from_its_checkpoint_loses_nothing_more() -> None:
    second = replace(after(run(), ended(60.0, kept=45.0)), attempt=2, slot_since=1200.0)
    state = after(second, ended(30.0, kept=45.0 + 30.0, attempt=2))
    assert (state.spent_seconds, state.lost_seconds) == (90.0, 15.0)


def test_a_checkpoint_that_turns_out_to_be_damaged_is_lost_then() -> None:
    second = replace(after(run(), ended(60.0, kept=45.0)), attempt=2, slot_since=1200.0)
    state = after(second, ended(50.0, kept=20.0 + 50.0, attempt=2))  # it could go on from the one before only
    assert (state.spent_seconds, state.lost_seconds) == (110.0, 40.0)


def test_what_equal_runs_had_done_is_saved_and_neither_spent_nor_lost() -> None:
    state = after(run(saved_seconds=100.0), ended(30.0, kept=100.0 + 20.0))
    assert ledger_of([state]) == Ledger(spent_seconds=30.0, lost_seconds=10.0, saved_seconds=100.0)


def test_an_end_said_twice_or_of_an_attempt_without_a_slot_changes_nothing() -> None:
    once = after(run(), ended(60.0, kept=60.0))
    assert after(once, ended(60.0, kept=60.0)) == once
    assert after(run(), ended(60.0, kept=0.0, attempt=2)) == run()  # it was cancelled while it waited


def test_of_an_attempt_that_tells_nothing_of_itself_the_time_until_that_was_noticed_counts() -> None:
    state = after(run(), ended(None, kept=0.0))
    assert (state.spent_seconds, state.lost_seconds) == (100.0, 100.0)


def test_a_running_attempt_counts_until_now_and_only_once() -> None:
    state = until(until(run(), 1010.0), 1015.0)
    assert state.spent_seconds == 15.0
    assert until(run(has_slot=False), 1015.0).spent_seconds == 0.0


def test_early_stopping_saves_the_steps_left_at_the_mean_time_of_those_done() -> None:
    last = CheckpointRef(key="c", digest="d", step=20, attempt=1, num_bytes=1, metrics={})
    result = TrainResult(
        total_steps=50,
        stopped_early=True,
        best=last,
        last=last,
        metrics={},
        resumed_from_step=0,
        train_seconds=12.0,
        work_seconds=10.0,
    )
    assert stopped_early_seconds(result) == 15.0
    assert stopped_early_seconds(replace(result, stopped_early=False)) == 0.0


def test_the_ledger_of_a_sweep_is_the_sum_of_its_runs() -> None:
    states = [run(spent_seconds=60.0, lost_seconds=5.0), run(saved_seconds=7.0, stopped_early_seconds=3.0)]
    assert ledger_of(states) == Ledger(spent_seconds=60.0, lost_seconds=5.0, saved_seconds=10.0)


@pytest.mark.parametrize(
    ("ledger", "text"),
    [
        (Ledger(spent_seconds=80, lost_seconds=0, saved_seconds=0), "1:20"),
        (Ledger(spent_seconds=80, lost_seconds=12, saved_seconds=3723), "1:20 (lost 0:12, saved 1:02:03)"),
    ],
)
def test_compute_time_is_told_with_what_was_lost_and_saved(ledger: Ledger, text: str) -> None:
    assert ledger_text(ledger) == text


# --- budgets ----------------------------------------------------------------------------------------------

HOUR = 3600.0


def test_a_budget_is_used_up_sooner_the_more_attempts_hold_a_slot() -> None:
    assert used_up_at([run()], 1.0) == 1000.0 + HOUR
    assert used_up_at([run(), run(slot_since=2000.0)], 1.0) == 1500.0 + HOUR / 2
    assert used_up_at([run(spent_seconds=HOUR / 2)], 1.0) == 1000.0 + HOUR / 2


def test_without_a_budget_or_a_slot_in_use_no_moment_is_known() -> None:
    assert used_up_at([run()], None) is None
    assert used_up_at([run(slot_since=None)], 1.0) is None
    assert not is_used_up([run()], None, now=1e12)


def test_a_budget_is_used_up_from_its_moment_on() -> None:
    assert not is_used_up([run()], 1.0, now=999.0 + HOUR)
    assert is_used_up([run()], 1.0, now=1000.0 + HOUR)


def test_a_crumb_of_a_budget_is_worth_no_further_start() -> None:
    assert is_used_up([run(slot_since=None, spent_seconds=0.995 * HOUR)], 1.0, now=0.0)
    assert not is_used_up([run(slot_since=None, spent_seconds=0.98 * HOUR)], 1.0, now=0.0)
