"""Garbage collection on real stores: what goes, what never goes, and what happens in between."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bertpar import holds
from bertpar.catalogue import collected_steps
from bertpar.collection import DAY_SECONDS, SHARED, Collection, CollectionOptions, collect, plan_collection
from bertpar.errors import StoreError
from bertpar.results import record_origin
from bertpar.store import Store
from bertpar.store.local import unfinished
from bertpar.usage import SweepUse, Usage
from tests.unit.shelves import add_checkpoint, add_evaluation, write_weights

NOW = time.time()
LATER = NOW + 30 * DAY_SECONDS


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    root = str(tmp_path / "store") if request.param == "local" else f"memory://{tmp_path.name}"
    return Store(root, tmp_path / "cache")


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"), tmp_path / "cache")


def using(predicting: str = "", prediction: str = "", **sweeps: SweepUse) -> Usage:
    """Return a usage: sweeps by name (`s1` is sweep s-1), all others having ended."""
    known: dict[str, SweepUse] = {"s-1": "ended", "s-2": "ended"}
    known |= {f"s-{name[1:]}": use for name, use in sweeps.items()}
    return Usage(
        sweeps=known,
        predicting_runs=frozenset({predicting} - {""}),
        predictions=frozenset({prediction} - {""}),
    )


def plan(store: Store, usage: Usage | None = None, *, now: float = NOW, **options: bool) -> Collection:
    return plan_collection(store, usage or using(), CollectionOptions(**options), now)


def carry_out(
    store: Store,
    planned: Collection,
    ask: Callable[[Sequence[str]], Usage] = lambda sweeps: using(),
    **options: bool,
) -> Collection:
    async def asked(sweeps: Sequence[str]) -> Usage:
        return ask(sweeps)

    return asyncio.run(collect(store, planned, asked, CollectionOptions(**options)))


def keys(collection: Collection) -> set[str]:
    return {item.key for item in collection.garbage}


def finished(store: Store, run_id: str = "s-1/0") -> tuple[str, str]:
    """Make a finished run of two checkpoints; return the best and the other."""
    best, other = add_checkpoint(store, run_id, 4, 0.9), add_checkpoint(store, run_id, 8, 0.8)
    add_evaluation(store, run_id, best)
    return best, other


def test_a_plan_deletes_nothing_and_the_collection_what_was_planned(store: Store) -> None:
    best, other = finished(store)
    planned = plan(store)
    assert keys(planned) == {other}
    assert planned.num_bytes == 1000
    assert planned.garbage[0].why == "the run is finished, and it is not the best"
    assert store.find(other) is not None
    done = carry_out(store, planned)
    assert keys(done) == {other}
    assert store.find(other) is None
    assert store.find_intact(best) is not None
    assert collected_steps(store, "s-1/0") == (8,)
    assert plan(store).garbage == ()


def test_what_an_unfinished_run_goes_on_from_stays_until_it_is_given_up(store: Store) -> None:
    old, *needed = [add_checkpoint(store, "s-1/0", step, accuracy) for step, accuracy in ((2, 0.1), (4, 0.9), (6, 0.5))]
    planned = plan(store)
    assert keys(planned) == {old}
    assert [(s.what, s.num_bytes) for s in planned.spared] == [("s-1/0", 2000)]
    assert "--abandoned" in planned.spared[0].why
    holds.pin(store, needed[0])
    assert keys(plan(store, abandoned=True)) == {old, needed[1]}


def test_what_a_live_run_goes_on_from_stays_even_if_its_own_run_is_given_up(store: Store) -> None:
    key = add_checkpoint(store, "s-1/0", 2)
    record_origin(store, "s-2/0", "s-1/0", reused=False)
    assert keys(plan(store, using(s2="live"), abandoned=True)) == set()
    planned = plan(store, abandoned=True)
    assert keys(planned) == {key}
    assert carry_out(store, planned, lambda sweeps: using(s2="live"), abandoned=True).garbage == ()
    assert keys(carry_out(store, planned, abandoned=True)) == {key}


@pytest.mark.parametrize(
    ("usage", "why"),
    [
        (using(s1="live"), "sweep s-1 is running"),
        (using(s1="unknown"), "does not know sweep s-1"),
        (using(predicting="s-1/0"), "a prediction with it is running"),
    ],
)
def test_nothing_of_a_run_that_is_in_use_goes(store: Store, usage: Usage, why: str) -> None:
    finished(store)
    planned = plan(store, usage)
    assert planned.garbage == ()
    assert [(s.what, s.num_bytes) for s in planned.spared] == [("s-1/0", 1000)]
    assert why in planned.spared[0].why
    if "know" in why:
        assert len(plan(store, usage, unknown=True).garbage) == 1


def test_a_sweep_that_nobody_was_asked_about_is_taken_for_live(store: Store) -> None:
    finished(store, "new-1/0")
    assert plan(store).garbage == ()


def test_what_gets_needed_between_plan_and_deletion_is_spared(store: Store) -> None:
    _, pinned = finished(store)
    _, chosen = finished(store, "s-1/1")
    _, live = finished(store, "s-2/0")
    planned = plan(store)
    assert keys(planned) == {pinned, chosen, live}
    holds.pin(store, pinned)
    add_evaluation(store, "s-3/0", chosen)
    done = carry_out(store, planned, lambda sweeps: using(s2="live"))
    assert done.garbage == ()
    assert {s.what for s in done.spared} == {pinned, chosen, "s-2/0"}
    assert all(store.find_intact(key) for key in (pinned, chosen, live))


def test_what_is_pinned_in_the_moment_of_its_deletion_comes_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    _, other = finished(store)
    planned = plan(store)
    remove = Store.remove

    def pin_and_remove(self: Store, key: str, *needed: Callable[[], bool]) -> bool:
        if key == other:
            self.publish(f"pins/{other}", lambda folder: None)
        return remove(self, key, *needed)

    monkeypatch.setattr(Store, "remove", pin_and_remove)
    done = carry_out(store, planned)
    assert [s.what for s in done.spared] == [other]
    assert store.find_intact(other) is not None


def test_what_is_pinned_in_the_moment_in_which_its_deleter_dies_is_brought_back_by_the_next(store: Store) -> None:
    _, other = finished(store)

    def die() -> bool:
        store.publish(f"pins/{other}", lambda folder: None, {"checkpoint": other})
        raise StoreError("away")

    with pytest.raises(StoreError):
        store.remove(other, die)
    assert store.find(other) is None
    done = carry_out(store, plan(store))
    assert done.garbage == ()
    assert store.find_intact(other) is not None


def test_a_run_on_which_a_process_of_this_machine_works_is_skipped_and_named(local: Store) -> None:
    _, other = finished(local)
    planned = plan(local)
    with local.lock_path("runs/s-1/0").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = carry_out(local, planned)
    assert [(s.what, s.why) for s in done.spared] == [("s-1/0", "a process of this machine works on it")]
    assert local.find(other) is not None
    assert keys(carry_out(local, planned)) == {other}


def test_data_that_no_checkpoint_was_trained_on_go_after_a_day(store: Store) -> None:
    used = store.publish("snapshots/used", write_weights, {"tokenizer_key": "tokenizers/used"})
    store.publish("snapshots/unused", write_weights, {"tokenizer_key": "tokenizers/unused"})
    for name in ("used", "unused"):
        store.publish(f"tokenizers/{name}", write_weights)
    add_checkpoint(store, "s-1/0", 2, snapshot=used.digest)
    assert plan(store).garbage == ()
    planned = plan(store, now=LATER)
    assert keys(planned) == {"snapshots/unused", "tokenizers/unused"}
    assert carry_out(store, planned, lambda sweeps: using(s9="live")).garbage == ()
    assert keys(carry_out(store, planned)) == keys(planned)
    busy = plan(store, using(s9="live"), now=LATER)
    assert busy.garbage == ()


def test_data_are_spared_while_any_sweep_is_running(store: Store) -> None:
    store.publish("snapshots/unused", write_weights, {"tokenizer_key": "tokenizers/unused"})
    planned = plan(store, using(s9="live"), now=LATER)
    assert planned.garbage == ()
    assert [(s.what, s.num_bytes) for s in planned.spared] == [(SHARED, 1000)]
    assert "sweep s-9 is running" in planned.spared[0].why


def test_predictions_go_after_a_week_if_they_have_ended(store: Store) -> None:
    for name in ("predict-a", "predict-b"):
        store.publish(f"predictions/{name}/input", write_weights, {"run_id": "s-1/0"})
        store.publish(f"predictions/{name}/output", write_weights, {})
    week = 7 * DAY_SECONDS
    assert plan(store, now=NOW + week - 3600).garbage == ()
    planned = plan(store, using(prediction="predict-b"), now=NOW + week + 3600)
    assert keys(planned) == {"predictions/predict-a/input", "predictions/predict-a/output"}
    assert carry_out(store, planned, lambda sweeps: using(prediction="predict-a")).garbage == ()
    assert keys(carry_out(store, planned)) == keys(planned)


def test_leftovers_and_what_was_set_aside_go_unless_a_run_is_live(local: Store) -> None:
    best, _ = finished(local)
    (Path(local.root) / best / "weights").write_bytes(b"damaged")
    aside = local.set_aside(best)
    assert aside is not None
    leftover = unfinished(Path(local.root) / "runs/s-1/0/checkpoints/attempt-1/step-00000012")
    shared = unfinished(Path(local.root) / "snapshots/made-now")
    for folder in (leftover, shared):
        folder.mkdir(parents=True)
        write_weights(folder)
    both = {"damaged", "leftover"}
    assert {item.kind for item in plan(local, using(s1="live")).garbage} == set()
    planned = plan(local)
    assert both <= {item.kind for item in planned.garbage}
    assert shared.relative_to(local.root).as_posix() not in keys(planned)  # somebody may be publishing it
    assert shared.relative_to(local.root).as_posix() in keys(plan(local, now=LATER))
    carry_out(local, planned)
    assert not leftover.exists()
    assert not Path(aside).exists()
    assert shared.exists()


def test_an_upload_that_was_never_committed_goes(tmp_path: Path) -> None:
    store = Store(f"memory://{tmp_path.name}", tmp_path / "cache")
    _, torn = finished(store)
    import fsspec

    fsspec.filesystem("memory").rm_file(f"/{tmp_path.name}/{torn}/manifest.json")
    planned = plan(store)
    assert [(item.kind, item.key, item.num_bytes) for item in planned.garbage] == [("leftover", torn, 1000)]
    carry_out(store, planned)
    assert not fsspec.filesystem("memory").exists(f"/{tmp_path.name}/{torn}")


def test_whole_bundles_and_locks_are_no_leftovers(store: Store) -> None:
    best, other = finished(store)
    store.publish("snapshots/used", lambda folder: (folder / "deep").mkdir() or write_weights(folder / "deep"))
    store.lock_path("runs/s-1/0").write_bytes(b"x")
    assert store.debris() == []
    assert all(store.find_intact(key) for key in (best, other))


def test_the_age_of_a_bundle_is_that_of_its_commit(local: Store) -> None:
    key = local.publish("snapshots/a", write_weights).key
    os.utime(Path(local.root) / key / "manifest.json", (1000.0, 1000.0))
    assert local.made_at(key) == 1000.0
