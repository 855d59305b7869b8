"""A training prunes its own checkpoints, but none that somebody keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bertpar import holds
from bertpar.checkpoints import checkpoint_key, find_checkpoints
from bertpar.errors import StoreError
from bertpar.events import CheckpointSaved
from tests.training.conftest import SPEC as ALL_KEPT
from tests.training.conftest import Lab, same_weights

SPEC = replace(ALL_KEPT, checkpoint=replace(ALL_KEPT.checkpoint, keep=1))


def steps_left(lab: Lab, run_id: str) -> list[int]:
    return sorted(checkpoint.step for checkpoint in find_checkpoints(lab.store, run_id))


def test_a_pinned_checkpoint_and_one_that_a_fork_began_from_are_not_pruned(lab: Lab) -> None:
    undisturbed = lab.train(SPEC, "pins/0")
    left = steps_left(lab, "pins/0")
    assert not {2, 4} & set(left)

    def hold(kind: str, value: Any) -> None:
        if isinstance(value, CheckpointSaved) and value.checkpoint.step == 2:
            holds.pin(lab.store, value.checkpoint.key)
        if isinstance(value, CheckpointSaved) and value.checkpoint.step == 4:
            holds.hold_for_fork(lab.store, value.checkpoint.key, "pins/9")

    result = lab.train(SPEC, "pins/1", also=hold)
    assert steps_left(lab, "pins/1") == [2, 4, *left]
    assert same_weights(lab.weights(result.last), lab.weights(undisturbed.last))
    pruned = {key for _, v in lab.events if isinstance(v, CheckpointSaved) for key in v.pruned}
    assert checkpoint_key("pins/1", 1, 2) not in pruned


def test_one_that_is_pinned_after_its_pruning_was_said_is_not_deleted(lab: Lab) -> None:
    def pin_what_is_to_go(kind: str, value: Any) -> None:
        if isinstance(value, CheckpointSaved):
            for key in value.pruned:
                holds.pin(lab.store, key)

    lab.train(SPEC, "pins/2", also=pin_what_is_to_go)
    assert {2, 4} <= set(steps_left(lab, "pins/2"))


def test_one_that_is_pinned_while_its_pruner_dies_is_brought_back_by_the_next_attempt(
    lab: Lab,
) -> None:
    first = lab.train(SPEC, "pins/3").last

    def die() -> bool:
        lab.store.publish(f"pins/{first.key}", lambda folder: None, {"checkpoint": first.key})
        raise StoreError("away")

    with pytest.raises(StoreError):
        lab.store.remove(first.key, die)
    lab.train(SPEC, "pins/3", attempt=2)
    assert lab.store.find_intact(first.key) is not None
