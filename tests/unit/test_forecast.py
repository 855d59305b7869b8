"""What would become of runs, as the store alone tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bertpar import results
from bertpar.claims import LookUpJob, LookUpRun
from bertpar.codec import publish_spec
from bertpar.forecast import foresee
from bertpar.spec import CacheMode
from bertpar.store import Store
from tests.unit.test_compose import run_spec
from tests.unit.test_identity import CODE, SNAPSHOT, identity
from tests.unit.test_results import checkpoint, result


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"), tmp_path / "cache")


def looked_up(store: Store, *overrides: str, cache: CacheMode = "on") -> LookUpJob:
    runs = tuple(
        LookUpRun(run_id=f"plan/{i}", spec_key=publish_spec(store, run_spec(override)), snapshot_request="one")
        for i, override in enumerate(overrides)
    )
    return LookUpJob(store_root=store.root, runs=runs, snapshots={"one": SNAPSHOT}, code=CODE, cache=cache)


def verdicts(store: Store, *overrides: str, cache: CacheMode = "on") -> list[str]:
    return [forecast.verdict for forecast in foresee(store, looked_up(store, *overrides, cache=cache))]


def test_two_equal_runs_of_which_a_result_is_there_are_both_taken_from_it(store: Store) -> None:
    results.keep_result(store, identity("seed=1"), result(store))
    assert verdicts(store, "seed=1", "seed=2", "seed=1", "seed=2") == ["cached", "new", "cached", "duplicate"]


def test_runs_that_do_not_offer_their_results_are_told_to_be_trained_each(store: Store) -> None:
    assert verdicts(store, "seed=2", "seed=2", cache="read") == ["new", "new"]
    assert verdicts(store, "seed=2", "seed=2", cache="off") == ["new", "new"]


@pytest.mark.parametrize(("cache", "held_by"), [("on", "a/0"), ("read", None), ("off", None)])
def test_who_holds_a_run_matters_to_those_alone_that_wait_for_it(
    store: Store, cache: CacheMode, held_by: str | None
) -> None:
    results.claim(store, identity("seed=3"), 1, "a/0")
    checkpoint(store, "a/0", 1)
    (found,) = foresee(store, looked_up(store, "seed=3", cache=cache))
    assert (found.verdict, found.held_by) == ("new" if cache == "off" else "resume", held_by)


def test_the_time_that_is_left_is_that_of_like_runs(store: Store) -> None:
    results.keep_result(store, identity("seed=1"), result(store))
    (like, shorter) = foresee(store, looked_up(store, "seed=2", "trainer.max_steps=1"))
    assert (like.seconds, shorter.total_steps) == (6.0, 1)
    assert shorter.seconds == 6.0 / 3, "the time of a step"
    assert like.reason == "nearest is a/0, which differs in config: seed=2 instead of 1"
