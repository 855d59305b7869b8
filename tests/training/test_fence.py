"""A superseded attempt writes nothing more: on one host it is killed, elsewhere it sees the newer one's mark."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bertpar.errors import SupersededError
from bertpar.store import Store
from bertpar.training.fence import Fence, hold_fence
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
