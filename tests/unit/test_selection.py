"""Best, kept and last: which checkpoints stay, and when a run stops early."""

import random
from dataclasses import replace

import pytest

from bertpar.events import CheckpointRef
from bertpar.spec import CheckpointSpec
from bertpar.training.selection import Validation, best_validation, checkpoints_to_prune, should_stop_early
from tests.unit.test_plan import TRAINER

SPEC = CheckpointSpec(every_n_steps=10, keep=1, monitor="val/accuracy", mode="max")


def validations(*values: float) -> list[Validation]:
    return [Validation(step=10 * (i + 1), metrics={"val/accuracy": v}) for i, v in enumerate(values)]


def checkpoint(step: int, accuracy: float | None = None) -> CheckpointRef:
    metrics = {} if accuracy is None else {"val/accuracy": accuracy}
    return CheckpointRef(key=f"c{step}", digest="", step=step, attempt=1, num_bytes=1, metrics=metrics)


def test_of_equally_good_validations_the_earliest_is_best() -> None:
    assert best_validation(validations(0.5, 0.9, 0.9), SPEC).step == 20


def test_a_nan_metric_is_never_the_best() -> None:
    assert best_validation(validations(float("nan"), 0.1), SPEC).step == 20


def test_min_mode_prefers_the_smallest() -> None:
    assert best_validation(validations(0.5, 0.9), replace(SPEC, mode="min")).step == 10


def test_the_best_and_the_last_two_are_kept() -> None:
    made = [checkpoint(10, 0.9), checkpoint(20, 0.5), checkpoint(30), checkpoint(40), checkpoint(50)]
    assert [c.step for c in checkpoints_to_prune(made, SPEC)] == [20, 30]


def test_keep_counts_the_best_ones() -> None:
    made = [checkpoint(10, 0.9), checkpoint(20, 0.5), checkpoint(30, 0.7), checkpoint(40), checkpoint(50)]
    assert [c.step for c in checkpoints_to_prune(made, replace(SPEC, keep=2))] == [20]


def test_what_was_the_best_before_the_newest_is_kept_for_who_falls_back() -> None:
    made = [checkpoint(10, 0.9), checkpoint(20), checkpoint(30, 0.95)]
    assert checkpoints_to_prune(made, SPEC) == []
    assert [c.step for c in checkpoints_to_prune([*made, checkpoint(40)], SPEC)] == [10, 20]


@pytest.mark.parametrize("seed", range(50))
def test_every_kept_checkpoint_finds_the_best_of_its_time(seed: int) -> None:
    rng = random.Random(seed)
    spec = replace(SPEC, keep=rng.randint(1, 3), mode=rng.choice(("min", "max")))
    kept: list[CheckpointRef] = []
    validated: list[Validation] = []
    for step in range(10, 300, 10):
        made = checkpoint(step, rng.choice((0.1, 0.2, 0.3, 0.4, float("nan"))) if rng.random() < 0.6 else None)
        if made.metrics:
            validated.append(Validation(step=step, metrics=made.metrics))
        kept = [c for c in [*kept, made] if c not in checkpoints_to_prune([*kept, made], spec)]
        for c in kept:
            if known := [v for v in validated if v.step <= c.step]:
                assert best_validation(known, spec).step in [other.step for other in kept]


@pytest.mark.parametrize(
    ("values", "stops"),
    [((0.5, 0.6, 0.7), False), ((0.7, 0.6), False), ((0.7, 0.6, 0.7), True), ((0.7, 0.6, 0.8, 0.6), False)],
)
def test_patience_counts_validations_without_improvement(values: tuple[float, ...], stops: bool) -> None:
    trainer = replace(TRAINER, early_stopping_patience=2)
    assert should_stop_early(validations(*values), trainer, SPEC) is stops


def test_an_improvement_below_min_delta_does_not_count() -> None:
    trainer = replace(TRAINER, early_stopping_patience=1, early_stopping_min_delta=0.1)
    assert should_stop_early(validations(0.5, 0.55), trainer, SPEC)
    assert not should_stop_early(validations(0.5, 0.65), trainer, SPEC)


def test_without_patience_nothing_stops_early() -> None:
    assert not should_stop_early(validations(*[0.1] * 9), TRAINER, SPEC)
