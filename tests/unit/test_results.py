"""What the store knows of equal runs: the first result stays, one claim a number, and what is gone is forgotten."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bertpar import results
from bertpar.checkpoints import checkpoint_key, reference_to
from bertpar.claims import KeptResult
from bertpar.events import CheckpointRef, EvaluateResult, TrainResult
from bertpar.store import Store
from tests.unit.test_identity import identity

IDENTITY = identity()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"), tmp_path / "cache")


def checkpoint(store: Store, run_id: str, step: int, attempt: int = 1, *, exact: bool = True) -> CheckpointRef:
    meta = {"step": step, "attempt": attempt, "metrics": {}, "exact": exact, "work_seconds": 2.0 * step}
    return reference_to(
        store.publish(checkpoint_key(run_id, attempt, step), lambda f: (f / "weights").write_bytes(b"w") and None, meta)
    )


def result(store: Store, run_id: str = "a/0", *, inexact: tuple[str, ...] = ()) -> KeptResult:
    best = checkpoint(store, run_id, 3)
    training = TrainResult(
        total_steps=3,
        stopped_early=False,
        best=best,
        last=best,
        metrics={"val/accuracy": 0.5, "val/loss": float("inf")},
        resumed_from_step=0,
        train_seconds=1.0,
        inexact=inexact,
        work_seconds=6.0,
    )
    bundle = store.publish(f"runs/{run_id}/evaluation/x", lambda f: (f / "report.json").write_text("{}") and None)
    evaluation = EvaluateResult(key=bundle.key, digest=bundle.digest, metrics={"test/accuracy": 1.0})
    return KeptResult(run_id=run_id, training=training, evaluation=evaluation)


def test_a_kept_result_is_found_by_its_key_with_all_its_bits(store: Store) -> None:
    kept = result(store)
    results.keep_result(store, IDENTITY, kept)
    assert results.find_result(store, IDENTITY.key) == kept
    assert results.find_result(store, identity("seed=9").key) is None


def test_the_first_of_two_results_stays(store: Store) -> None:
    results.keep_result(store, IDENTITY, result(store, "a/0"))
    results.keep_result(store, IDENTITY, result(store, "b/0"))
    found = results.find_result(store, IDENTITY.key)
    assert found is not None
    assert found.run_id == "a/0"


def test_the_result_of_a_run_that_was_not_undisturbed_is_not_kept(store: Store) -> None:
    results.keep_result(store, IDENTITY, result(store, inexact=("another kind of machine",)))
    assert results.find_result(store, IDENTITY.key) is None


@pytest.mark.parametrize("part", ["checkpoint", "evaluation"])
def test_a_result_whose_files_are_gone_is_forgotten_and_can_be_kept_anew(store: Store, part: str) -> None:
    kept = result(store)
    results.keep_result(store, IDENTITY, kept)
    store.remove(kept.training.best.key if part == "checkpoint" else kept.evaluation.key)
    assert results.find_result(store, IDENTITY.key) is None
    results.keep_result(store, IDENTITY, anew := result(store, "b/0"))
    assert results.find_result(store, IDENTITY.key) == anew


def test_a_result_with_a_damaged_file_is_only_taken_by_who_does_not_verify(store: Store) -> None:
    kept = result(store)
    results.keep_result(store, IDENTITY, kept)
    (Path(store.root) / kept.training.best.key / "weights").write_bytes(b"x")
    assert results.find_result(store, IDENTITY.key) == kept
    assert results.find_result(store, IDENTITY.key, verify=True) is None


def test_of_two_that_claim_the_same_number_one_is_first(store: Store) -> None:
    assert results.claim(store, IDENTITY, 0, "a/0")
    assert results.claim(store, IDENTITY, 0, "a/0"), "said again, it is its own"
    assert not results.claim(store, IDENTITY, 0, "b/0")
    assert results.claim(store, IDENTITY, 1, "b/0")
    assert results.claims(store, IDENTITY.key) == {0: "a/0", 1: "b/0"}


def test_a_claim_that_is_gone_leaves_the_others_their_numbers(store: Store) -> None:
    results.claim(store, IDENTITY, 0, "a/0")
    results.claim(store, IDENTITY, 1, "b/0")
    store.remove(store.list(f"claims/{IDENTITY.key}")[0])
    assert results.claims(store, IDENTITY.key) == {1: "b/0"}


def test_checkpoints_of_equal_runs_come_newest_first_without_inexact_ones(store: Store) -> None:
    old, newer = checkpoint(store, "a/0", 4), checkpoint(store, "b/0", 8)
    checkpoint(store, "b/0", 12, exact=False)
    checkpoint(store, "c/0", 16)
    assert results.checkpoints_of_equal_runs(store, ["a/0", "b/0", "a/0"]) == [newer, old]
    assert newer.work_seconds == 16.0
    assert newer.run_id == "b/0"


def test_whom_a_run_uses_is_known_from_the_store_to_the_first(store: Store) -> None:
    results.record_origin(store, "c/0", "b/0", reused=True)
    results.record_origin(store, "b/0", "a/0", reused=False)
    assert results.lineage(store, "c/0") == ["c/0", "b/0", "a/0"]
    results.record_origin(store, "c/0", "a/0", reused=True)
    assert results.lineage(store, "c/0") == ["c/0", "a/0"]
    results.forget_origin(store, "c/0")
    results.forget_origin(store, "c/0")
    assert results.lineage(store, "c/0") == ["c/0"]


def test_known_runs_are_those_with_a_result_and_those_that_have_begun(store: Store) -> None:
    results.claim(store, IDENTITY, 0, "a/0")
    results.keep_result(store, IDENTITY, result(store))
    other = identity("seed=5")
    results.claim(store, other, 0, "b/0")
    known = [(run.run_id, run.identity.key, run.result is not None) for run in results.known_runs(store)]
    assert known == [("a/0", IDENTITY.key, True), ("b/0", other.key, False)]


def test_a_result_survives_the_way_through_the_store_where_a_metric_is_no_number(store: Store) -> None:
    kept = result(store)
    training = replace(kept.training, metrics={"val/loss": float("nan")})
    results.keep_result(store, IDENTITY, replace(kept, training=training))
    found = results.find_result(store, IDENTITY.key)
    assert found is not None
    assert found.training.metrics["val/loss"] != found.training.metrics["val/loss"]
