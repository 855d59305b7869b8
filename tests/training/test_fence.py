"""A superseded attempt writes nothing more: on one host it is killed, elsewhere it sees the newer one's mark."""

from __future__ import annotations

import fcntl
import json
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from bertpar.errors import StoreError, SupersededError
from bertpar.events import CheckpointSaved, MetricRow
from bertpar.store import Store
from bertpar.tracking import open_run
from bertpar.training import fence as fence_module
from bertpar.training.fence import Fence, hold_fence
from bertpar.training.outbox import Outbox
from tests.training.conftest import SPEC, Killed, Lab

_HOLD = """
import sys
from pathlib import Path
from bertpar.store import Store
from bertpar.training.fence import hold_fence

with hold_fence(Store(sys.argv[1], Path(sys.argv[1]) / "cache"), "run/0", int(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path), tmp_path / "cache")


@contextmanager
def holder(store: Store, attempt: int) -> Iterator[subprocess.Popen[str]]:
    """An attempt in a process of its own, which leads a group as job processes do."""
    command = [sys.executable, "-c", _HOLD, store.root, str(attempt)]
    process = subprocess.Popen(command, stdin=-1, stdout=-1, text=True, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("stopped", [False, True])
def test_a_newer_attempt_kills_the_older_one_that_still_lives_on_this_host(store: Store, stopped: bool) -> None:
    with holder(store, 1) as older:
        if stopped:
            os.kill(older.pid, signal.SIGSTOP)
        with hold_fence(store, "run/0", 2) as fence:
            assert older.wait(timeout=10) == -signal.SIGKILL
            fence.check()


def test_an_older_attempt_that_comes_late_gives_way(store: Store) -> None:
    with holder(store, 3) as newer:
        with (
            pytest.raises(SupersededError, match="attempt 2 is superseded by attempt 3"),
            hold_fence(store, "run/0", 2),
        ):
            pass
        assert newer.poll() is None
    with pytest.raises(SupersededError), hold_fence(store, "run/0", 2):  # nor when the newer one has come and gone
        pass


def test_runs_do_not_fence_each_other(store: Store) -> None:
    with holder(store, 1) as other, hold_fence(store, "run/1", 2):
        assert other.poll() is None


def test_an_attempt_on_another_host_sees_the_mark_of_a_newer_one(store: Store) -> None:
    with hold_fence(store, "run/0", 1) as fence:
        fence.check()
        Fence(store, "run/0", 2).mark()  # what an attempt elsewhere does, whose lock is another one
        with pytest.raises(SupersededError):
            fence.check()


def test_a_superseded_training_publishes_prunes_and_says_nothing_more(lab: Lab) -> None:
    with pytest.raises(Killed):
        lab.train(SPEC, "superseded", kill_at_step=2)
    events_before = len(lab.events)

    def supersede(kind: str, value: object) -> None:
        if kind == "progress" and getattr(value, "phase", None) == "training":
            Fence(lab.store, "superseded", 3).mark()

    with pytest.raises(SupersededError):
        lab.train(SPEC, "superseded", attempt=2, resume_from=(lab.saved("superseded", 2),), also=supersede)
    said = [kind for kind, _ in lab.events[events_before:]]
    assert said.count("checkpoint") == 1  # of step 2, when it began
    keys = lab.store.list("runs/superseded/checkpoints")
    assert [key.rpartition("/checkpoints/")[2] for key in keys] == ["attempt-1/step-00000002"]


def test_a_training_that_is_superseded_while_it_saves_prunes_and_says_nothing(lab: Lab) -> None:
    run_id = "superseded-late"

    class SlowStore(Store):
        def publish(self, key: str, *arguments: Any) -> Any:
            published = super().publish(key, *arguments)
            if key.endswith("step-00000006"):
                Fence(lab.store, run_id, 2).mark()
            return published

    slow = replace(lab, store=SlowStore(lab.store.root, Path(lab.store.root) / "cache"), events=[])
    spec = replace(SPEC, checkpoint=replace(SPEC.checkpoint, keep=1))  # step 6 would replace step 2
    with pytest.raises(SupersededError):
        slow.train(spec, run_id)
    said = [v.checkpoint.step for _, v in slow.events if isinstance(v, CheckpointSaved)]
    keys = lab.store.list(f"runs/{run_id}/checkpoints")
    assert said == [2, 4]
    assert [int(key[-8:]) for key in keys] == [2, 4, 6]  # what was saved lies under its own number


def test_across_hosts_the_older_attempt_gives_way_while_it_runs_and_when_it_comes_late(tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}"  # locks lie beside the cache, so that each of these is a host
    here, there = (Store(url, tmp_path / host) for host in ("here", "there"))
    with hold_fence(here, "run/0", 1) as older:
        older.check()
        with hold_fence(there, "run/0", 2) as newer:
            newer.check()
            with pytest.raises(SupersededError):
                older.check()
    elsewhere = Store(url, tmp_path / "elsewhere")
    with pytest.raises(SupersededError), hold_fence(elsewhere, "run/0", 1):
        pass


def test_another_process_under_the_holders_id_is_left_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fence_module, "_PATIENCE_SECONDS", 0.1)
    innocent = subprocess.Popen(["sleep", "60"], start_new_session=True)
    path = store.lock_path("runs/run/0")
    try:
        with path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            holder = {"attempt": 1, "host": fence_module._this_host(), "pid": innocent.pid, "started": 0.0}
            path.write_text(json.dumps(holder), encoding="utf-8")
            with pytest.raises(StoreError, match="could not be ended"), hold_fence(store, "run/0", 2):
                pass
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_a_superseded_attempt_adds_no_row_to_mlflow(lab: Lab) -> None:
    run_id = open_run(lab.opening(SPEC, "late-rows"), lab.store).run_id
    fence = Fence(lab.store, "late-rows", 1)
    fence.mark()
    Fence(lab.store, "late-rows", 2).mark()
    told: queue.Queue[str] = queue.Queue()
    outbox = Outbox(lab.job(SPEC, "late-rows"), lab.store, fence, told.put)
    outbox.post([MetricRow(key="train/loss", value=1.0, step=1, timestamp_ms=1)])
    assert "attempt 1 is superseded by attempt 2" in told.get(timeout=10)
    assert not MlflowClient(tracking_uri=lab.tracking.uri).get_run(run_id).data.metrics
