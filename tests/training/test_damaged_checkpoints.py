"""However many checkpoints are damaged, the run ends with the weights of an undisturbed one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bertpar.checkpoints import OPTIMIZER_FILE, ROWS_FILE, STATE_FILE, WEIGHTS_FILE, find_checkpoints
from bertpar.events import CheckpointRef, CheckpointSaved, TrainResult
from bertpar.models import load_classifier, resolve_model
from bertpar.store import MANIFEST
from bertpar.training.state import is_intact, restore_newest
from tests.training.conftest import SPEC as UNVALIDATED
from tests.training.conftest import Killed, Lab, same_weights, with_trainer

SPEC = with_trainer(UNVALIDATED, validate_every_n_steps=2)
STEPS = (2, 4, 6, 7)
"""Of the checkpoints that there are when the runs below are killed; all are validated, so that all are kept."""


def flip_a_bit(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


DAMAGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "weights flipped": (WEIGHTS_FILE, flip_a_bit),
    "state cut": (STATE_FILE, cut),
    "moments flipped": (OPTIMIZER_FILE, flip_a_bit),
    "rows missing": (ROWS_FILE, Path.unlink),
    "manifest torn": (MANIFEST, cut),
    "manifest missing": (MANIFEST, Path.unlink),
}


@pytest.fixture(scope="module")
def whole(lab: Lab) -> TrainResult:
    return lab.train(SPEC, "damage-whole")


def kill_at_the_last(lab: Lab, run_id: str) -> list[CheckpointRef]:
    """Train until the last of STEPS and return the checkpoints, newest first."""
    with pytest.raises(Killed):
        lab.train(SPEC, run_id, kill_at_step=STEPS[-1])
    return [lab.saved(run_id, step) for step in reversed(STEPS)]


def damage(lab: Lab, checkpoint: CheckpointRef, name: str = "weights flipped") -> None:
    file, change = DAMAGES[name]
    change(Path(lab.store.root) / checkpoint.key / file)


def damaged_bundles(lab: Lab, run_id: str) -> list[Path]:
    return [*(Path(lab.store.root) / "damaged" / "runs" / run_id / "checkpoints").glob("*/*")]


@pytest.mark.parametrize("name", DAMAGES)
def test_after_damage_to_the_newest_and_the_one_before_the_run_ends_as_if_undisturbed(
    lab: Lab, whole: TrainResult, name: str
) -> None:
    run_id = f"damage-{name.replace(' ', '-')}"
    newest, before, *older = kill_at_the_last(lab, run_id)
    damage(lab, newest, name)
    damage(lab, before, name)
    lab.events.clear()
    result = lab.train(SPEC, run_id, attempt=2, resume_from=(newest, before, *older))
    notes = [value for kind, value in lab.events if kind == "note"]
    assert result.resumed_from_step == older[0].step == 4
    for checkpoint in (newest, before):
        assert any(checkpoint.key in note for note in notes)
        assert lab.store.find(checkpoint.key) is None
    assert len(damaged_bundles(lab, run_id)) == (0 if "manifest" in name else 2)
    assert_same(lab, result, whole)


def test_without_any_intact_checkpoint_training_starts_again(lab: Lab, whole: TrainResult) -> None:
    checkpoints = kill_at_the_last(lab, "damage-all")
    for checkpoint in checkpoints:
        damage(lab, checkpoint)
    result = lab.train(SPEC, "damage-all", attempt=2, resume_from=tuple(checkpoints))
    assert result.resumed_from_step == 0
    assert_same(lab, result, whole)


def test_a_damaged_best_checkpoint_is_trained_again(lab: Lab) -> None:
    spec = replace(SPEC, checkpoint=replace(SPEC.checkpoint, monitor="val/loss", mode="min"))
    whole = lab.train(spec, "best-whole")
    assert whole.best.step < 12
    with pytest.raises(Killed):
        lab.train(spec, "best", kill_at_step=12)
    best, newest = lab.saved("best", whole.best.step), lab.saved("best", 12)
    damage(lab, best)
    result = lab.train(spec, "best", attempt=2, resume_from=(newest, best))
    assert result.resumed_from_step < best.step
    assert result.best.attempt == 2
    assert_same(lab, result, whole)


def test_a_best_checkpoint_that_is_damaged_while_training_goes_on_is_made_again_before_it_ends(lab: Lab) -> None:
    spec = replace(SPEC, checkpoint=replace(SPEC.checkpoint, monitor="val/loss", mode="min"))
    whole = lab.train(spec, "late-whole")

    def damage_the_best(kind: str, value: object) -> None:
        if isinstance(value, CheckpointSaved) and value.checkpoint.step == 12 and not damaged_bundles(lab, "late"):
            damage(lab, lab.saved("late", whole.best.step))

    result = lab.train(spec, "late", also=damage_the_best)
    assert len(damaged_bundles(lab, "late")) == 1
    assert_same(lab, result, whole)


def test_what_an_older_state_lists_and_has_been_pruned_since_is_forgotten(lab: Lab) -> None:
    newest, before, second, _ = kill_at_the_last(lab, "damage-pruned")
    damage(lab, newest)
    lab.store.remove(second.key)
    model = load_classifier(SPEC.model, resolve_model(SPEC.model), 2, ("a", "b"), "classification", seed=1)
    candidates = find_checkpoints(lab.store, "damage-pruned", (newest, before))
    state, _ = restore_newest(lab.store, candidates, model, SPEC.checkpoint, print)
    assert [c.step for c in state.checkpoints] == [2, 6]


def test_a_damaged_checkpoint_is_told_from_an_intact_one(lab: Lab) -> None:
    newest, before, *_ = kill_at_the_last(lab, "damage-told")
    damage(lab, newest)
    notes: list[str] = []
    assert is_intact(lab.store, before, notes.append)
    assert notes == []
    assert not is_intact(lab.store, newest, notes.append)
    assert "step 7" in notes[0]
    assert "set aside" in notes[0]


def assert_same(lab: Lab, result: TrainResult, whole: TrainResult) -> None:
    assert (result.best.step, result.last.step, result.metrics) == (whole.best.step, whole.last.step, whole.metrics)
    assert same_weights(lab.weights(result.best), lab.weights(whole.best))
    assert same_weights(lab.weights(result.last), lab.weights(whole.last))
