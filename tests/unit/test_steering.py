"""What a sweep in some state takes of its user, why not, and what it then changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bertpar.states import Command, RunState, RunStatus, SweepStatus
from bertpar.workflows.planning import next_starts, sweep_outcome
from bertpar.workflows.steering import (
    MAX_RUNS,
    effect,
    refusal,
    refusal_of_extension,
    refusal_of_more,
    status_after,
    waiting_to_displace,
)
from tests.specs import OPTIONS
from tests.unit.test_planning import run


def state(index: int, status: RunStatus = "queued", **more: Any) -> RunState:
    return replace(run(index, status), **more)


def training(index: int, **more: Any) -> RunState:
    return state(index, "training", **{"has_slot": True, **more})


def swept(index: int, status: RunStatus, lr: str, seed: str) -> RunState:
    base = run(index, status)
    overrides = ("experiment=smoke", f"lr={lr}", f"seed={seed}")
    ref = replace(base.run, swept={"lr": lr, "seed": seed}, overrides=overrides, spec_key=f"specs/{index}")
    return replace(base, run=ref)


def sweep(*runs: RunState, paused: str | None = None) -> SweepStatus:
    return SweepStatus(sweep_id="s", name="s", status="running", runs=runs, mlflow=None, options=OPTIONS, paused=paused)


def changed(given: SweepStatus, command: Command) -> dict[int, dict[str, Any]]:
    assert refusal(given, command) is None
    return effect(given, command)[1]


# --- pause, resume, cancel, retry -------------------------------------------------------------------------


def test_a_run_is_paused_at_once_where_it_waits_and_leaves_its_slot_where_it_trains() -> None:
    given = sweep(state(0), training(1))
    assert changed(given, Command(kind="pause", run=0)) == {0: {"status": "paused"}}
    assert changed(given, Command(kind="pause", run=1)) == {1: {"order": "pause"}}


def test_a_paused_sweep_has_what_trains_leave_and_the_rest_stay() -> None:
    given = sweep(state(0), training(1), state(2, "preparing"), state(3, "evaluating"), state(4, "completed"))
    assert changed(given, Command(kind="pause")) == {1: {"order": "pause"}, 2: {"order": "pause"}}


def test_a_command_on_a_run_in_the_wrong_state_is_refused_with_its_state_and_what_is_allowed() -> None:
    given = sweep(state(0, "completed"), state(1, "evaluating"), training(2))
    assert refusal(given, Command(kind="pause", run=0)) == (
        "run s/0 is completed: only a run that is queued, preparing, training or paused can be paused"
    )
    assert (
        refusal(given, Command(kind="resume", run=2)) == "run s/2 is training: only a run that is paused can be resumed"
    )
    for kind, index in (("pause", 1), ("cancel", 0), ("priority", 1), ("retry", 2)):
        assert "only a run that is" in str(refusal(given, Command(kind=kind, run=index)))  # type: ignore[arg-type]
    assert refusal(given, Command(kind="pause", run=7)) == "sweep s has no run 7; its runs: 0 to 2"


@pytest.mark.parametrize("kind", ["resume", "cancel", "priority"])
def test_a_run_on_its_way_to_a_pause_takes_no_other_command(kind: Any) -> None:
    reason = refusal(sweep(training(0, order="pause")), Command(kind=kind, run=0))
    assert reason is not None
    assert "run s/0 is being paused" in reason


@pytest.mark.parametrize("kind", ["pause", "priority"])
def test_a_run_that_is_being_cancelled_takes_no_other_command(kind: Any) -> None:
    assert "being cancelled" in str(refusal(sweep(training(0, order="cancel")), Command(kind=kind, run=0)))


def test_saying_it_again_changes_nothing() -> None:
    assert changed(sweep(training(0, order="pause")), Command(kind="pause", run=0)) == {0: {"order": "pause"}}
    assert changed(sweep(state(0, "paused")), Command(kind="pause", run=0)) == {}
    assert changed(sweep(state(0, "cancelled", cancelled_by_user=True)), Command(kind="cancel", run=0)) == {}


def test_a_sweep_is_resumed_with_all_its_paused_runs_unless_some_are_still_leaving() -> None:
    paused = sweep(state(0, "paused"), state(1), paused="a user has paused it")
    assert changed(paused, Command(kind="resume")) == {0: {"status": "queued"}}
    leaving = sweep(state(0, "paused"), training(1, order="pause"), paused="a user has paused it")
    assert "still pausing (s/1 (training))" in str(refusal(leaving, Command(kind="resume")))
    assert "is not paused" in str(refusal(sweep(training(0)), Command(kind="resume")))


def test_a_run_of_a_paused_sweep_is_not_resumed_alone() -> None:
    given = sweep(state(0, "paused"), paused="a user has paused it")
    assert "its sweep is paused, a user has paused it. bertpar resume s" in str(
        refusal(given, Command(kind="resume", run=0))
    )


def test_a_retried_run_forgets_how_it_ended_and_keeps_its_attempts() -> None:
    given = sweep(state(0, "failed", attempt=3), training(1))
    (change,) = changed(given, Command(kind="retry", run=0)).values()
    assert change == {"status": "queued", "failure": None, "cancelled_by_user": False}


@pytest.mark.parametrize(("order", "status"), [("pause", "paused"), ("yield", "queued"), ("cancel", "cancelled")])
def test_what_has_left_its_slot_is_what_it_was_told_to_be(order: Any, status: RunStatus) -> None:
    assert status_after(order) == status


# --- drop -------------------------------------------------------------------------------------------------

GRID = sweep(
    swept(0, "completed", "0.001", "1"),
    swept(1, "queued", "0.001", "2"),
    swept(2, "training", "0.003", "1"),
    swept(3, "queued", "0.003", "2"),
)


def drop(**where: str) -> Command:
    return Command(kind="drop", where={key: tuple(value.split(",")) for key, value in where.items()})


def test_drop_cancels_what_is_not_done_and_matches_all_values_however_they_are_typed() -> None:
    steered, changes = effect(GRID, drop(lr="1e-3"))
    assert (steered.runs, steered.done) == ((1,), (0,))
    assert changes == {1: {"status": "cancelled", "cancelled_by_user": True}}
    assert effect(GRID, drop(lr="3e-3", seed="1"))[0].runs == (2,)
    assert effect(GRID, drop(seed="1,2", lr=".003"))[0].runs == (2, 3)
    assert effect(GRID, drop(experiment="smoke"))[0].runs == (1, 2, 3)


def test_what_is_dropped_again_stays_as_it_is() -> None:
    gone = sweep(swept(0, "cancelled", "0.001", "1"), swept(1, "queued", "0.001", "2"))
    steered, changes = effect(gone, drop(lr="0.001"))
    assert (steered.runs, steered.done, set(changes)) == ((0, 1), (), {1})


def test_drop_refuses_what_no_run_has_and_lists_what_there_is() -> None:
    assert refusal(GRID, drop(lr="5")) == "no run of sweep s has lr=5; there are: lr=0.001,0.003"
    unknown = str(refusal(GRID, drop(momentum="1")))
    assert unknown.startswith("no run of sweep s has a value for momentum; there are: experiment=smoke; lr=0.001,0.003")
    assert "no run of sweep s has lr=0.001 seed=3" in str(refusal(GRID, drop(lr="0.001", seed="3")))


def test_drop_refuses_runs_that_are_done_and_names_them() -> None:
    assert refusal(GRID, drop(lr="0.001", seed="1")) == (
        "all runs with lr=0.001 seed=1 are done, and stay: s/0 (completed)"
    )


def test_a_sweep_counts_as_completed_without_the_runs_that_its_user_cancelled() -> None:
    cancelled = state(1, "cancelled", cancelled_by_user=True)
    assert sweep_outcome([state(0, "completed"), cancelled]) == "completed"
    assert sweep_outcome([state(0, "failed"), cancelled]) == "failed"
    assert sweep_outcome([state(0, "completed"), state(1, "cancelled")]) == "failed"
    assert sweep_outcome([cancelled]) == "cancelled"
    assert sweep_outcome([state(0, "completed"), state(1, "paused")]) == "running"


# --- priorities -------------------------------------------------------------------------------------------


def test_an_urgent_run_starts_first_and_no_other_before_it_has_a_slot() -> None:
    urgent = state(2, priority="high")
    assert next_starts([training(0), state(1), urgent], 10) == [2]
    waiting = state(2, "training", priority="high")
    assert next_starts([training(0), state(1), waiting], 10) == []
    assert next_starts([training(0), state(1), replace(waiting, has_slot=True)], 10) == [1]


def test_a_paused_run_takes_no_place_and_is_not_started() -> None:
    assert next_starts([state(0, "paused"), state(1), state(2, "paused", priority="high")], 1) == [1]


def test_what_merely_waits_for_a_slot_gives_way_to_an_urgent_run_that_waits_too() -> None:
    runs = [training(0), state(1, "training"), state(2, "preparing"), state(3, "evaluating")]
    assert waiting_to_displace([*runs, state(4, priority="high")]) == [1, 2]
    assert waiting_to_displace([*runs, training(4, priority="high")]) == []
    assert waiting_to_displace([*runs, state(4, "paused", priority="high")]) == []


def test_the_least_advanced_training_yields_only_where_the_urgent_run_has_no_slot() -> None:
    runs = (training(0), training(1), state(2, "training"), state(3), training(4, priority="high"))
    command = Command(kind="priority", run=3, priority="high", preempt=True, least_advanced=(4, 2, 1, 0))
    steered, changes = effect(sweep(*runs), command)
    assert (steered.yields, changes) == (1, {3: {"priority": "high"}, 1: {"order": "yield"}})
    already = replace(command, run=0)
    assert effect(sweep(*runs), already)[0].yields is None
    assert effect(sweep(*runs), replace(command, preempt=False))[0].yields is None
    unseen = effect(sweep(*runs), replace(command, least_advanced=()))[0]
    assert unseen.yields == 1  # what began last


def test_preempt_said_twice_has_one_training_yield_and_none_for_a_run_that_starts_nothing() -> None:
    def yields(*runs: RunState, run: int = 0, paused: str | None = None) -> int | None:
        command = Command(kind="priority", run=run, priority="high", preempt=True)
        return effect(sweep(*runs, paused=paused), command)[0].yields

    urgent = state(0, priority="high")
    assert yields(urgent, training(1), training(2, order="yield")) is None
    assert yields(urgent, training(1), training(2, order="yield"), state(3), run=3) == 1
    assert yields(state(0, "paused"), training(1)) is None
    assert yields(urgent, training(1), paused="a user has paused it") is None


# --- more runs --------------------------------------------------------------------------------------------


def test_a_configuration_that_is_in_the_sweep_is_not_added_again() -> None:
    known = swept(9, "queued", "0.001", "2").run
    assert refusal_of_extension(GRID, [replace(known, spec_key="specs/1")], is_closed=True) == (
        "lr=0.001 seed=2 is in the sweep already: s/1"
    )
    twice = [replace(known, spec_key="new"), replace(known, spec_key="new")]
    assert "given twice" in str(refusal_of_extension(GRID, twice, is_closed=True))
    assert refusal_of_extension(GRID, twice[:1], is_closed=True) is None


def test_runs_are_not_added_while_a_sweeper_numbers_its_own() -> None:
    assert "still chooses runs" in str(refusal_of_extension(GRID, [], is_closed=False))


def test_a_sweep_stays_small_enough_for_one_payload() -> None:
    assert refusal_of_more(GRID, MAX_RUNS - 4) is None
    assert "more than 1000 runs" in str(refusal_of_more(GRID, MAX_RUNS - 3))
