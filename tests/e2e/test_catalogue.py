"""What a user does with checkpoints after a sweep: look, pin, collect; and that every other command still works."""

from __future__ import annotations

import pytest

from bertpar.store import Store
from tests.e2e.conftest import User
from tests.unit.shelves import add_checkpoint, add_evaluation


@pytest.fixture(scope="module")
def sweep(user: User) -> str:
    """A finished sweep of two runs with checkpoints of steps 12 and 16 each."""
    user.train("experiment=smoke", "lr=1e-3,3e-3", "checkpoint.every_n_steps=4", "cache=off")
    return user.newest_sweep()


def catalogue(user: User, target: str) -> dict[tuple[str, int], list[str]]:
    rows = user.json("checkpoints", target)
    return {(row["run_id"].rpartition("/")[2], row["step"]): row["kept_because"] for row in rows}


def test_a_sweep_is_looked_at_pinned_and_collected_and_everything_still_works(user: User, sweep: str) -> None:
    short = sweep.rpartition("-")[2]
    assert catalogue(user, short) == {("0", 12): [], ("0", 16): ["best"], ("1", 12): [], ("1", 16): ["best"]}
    pruned = user.bertpar("pin", f"{short}/1@3", check=False)
    assert pruned.returncode == 2
    assert f"{sweep}/1 has no checkpoint of step 3; there are: 12, 16" in pruned.stderr
    assert user.json("pin", f"{short}/1@12")["pinned"] is True

    dry = user.json("gc")
    mine = [item for item in dry["garbage"] if (item["run_id"] or "").startswith(sweep)]
    assert [(item["kind"], item["key"][-13:], item["run_id"]) for item in mine] == [
        ("checkpoint", "step-00000012", f"{sweep}/0")
    ]
    assert catalogue(user, f"{short}/0") == {("0", 12): [], ("0", 16): ["best"]}
    done = user.json("gc", "--yes")
    assert done["deleted"] is True
    assert mine[0] in done["garbage"]
    assert catalogue(user, short) == {("0", 16): ["best"], ("1", 12): ["pinned"], ("1", 16): ["best"]}
    assert "deleted by bertpar gc: step 12" in user.bertpar("checkpoints", f"{short}/0").stdout

    assert '"label"' in user.bertpar("predict", f"{short}/0", "--text", "a fine film").stdout
    assert '"label"' in user.bertpar("predict", f"{short}/1", "--step", "12", "--text", "a fine film").stdout
    gone = user.bertpar("predict", f"{short}/0", "--step", "12", "--text", "a fine film", check=False)
    assert gone.returncode == 2
    assert "has no checkpoint of step 12 any more: bertpar gc has deleted it; there are: 16" in gone.stderr
    compared = user.json("diff", short, sweep)
    assert compared["identical"] is True
    assert compared["sweep"] == compared["other"] == sweep
    not_compared = [missing for run in compared["runs"] for missing in run["not_compared"]]
    assert not_compared == [f"{sweep}/0: weights of step 12: deleted by bertpar gc"]
    for command in ("status", "attach", "ui"):
        assert user.json(command, short)
    assert user.json("why", f"{short}/0")["status"] == "completed"
    assert user.json("unpin", f"{short}/1@12")["pinned"] is False
    assert catalogue(user, f"{short}/1")["1", 12] == []


def test_the_catalogue_outlives_temporal_and_gc_then_wants_to_be_told(user: User, sweep: str) -> None:
    store = Store(str(user.home / "store"), user.home / "cache")
    forgotten = "forgotten-0101-000000-abcd"
    best, other = (add_checkpoint(store, f"{forgotten}/0", step, accuracy) for step, accuracy in ((4, 0.9), (8, 0.8)))
    add_evaluation(store, f"{forgotten}/0", best)
    listed = user.bertpar("checkpoints", "forgotten")
    assert "Temporal does not know forgotten (any more)" in listed.stderr
    assert f"run {forgotten}/0: finished" in listed.stdout
    assert len(user.json("checkpoints", f"{forgotten}/0", "--store", store.root)) == 2
    assert user.json("pin", f"{forgotten}/0")["key"] == best
    spared = [spared for spared in user.json("gc", "--yes")["spared"] if spared["what"] == f"{forgotten}/0"]
    assert "does not know sweep" in spared[0]["why"]
    assert store.find(other) is not None
    assert [item["key"] for item in user.json("gc", "--yes", "--unknown")["garbage"]] == [other]
    assert store.find(best) is not None
    assert sweep in user.bertpar("ls").stdout


def test_last_is_the_newest_sweep_of_temporal_and_means_none_of_a_store(user: User, sweep: str) -> None:
    store = Store(str(user.home / "store"), user.home / "cache")
    add_checkpoint(store, "older-0101-000000-abcd/7", 4, 0.9)
    refused = user.bertpar("pin", "last/7", check=False)
    assert refused.returncode == 2
    assert "has no run 7; its runs: 0 to 1" in refused.stderr
    refused = user.bertpar("checkpoints", "last", "--store", store.root, check=False)
    assert refused.returncode == 2
    assert "which sweep is the last, only Temporal knows" in refused.stderr
    assert "older-0101-000000-abcd" in refused.stderr


def test_gc_refuses_where_temporal_cannot_be_asked(user: User, sweep: str) -> None:
    refused = user.bertpar("gc", "--yes", "--address", "127.0.0.1:1", check=False)
    assert refused.returncode == 1
    assert "temporal.address=127.0.0.1:1 cannot be reached" in refused.stderr
