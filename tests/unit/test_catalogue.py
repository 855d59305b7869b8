"""Why a checkpoint is kept: by what lies in the store alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from bertpar import holds
from bertpar.catalogue import (
    collected_steps,
    find_and_hold,
    note_collected,
    read_catalogue,
    read_uses,
    read_whole_catalogue,
    runs_in,
    sweeps_in,
)
from bertpar.errors import NotFoundError
from bertpar.events import CheckpointRef
from bertpar.results import record_origin
from bertpar.store import Store
from tests.unit.shelves import add_checkpoint, add_evaluation, write_weights


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    root = str(tmp_path / "store") if request.param == "local" else f"memory://{tmp_path.name}"
    return Store(root, tmp_path / "cache")


def kept(store: Store, run_id: str = "s-1/0") -> dict[int, list[str]]:
    run = read_catalogue(store, run_id, read_uses(store))
    return {entry.checkpoint.step: list(entry.kept_because) for entry in run.entries}


def test_of_a_finished_run_the_best_is_kept_and_nothing_else(store: Store) -> None:
    best = add_checkpoint(store, "s-1/0", 4, 0.9)
    add_checkpoint(store, "s-1/0", 8, 0.8)
    add_evaluation(store, "s-1/0", best)
    assert kept(store) == {4: ["best"], 8: []}


def test_of_an_unfinished_run_what_it_needs_to_go_on_is_kept(store: Store) -> None:
    for step, accuracy in ((2, 0.1), (4, 0.9), (6, 0.5), (8, 0.6), (10, 0.7)):
        add_checkpoint(store, "s-1/0", step, accuracy)
    assert kept(store) == {2: [], 4: ["best"], 6: [], 8: ["resumable"], 10: ["last"]}


def test_the_best_up_to_the_one_before_the_last_is_kept_too(store: Store) -> None:
    for step, accuracy in ((2, 0.8), (4, 0.5), (6, None), (8, 0.9)):
        add_checkpoint(store, "s-1/0", step, accuracy)
    assert kept(store) == {2: ["resumable"], 4: [], 6: ["resumable"], 8: ["best", "last"]}


def test_of_checkpoints_that_say_nothing_of_their_run_all_are_kept(store: Store) -> None:
    for step in (2, 4, 6):
        meta = {"step": step, "attempt": 1, "metrics": {}}
        store.publish(f"runs/s-1/0/checkpoints/attempt-1/step-{step:08d}", write_weights, meta)
    assert kept(store) == {2: ["resumable"], 4: ["resumable"], 6: ["resumable"]}


def test_pins_forks_and_the_choices_of_other_runs_are_reasons(store: Store) -> None:
    first = add_checkpoint(store, "s-1/0", 2)
    second = add_checkpoint(store, "s-1/0", 4)
    third = add_checkpoint(store, "s-1/0", 6)
    add_evaluation(store, "s-1/0", add_checkpoint(store, "s-1/0", 8))
    holds.pin(store, first)
    holds.hold_for_fork(store, second, "s-2/3")
    add_evaluation(store, "s-3/0", third)
    assert kept(store) == {2: ["pinned"], 4: ["forked from by s-2/3"], 6: ["best of s-3/0"], 8: ["best"]}
    assert holds.unpin(store, first)
    assert not holds.unpin(store, first)
    assert kept(store)[2] == []


def test_what_does_not_exist_cannot_be_held_and_leaves_no_mark(store: Store) -> None:
    gone = "runs/s-1/0/checkpoints/attempt-1/step-00000002"
    with pytest.raises(NotFoundError, match="does not exist"):
        holds.pin(store, gone)
    assert not holds.is_held(store, gone)


def test_a_checkpoint_that_is_held_while_it_is_deleted_comes_back(store: Store) -> None:
    key = add_checkpoint(store, "s-1/0", 2)

    def somebody_pins() -> bool:
        assert store.find(key) is None, "readers must not find what is about to go"
        store.publish(f"pins/{key}", lambda folder: None)
        return holds.is_held(store, key)

    assert not store.remove(key, somebody_pins)
    assert store.find_intact(key) is not None
    holds.unpin(store, key)
    assert store.remove(key, lambda: holds.is_held(store, key))
    assert store.find(key) is None
    assert not store.remove(key)


def test_a_checkpoint_is_found_by_step_or_as_the_best_and_a_deleted_one_is_told(store: Store) -> None:
    for step in (2, 4, 6):
        add_checkpoint(store, "s-1/0", step)
    newer = add_checkpoint(store, "s-1/0", 4, attempt=2)
    run = read_catalogue(store, "s-1/0", read_uses(store))
    assert run.find(4).key == newer
    with pytest.raises(NotFoundError, match=r"has no best checkpoint; there are: 2, 4, 6"):
        run.find(None)
    note_collected(store, "s-1/0", [entry.checkpoint for entry in run.entries[:2]])
    assert collected_steps(store, "s-1/0") == ()
    for entry in run.entries[:2]:
        store.remove(entry.checkpoint.key)
    assert collected_steps(store, "s-1/0") == (2,)  # of step 4 another attempt's is left
    with pytest.raises(NotFoundError, match=r"step 2 any more: bertpar gc has deleted it; there are: 4, 6"):
        read_catalogue(store, "s-1/0", read_uses(store)).find(2)


def test_the_store_knows_its_sweeps_and_runs_in_their_order(store: Store) -> None:
    for run_id in ("b-1/10", "b-1/9", "a-1/0"):
        add_checkpoint(store, run_id, 2)
    assert sweeps_in(store) == ["a-1", "b-1"]
    assert runs_in(store) == ["a-1/0", "b-1/9", "b-1/10"]
    assert runs_in(store, "b-1") == ["b-1/9", "b-1/10"]


def test_what_an_unfinished_equal_run_goes_on_from_is_kept_until_it_has_finished(store: Store) -> None:
    best, other = add_checkpoint(store, "s-1/0", 4, 0.9), add_checkpoint(store, "s-1/0", 8, 0.8)
    add_evaluation(store, "s-1/0", best)
    record_origin(store, "s-2/0", "s-1/0", reused=False)
    record_origin(store, "s-3/0", "s-2/0", reused=False)
    assert kept(store) == {4: ["best", "needed by s-2/0", "needed by s-3/0"], 8: ["needed by s-2/0", "needed by s-3/0"]}
    add_evaluation(store, "s-2/0", other)
    add_evaluation(store, "s-3/0", best)
    assert kept(store) == {4: ["best", "best of s-3/0"], 8: ["best of s-2/0"]}


def test_a_run_whose_result_was_there_has_the_checkpoints_of_its_origin(store: Store) -> None:
    best = add_checkpoint(store, "s-1/0", 4, 0.9)
    add_evaluation(store, "s-1/0", best)
    record_origin(store, "s-2/0", "s-1/0", reused=True)
    uses = read_uses(store)
    assert read_catalogue(store, "s-2/0", uses).entries == ()
    whole = read_whole_catalogue(store, "s-2/0", uses)
    assert whole.is_finished
    assert whole.find(None).key == best
    assert kept(store) == {4: ["best"]}


def test_a_best_checkpoint_that_is_replaced_while_it_is_being_found_is_looked_for_again(store: Store) -> None:
    """Training goes on between the look and the mark."""
    replaced = add_checkpoint(store, "s-1/0", 4, 0.5)

    def hold(found: CheckpointRef) -> None:
        if found.key == replaced:
            add_checkpoint(store, "s-1/0", 8, 0.9)
            store.remove(replaced)
        holds.hold_for_fork(store, found.key, "s-2/0")

    assert find_and_hold(store, "s-1/0", None, hold).step == 8
    assert kept(store) == {8: ["best", "last", "forked from by s-2/0"]}
    with pytest.raises(NotFoundError, match=r"has no checkpoint of step 4; there are: 8"):
        find_and_hold(store, "s-1/0", 4, hold)
