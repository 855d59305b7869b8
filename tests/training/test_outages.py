"""Store full or away, MLflow away: training waits in place or goes on, and nothing is lost or said twice."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from bertpar import tracking
from bertpar.checkpoints import WEIGHTS_FILE, find_checkpoints, waiting_rows
from bertpar.errors import PreemptedError, StoreError
from bertpar.events import CheckpointSaved, MetricRow, Progress
from bertpar.spec import TrackingSpec
from bertpar.store import Store
from bertpar.store.local import IsNeeded, never
from bertpar.training import callbacks, committer
from bertpar.training.outbox import Outbox
from tests.e2e.conftest import until
from tests.training.conftest import SPEC, Killed, Lab, same_weights, with_trainer
from tests.training.test_resume import metric_rows

MINIMAL_LOSS = replace(SPEC.checkpoint, monitor="val/loss", mode="min")


class FullDisk(Store):
    """A store that has no space left for the next so many checkpoints, and is away for the next so many looks."""

    num_refusals = 0
    num_looks_refused = 0

    def list(self, prefix: str) -> Any:
        self._refuse_to_look()
        return super().list(prefix)

    def remove(self, key: str, is_needed: IsNeeded = never) -> bool:
        self._refuse_to_look()
        return super().remove(key, is_needed)

    def _refuse_to_look(self) -> None:
        if self.num_looks_refused:
            self.num_looks_refused -= 1
            raise StoreError("store.root=...: Connection reset by peer")

    def publish(self, key: str, fill: Any, meta: dict[str, Any] | None = None) -> Any:
        def fill_disk(folder: Path) -> None:
            if "/checkpoints/" in key and self.num_refusals:
                self.num_refusals -= 1
                (folder / "half").write_text("written")
                raise OSError(errno.ENOSPC, "No space left on device")
            fill(folder)

        return super().publish(key, fill_disk, meta)


@pytest.fixture
def full(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Lab:
    monkeypatch.setattr(committer, "_STORAGE_RETRY_SECONDS", (0.01,))
    return replace(lab, store=FullDisk(lab.store.root, tmp_path), events=[])


def test_a_training_waits_for_space_in_place_and_says_so(full: Lab) -> None:
    whole = full.train(SPEC, "roomy")
    full.events.clear()
    assert isinstance(full.store, FullDisk)
    full.store.num_refusals = 3
    result = full.train(SPEC, "tight")
    assert same_weights(full.weights(result.last), full.weights(whole.last))
    waits = [v.waiting for _, v in full.events if isinstance(v, Progress) and v.waiting]
    assert len(waits) == 3
    assert "No space left on device" in waits[0]
    newest = [v for _, v in full.events if isinstance(v, Progress)][-1]
    assert newest.waiting is None


@pytest.mark.parametrize("at_step", [2, 4, 6])
def test_a_store_that_is_away_is_waited_for_in_place_whatever_is_asked_of_it(full: Lab, at_step: int) -> None:
    """Before a checkpoint, between it and what it replaces, and while that is deleted."""
    assert isinstance(full.store, FullDisk)
    store = full.store

    def leave(kind: str, value: Any) -> None:
        if isinstance(value, CheckpointSaved) and value.checkpoint.step == at_step:
            store.num_looks_refused = 5

    result = full.train(SPEC, f"away-{at_step}", also=leave)
    assert store.num_looks_refused == 0
    assert result.resumed_from_step == 0
    whole = full.train(SPEC, "never-away")
    assert same_weights(full.weights(result.last), full.weights(whole.last))


def test_a_training_that_waits_for_space_leaves_when_asked(full: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(full.store, FullDisk)
    full.store.num_refusals = 100
    recorders: list[callbacks.RunRecorder] = []
    start = callbacks.RunRecorder.on_train_start

    def remember(self: callbacks.RunRecorder, *arguments: Any) -> None:
        recorders.append(self)
        start(self, *arguments)

    def ask_to_stop(kind: str, value: Any) -> None:
        if isinstance(value, Progress) and value.waiting:
            recorders[0]._stop_asked = True

    monkeypatch.setattr(callbacks.RunRecorder, "on_train_start", remember)
    with pytest.raises(PreemptedError, match="while step 2 waits for the store: .*No space left"):
        full.train(SPEC, "stopped-while-waiting", also=ask_to_stop)


def test_a_whole_run_without_mlflow_keeps_every_row_for_later(lab: Lab) -> None:
    tracking.open_run(lab.opening(SPEC, "online"), lab.store)
    lab.train(SPEC, "online")
    lab.train(SPEC, "offline")  # nobody ever opened its MLflow run
    assert len(waiting_rows(lab.store, "offline")) > 10
    online, offline = (metric_rows(lab, lab.close(SPEC, run_id).run_id) for run_id in ("online", "offline"))
    assert offline == online


def test_rows_wait_while_the_server_is_away_through_kills_and_arrive_once(lab: Lab) -> None:
    away = TrackingSpec(uri="http://127.0.0.1:9", experiment="test")
    opened = tracking.open_run(lab.opening(SPEC, "away"), lab.store)
    with pytest.raises(Killed):
        lab.train(SPEC, "away", kill_at_step=6, tracking=away)
    lab.train(SPEC, "away", attempt=2, resume_from=(lab.saved("away", 6),), tracking=away)
    assert not MlflowClient(tracking_uri=lab.tracking.uri).get_run(opened.run_id).data.metrics
    lab.close(SPEC, "away")
    tracking.open_run(lab.opening(SPEC, "never-away"), lab.store)
    lab.train(SPEC, "never-away")
    assert metric_rows(lab, opened.run_id) == metric_rows(lab, lab.close(SPEC, "never-away").run_id)


def test_rows_are_delivered_only_when_a_checkpoint_holds_them(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    posted: list[int] = []
    post = Outbox.post

    def post_what_is_durable(self: Outbox, rows: Sequence[MetricRow]) -> None:
        posted.extend(row.step for row in rows)
        if rows:
            assert rows[-1].step <= find_checkpoints(lab.store, "durable-rows")[0].step
        post(self, rows)

    monkeypatch.setattr(Outbox, "post", post_what_is_durable)
    lab.train(SPEC, "durable-rows")
    assert max(posted) == 14


def test_a_first_attempt_that_falls_back_logs_no_row_twice(lab: Lab) -> None:
    """The best checkpoint is damaged while training goes on: at the end, its steps are made again."""
    spec = replace(with_trainer(SPEC, validate_every_n_steps=2), checkpoint=MINIMAL_LOSS)
    opened = tracking.open_run(lab.opening(spec, "back"), lab.store)
    best = lab.train(spec, "back-whole").best.step
    client = MlflowClient(tracking_uri=lab.tracking.uri)
    damaged: list[int] = []

    def damage_the_best(kind: str, value: Any) -> None:
        if isinstance(value, CheckpointSaved) and value.checkpoint.step == 12 and not damaged:
            until(lambda: [m for m in client.get_metric_history(opened.run_id, "val/loss") if m.step > best])
            damaged.append(best)
            weights = Path(lab.store.root) / lab.saved("back", best).key / WEIGHTS_FILE
            weights.write_bytes(weights.read_bytes()[:-1])

    assert lab.train(spec, "back", also=damage_the_best).best.step == best
    assert damaged
    rows = [row[:2] for row in metric_rows(lab, lab.close(spec, "back").run_id)]
    assert len(set(rows)) == len(rows)


def test_rows_of_steps_made_twice_during_an_outage_arrive_once(lab: Lab) -> None:
    """All of them wait together: nothing that MLflow has tells the first from the second."""
    run_id = tracking.open_run(lab.opening(SPEC, "twice"), lab.store).run_id
    first = [MetricRow(key="train/loss", value=1 / 3 + step, step=step, timestamp_ms=1) for step in range(3)]
    again = [replace(row, timestamp_ms=2) for row in first[1:]]
    assert tracking.log_missing_rows(lab.tracking.uri, run_id, [*first, *again]) == []
    history = MlflowClient(tracking_uri=lab.tracking.uri).get_metric_history(run_id, "train/loss")
    assert [(m.step, m.timestamp) for m in history] == [(0, 1), (1, 1), (2, 1)]
    other = replace(again[0], value=7.0)
    assert len(tracking.log_missing_rows(lab.tracking.uri, run_id, [first[1], other])) == 1


def test_a_step_that_is_made_again_is_no_second_row_and_other_bits_are_an_alarm(lab: Lab) -> None:
    run_id = tracking.open_run(lab.opening(SPEC, "repeated"), lab.store).run_id
    uri = lab.tracking.uri
    first = [MetricRow(key="train/loss", value=1 / 3 + step, step=step, timestamp_ms=1) for step in range(3)]
    odd = [
        MetricRow(key="odd", value=v, step=i, timestamp_ms=1) for i, v in enumerate([float("nan"), float("inf"), -0.0])
    ]
    tracking.log_rows(uri, run_id, [*first, *odd])
    later = [replace(row, timestamp_ms=2) for row in [*first, *odd]]
    speed = MetricRow(key=tracking.EXAMPLES_PER_SECOND, value=5.0, step=1, timestamp_ms=1)
    tracking.log_rows(uri, run_id, [speed])
    assert tracking.log_missing_rows(uri, run_id, [*later, replace(speed, value=6.0, timestamp_ms=2)]) == []
    client = MlflowClient(tracking_uri=uri)
    assert [m.timestamp for key in ("train/loss", "odd") for m in client.get_metric_history(run_id, key)] == [1] * 6

    other = replace(later[1], value=later[1].value + 1e-15)
    assert other.value != later[1].value
    assert len(tracking.log_missing_rows(uri, run_id, [other])) == 1
    assert "train/loss of step 1 is" in client.get_run(run_id).data.tags["bertpar.contradiction"]
    assert len(client.get_metric_history(run_id, "train/loss")) == 3
