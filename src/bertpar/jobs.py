"""What a job process does, from its job to its last event.

The only process that imports torch, transformers, datasets and Lightning. It reads its job from one descriptor and
writes events to another: libraries print to standard output as they like.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from bertpar.code import check_code
from bertpar.codec import fetch_spec, from_json
from bertpar.errors import failure_of
from bertpar.event_stream import EventStream
from bertpar.events import TICK, TICK_SECONDS, EvaluateJob, Failure, PredictJob, SnapshotJob, TrainJob
from bertpar.paths import home
from bertpar.ranks import Team, form_team
from bertpar.store import Store

Emit = Callable[[str, Any], None]
"""Reports an event: its kind ("progress", "checkpoint", "note") and a dataclass or plain value."""


def snapshot(job: SnapshotJob, store: Store, emit: Emit) -> Any:
    from bertpar.data.snapshot import make_snapshot

    spec = fetch_spec(store, job.spec_key)
    return make_snapshot(spec.data, spec.model, store, emit)


def train(job: TrainJob, store: Store, emit: Emit) -> Any:
    from bertpar.training.run import train

    return train(job, store, emit)


def evaluate(job: EvaluateJob, store: Store, emit: Emit) -> Any:
    from bertpar.evaluation.evaluate import evaluate

    return evaluate(job, store, emit)


def predict(job: PredictJob, store: Store, emit: Emit) -> Any:
    from bertpar.evaluation.predict import predict

    return predict(job, store, emit)


KINDS: dict[str, tuple[type[Any], Callable[[Any, Store, Emit], Any]]] = {
    "snapshot": (SnapshotJob, snapshot),
    "train": (TrainJob, train),
    "evaluate": (EvaluateJob, evaluate),
    "predict": (PredictJob, predict),
}


def run(kind: str, job: Any, emit: Emit) -> Any:
    """Do `job` in this process and return its result; for debugging: `run("train", job, emit=print)`.

    Raises:
        CodeChangedError: this process runs other code or libraries than the job is to be done with.
    """
    check_code(getattr(job, "code", None))
    _, function = KINDS[kind]
    return function(job, Store(job.store_root, home().cache), emit)


def main(kind: str, job_fd: int, events_fd: int, parent_pid: int) -> NoReturn:
    """Be the job process: forked by the template, dead with it."""
    die_with(parent_pid)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # oneDNN would keep 1024 kernels, 0.3 GB; packs of all the usual shapes need about half of them
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "512")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it, matrix products on GPUs do not repeat
    job_class, _ = KINDS[kind]
    with os.fdopen(job_fd, "rb") as job_file:
        job = from_json(job_class, job_file.read())
    team = form_team(job.demand.devices if kind == "train" else 1, die_with)
    if team.rank > 0:
        os.close(events_fd)
        team.be_replica(lambda: _train_replica(job))
    events = EventStream(os.fdopen(events_fd, "w", encoding="utf-8"))

    def fail(failure: Failure) -> NoReturn:
        events.emit("failure", failure)
        events.flush()
        os._exit(0)

    threading.Thread(target=_tick, args=(events.emit, team), name="tick", daemon=True).start()
    team.watch(fail)
    try:
        events.emit("result", run(kind, job, events.emit))
    except Exception as error:
        with suppress(OSError):  # where the disk is full, so is the log's
            traceback.print_exc()
        events.emit("failure", failure_of(error))
    events.flush()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(0)  # the event says how it ended; a library's thread must not keep a finished process alive


def _train_replica(job: TrainJob) -> None:
    from bertpar.training.replica import train_replica

    train_replica(job, Store(job.store_root, home().cache))


def _tick(emit: Emit, team: Team) -> None:
    while True:
        if team.is_alive():
            emit(TICK, None)
        time.sleep(TICK_SECONDS)


def die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent dies: a job must not outlive its worker."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent_pid:  # it died before the call
            os._exit(1)
