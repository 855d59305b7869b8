"""A worker process: it takes training, or evaluation and all the rest, from task queues until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from bertpar.client import DEFAULT_EVAL_QUEUE, DEFAULT_TRAINING_QUEUE
from bertpar.errors import ConnectionFailedError
from bertpar.machine import default_training_slots, machine_capacity, usable_cpus
from bertpar.slots import Slots, tuner
from bertpar.states import tracking_queue
from bertpar.workflow_cache import ForgetfulRunner, forget

WorkerKind = Literal["training", "eval"]
DEFAULT_QUEUES: dict[WorkerKind, str] = {"training": DEFAULT_TRAINING_QUEUE, "eval": DEFAULT_EVAL_QUEUE}
DEFAULT_GRACE = timedelta(seconds=20)

# Temporal's default, 0.8 of the heartbeat timeout, would show progress only every few seconds.
_HEARTBEAT_INTERVAL = timedelta(seconds=1)
_NUM_KEPT_WORKFLOWS = 500
"""Between their tasks: more than a sweep has in flight, so that none need be replayed."""
_LONGEST_WAIT_FOR_A_LOST_WORKER = timedelta(seconds=5)
"""So long a workflow task waits for the worker that keeps its workflow, before any other takes it and replays it."""
_MAX_RECONNECT_SECONDS = 5.0
_SECONDS_BETWEEN_COMPLAINTS = 30.0
_SECONDS_BETWEEN_TRIES_TO_SAY_READY = 1.0
_NUM_THAT_WAIT = 8
"""Activities of an evaluation worker beside those that compute: what waits for a slot must not keep claims waiting."""
_NUM_TRACKING_SLOTS = 4
"""Calls to MLflow at once. A handful is enough: they wait for it, and for one lock of the host (tracking/runs.py)."""

_log = logging.getLogger(__name__)


def default_slots(kind: WorkerKind) -> int:
    """Return how many activities a worker of this kind runs at once where nobody chose a number."""
    return default_training_slots() if kind == "training" else max(2, usable_cpus())


async def connect_patiently(connect: Callable[[], Any]) -> Client:
    """Return what `connect` returns, trying for as long as the server cannot be reached.

    Raises:
        ConfigError: from `connect`; waiting would not help.
    """
    loop = asyncio.get_running_loop()
    delay_seconds, complain_at = 0.05, loop.time() + 3.0
    while True:
        try:
            client: Client = await connect()
        except ConnectionFailedError as error:
            if loop.time() >= complain_at:
                complain_at = loop.time() + _SECONDS_BETWEEN_COMPLAINTS
                _log.warning("waiting for the Temporal server: %s", error)
            await asyncio.sleep(delay_seconds)
            delay_seconds = min(delay_seconds * 1.5, _MAX_RECONNECT_SECONDS)
        else:
            return client


def make_worker(
    kind: WorkerKind,
    client: Client,
    *,
    queue: str,
    num_slots: int,
    slots: Slots | None = None,
    grace: timedelta = DEFAULT_GRACE,
    workflows: Sequence[type] | None = None,
    activities: Sequence[Callable[..., Any]] | None = None,
    **options: Any,
) -> Worker:
    """Return a worker: `eval` runs all workflows and the evaluation activities, `training` training alone.

    `num_slots` activities run at once; for activities that take what they want of `slots`, as many as those let.
    `workflows` and `activities` replace those of the kind, `options` those of Temporal's Worker: tests have every task
    replayed in Temporal's sandbox, which would double what workflows cost.
    """
    if workflows is None:
        workflows = _own_workflows(kind)
    if activities is None:
        activities = _own_activities(kind)
    own = _options_for_workflows(lambda run_id: forget(worker, run_id)) if workflows else {"max_cached_workflows": 0}
    worker = Worker(
        client,
        task_queue=queue,
        workflows=workflows,
        activities=activities,
        activity_executor=ThreadPoolExecutor(num_slots, thread_name_prefix=f"{kind}-activity"),
        identity=f"{platform.node()}/{kind}/{os.getpid()}",
        max_concurrent_activities=num_slots if slots is None else None,
        tuner=None if slots is None else tuner(slots),
        max_heartbeat_throttle_interval=_HEARTBEAT_INTERVAL,
        default_heartbeat_throttle_interval=_HEARTBEAT_INTERVAL,
        graceful_shutdown_timeout=grace,
        **(own | options),
    )
    return worker


def _options_for_workflows(forget: Callable[[str], None]) -> dict[str, Any]:
    return {
        "workflow_runner": ForgetfulRunner(UnsandboxedWorkflowRunner(), forget),
        "max_cached_workflows": _NUM_KEPT_WORKFLOWS,
        # The fewest that the SDK takes where it keeps workflows. Of three tasks for a workflow that is being forgotten
        # it drops one: a query then waits for half a minute (tests/workflows/test_many_questions.py).
        "max_concurrent_workflow_tasks": 2,
        "sticky_queue_schedule_to_start_timeout": _LONGEST_WAIT_FOR_A_LOST_WORKER,
    }


async def run_worker(
    kind: WorkerKind,
    client: Client,
    *,
    queue: str,
    num_slots: int,
    grace: timedelta = DEFAULT_GRACE,
    ready_file: Path | None = None,
) -> None:
    """Work until SIGTERM or SIGINT; then take no more, give what runs `grace` to end, and cancel the rest.

    `eval` serves the tracking queue of `queue` too: what waits there for MLflow takes none of the `num_slots`.
    A second signal ends the process at once. `ready_file` receives the pid as soon as the worker runs.
    """
    slots = _divide_machine(num_slots)
    if kind == "training":
        workers = [make_worker(kind, client, queue=queue, num_slots=num_slots, slots=slots, grace=grace)]
    else:
        num_activities = num_slots + _NUM_THAT_WAIT
        workers = [make_worker(kind, client, queue=queue, num_slots=num_activities, grace=grace)]
        workers.append(_make_tracking_worker(client, tracking_queue(queue), grace))

    async def warm_up_and_say_ready() -> None:
        for worker in workers:
            _log.info("%s worker takes work from %s", kind, worker.task_queue)
        _log.info("it has %s", slots.capacity)
        await _warm_up()
        await _say_ready(ready_file)

    await run_until_stopped(workers, warm_up_and_say_ready)


async def run_until_stopped(
    workers: Sequence[Worker], when_running: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Run `workers` until SIGTERM or SIGINT, or until something fails; then shut them down, all at the same time.

    Raises:
        RuntimeError: a worker failed.
        Exception: that of `when_running`, which is done beside the work.
    """
    with _stop_signals() as stop_asked:

        async def beside_the_work() -> None:
            if when_running is not None and _all_run(workers):
                await when_running()
            await stop_asked.wait()

        running = [asyncio.create_task(worker.run()) for worker in workers]
        while not (_all_run(workers) or any(t.done() for t in running)):  # noqa: ASYNC110 (temporalio has no event)
            await asyncio.sleep(0.01)
        others = [asyncio.create_task(beside_the_work()), asyncio.create_task(stop_asked.wait())]
        await asyncio.wait({*running, *others}, return_when=asyncio.FIRST_COMPLETED)
        if stop_asked.is_set():
            _log.info("told to stop; what runs has its grace to end")
        await asyncio.gather(*(worker.shutdown() for worker in workers))
        await asyncio.gather(*running)
        for task in others:
            if not task.cancel():  # it has ended
                task.result()


def _all_run(workers: Sequence[Worker]) -> bool:
    return all(worker.is_running for worker in workers)


def _divide_machine(num_slots: int) -> Slots:
    """Return the slots of this machine, of which all activities of this process then take theirs."""
    from bertpar.activities import share

    slots = Slots(machine_capacity(num_slots))
    share(slots)
    return slots


async def _warm_up() -> None:
    """Start what job processes are forked from, so that the first job need not wait for its imports."""
    from bertpar.activities import job_starter

    await job_starter().warm_up()


def _make_tracking_worker(client: Client, queue: str, grace: timedelta) -> Worker:
    from bertpar.activities import TRACKING_ACTIVITIES

    return make_worker(
        "eval",
        client,
        queue=queue,
        num_slots=_NUM_TRACKING_SLOTS,
        grace=grace,
        workflows=[],
        activities=TRACKING_ACTIVITIES,
    )


def _own_workflows(kind: WorkerKind) -> Sequence[type]:
    from bertpar.workflows import WORKFLOWS

    return WORKFLOWS if kind == "eval" else []


def _own_activities(kind: WorkerKind) -> Sequence[Callable[..., Any]]:
    from bertpar import activities

    own: Sequence[Any] = activities.EVAL_ACTIVITIES if kind == "eval" else activities.TRAINING_ACTIVITIES
    return own


@contextmanager
def _stop_signals() -> Iterator[asyncio.Event]:
    """Yield an event that SIGTERM or SIGINT sets, and leave the loop without handlers of ours."""
    loop, stop_asked = asyncio.get_running_loop(), asyncio.Event()

    def stop(number: int) -> None:
        if stop_asked.is_set():
            os._exit(128 + number)
        stop_asked.set()

    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, stop, number)
    try:
        yield stop_asked
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _say_ready(ready_file: Path | None) -> None:
    """Write this process's id there; where the disk is full, as soon as there is space."""
    told = False
    while ready_file is not None:
        try:
            temporary = ready_file.with_name(f".{ready_file.name}.{os.getpid()}")
            temporary.write_text(str(os.getpid()), encoding="utf-8")
            temporary.replace(ready_file)
            return
        except OSError as error:
            if not told:
                _log.warning("this worker works, and cannot say so: %s", error)
            told = True
            await asyncio.sleep(_SECONDS_BETWEEN_TRIES_TO_SAY_READY)
