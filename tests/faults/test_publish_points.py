"""A publisher that is killed at any point leaves nothing, or the whole bundle; and its successor succeeds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bertpar import faults
from bertpar.store import POINTS, Store

KEYS = {
    "checkpoint": "runs/sweep/0/checkpoints/attempt-1/step-00000010",
    "evaluation": "runs/sweep/0/evaluation/0123456789abcdef",
    "prediction": "predictions/predict-1/output",
    "snapshot": "snapshots/0123",
    "spec": "specs/0123",
    "tokenizer": "tokenizers/0123",
}
VISIBLE = ("renamed", "committed")

PUBLISH = """
import sys
from pathlib import Path
from bertpar.store import Store

def fill(folder):
    (folder / "one").write_text("first")
    (folder / "two").write_text("second")

root, key = sys.argv[1:]
print(Store(root, Path(root)).publish(key, fill, {"n": 1}).digest)
"""


def publish(store: Store, key: str, orders: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {faults.VARIABLE: str(orders)}
    command = [sys.executable, "-c", PUBLISH, store.root, key]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def unfinished(store: Store) -> list[Path]:
    return [*Path(store.root).rglob(".tmp-*")]


@pytest.mark.parametrize("point", POINTS)
def test_a_publisher_killed_at_a_point_leaves_nothing_or_all_and_the_next_one_succeeds(
    tmp_path: Path, point: str
) -> None:
    kind, stage = point.split(".")
    key, store, orders = KEYS[kind], Store(str(tmp_path / "store"), tmp_path / "cache"), tmp_path / "orders"
    orders.mkdir()
    faults.order(orders, point, "kill")
    assert publish(store, key, orders).returncode == -signal.SIGKILL

    seen = store.find(key)
    assert (seen is not None) == (stage in VISIBLE)
    assert store.list("") == ([key] if seen else [])
    if seen is not None:
        store.fetch(key, digest=seen.digest)
    assert len(unfinished(store)) == (stage not in VISIBLE)

    again = publish(store, key, orders)
    assert again.returncode == 0, again.stderr
    bundle = store.find(key)
    assert bundle is not None
    assert bundle.digest == again.stdout.strip()
    assert seen is None or seen.digest == bundle.digest
    assert (store.fetch(key) / "two").read_text() == "second"
    store.remove_leftovers(key)
    assert unfinished(store) == []
    assert store.find(key) == bundle
