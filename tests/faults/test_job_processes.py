"""Job processes: none outlives its worker, and one that stops is as lost as one that is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, aclosing, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from temporalio.common import RetryPolicy
from temporalio.testing import ActivityEnvironment

from bertpar import faults, process
from bertpar.activities import _job
from bertpar.codec import publish_spec
from bertpar.errors import ProcessDiedError
from bertpar.events import Failure, SnapshotJob
from bertpar.process import JobProcess, JobStarter, run_job
from bertpar.store import Store
from tests.e2e.conftest import until
from tests.training.conftest import SPEC

_WORKER = """
import asyncio, sys
from pathlib import Path
from bertpar.events import SnapshotJob
from bertpar.process import JobStarter, run_job

async def main(home, root, spec_key):
    async def ignore(kind, value): pass
    job = SnapshotJob(store_root=root, spec_key=spec_key)
    await run_job(JobStarter(Path(home) / "logs"), "snapshot", job, ignore, log_file=Path(home) / "logs" / "job.log")

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("stopped", [False, True])
def test_no_job_outlives_its_worker_not_even_a_stopped_one(tmp_path: Path, stopped: bool) -> None:
    store, orders = Store(str(tmp_path / "store"), tmp_path / "cache"), tmp_path / "orders"
    orders.mkdir()
    faults.order(orders, "tokenizer.before_write", "stop")  # the job is then in the middle of its work
    spec_key = publish_spec(store, SPEC)
    environment = {**os.environ, faults.VARIABLE: str(orders), "BERTPAR_HOME": str(tmp_path)}
    command = [sys.executable, "-c", _WORKER, str(tmp_path), store.root, spec_key]
    worker = subprocess.Popen(command, env=environment)
    until(lambda: list(orders.glob("taken-*")))
    started = psutil.Process(worker.pid).children(recursive=True)
    job = psutil.Process(int(next(orders.glob("taken-*")).name.rpartition("-")[2]))
    until(lambda: job.status() == psutil.STATUS_STOPPED)
    if not stopped:
        job.resume()
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    assert job in started
    _, alive = psutil.wait_procs(started, timeout=10)
    assert not alive


_PARENT = """
import os, socket, subprocess, sys
here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
command = [sys.executable, "-m", "bertpar.template", str(there.fileno()), str(os.getpid())]
template = subprocess.Popen(command, pass_fds=[there.fileno()])
print(template.pid, flush=True)
template.wait()
"""


def test_a_template_that_is_stopped_dies_with_its_worker() -> None:
    """A running one would leave when it sees the end of its socket; after its imports, seconds later."""
    worker = subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    template = psutil.Process(int(worker.stdout.readline()))
    try:
        until(lambda: ignores_sigterm(template.pid))  # it does so once it has asked to die with the worker
        template.suspend()
        worker.kill()
        worker.wait()
        _, alive = psutil.wait_procs([template], timeout=5)
        assert not alive
    finally:
        for process in (worker, template):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def ignores_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    ignored = next(line.split()[1] for line in status.splitlines() if line.startswith("SigIgn:"))
    return bool(int(ignored, 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_template_that_gives_no_answer_is_killed_and_the_next_job_gets_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cancelled: bool
) -> None:
    async def ignore(kind: str, value: Any) -> None: ...

    monkeypatch.setattr(process, "LONGEST_START_SECONDS", 1.0)
    starter, job = JobStarter(tmp_path), SnapshotJob(store_root=str(tmp_path / "store"), spec_key="s")
    await starter.warm_up()
    (template,) = templates()
    template.suspend()
    running = asyncio.create_task(run_job(starter, "snapshot", job, ignore, log_file=tmp_path / "job.log"))
    await asyncio.sleep(0.5)
    if cancelled:
        running.cancel()
    try:
        async with asyncio.timeout(5):
            with pytest.raises(asyncio.CancelledError if cancelled else ProcessDiedError):
                await running
            while templates():
                await asyncio.sleep(0.05)
    finally:
        with suppress(psutil.NoSuchProcess):
            template.kill()
    await starter.warm_up()
    (successor,) = templates()
    successor.kill()


async def test_a_job_can_be_told_to_leave_as_soon_as_its_process_is_known(tmp_path: Path) -> None:
    """Before it leads a group of its own a signal finds nobody, and is lost."""
    job_read, job_write = os.pipe()  # the job waits for the rest of what it is to do
    events_read, events_write = os.pipe()
    with ExitStack() as open_ends:
        for end in (job_read, job_write, events_read, events_write):
            open_ends.callback(os.close, end)
        async with aclosing(JobStarter(tmp_path)) as starter:
            for _ in range(20):
                job = await starter.start("snapshot", job_read, events_write, tmp_path / "job.log")
                job.send(signal.SIGTERM)
                async with asyncio.timeout(10):
                    assert await job.wait() == -signal.SIGTERM


def templates() -> list[psutil.Process]:
    """Return the templates of this process that have not ended."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # nor is a zombie such a process
            found += [child] if "bertpar.template" in child.cmdline() else []
    return found


async def test_stopping_a_job_needs_no_template_that_reports_its_end() -> None:
    job = process_that_ignores_sigterm()
    never: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with asyncio.timeout(5):
        assert await JobProcess(job.pid, never).stop(grace_seconds=0.2) == -signal.SIGKILL
    assert job.wait(timeout=5) == -signal.SIGKILL


def process_that_ignores_sigterm() -> subprocess.Popen[bytes]:
    def ignore() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    return subprocess.Popen(["sleep", "60"], start_new_session=True, preexec_fn=ignore)


async def test_a_silent_job_has_no_heartbeats_and_one_whose_events_wait_has() -> None:
    now = 0.0
    pulse = _job.Pulse(clock=lambda: now)
    pulse.seen()
    now += _job._LONGEST_SILENCE_SECONDS - 1
    assert pulse.is_alive()
    now += 2
    assert not pulse.is_alive()
    with pulse.held():  # its event is being relayed, through an outage of any length
        now += 10_000
        assert pulse.is_alive()
    assert pulse.is_alive()
    now += _job._LONGEST_SILENCE_SECONDS + 1
    assert await count_beats(pulse) == 0
    pulse.seen()
    assert await count_beats(pulse) > 0


async def test_a_job_that_gives_no_first_sign_of_life_has_no_heartbeats_for_ever() -> None:
    now = 0.0
    pulse = _job.Pulse(clock=lambda: now)
    now += process.LONGEST_START_SECONDS - 1
    assert pulse.is_alive()  # it may still be starting
    now += 2
    assert await count_beats(pulse) == 0


async def test_what_runs_in_the_worker_itself_has_heartbeats_for_as_long_as_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_job.Pulse.__init__, "__defaults__", (time.monotonic, 0.0))  # a job would be lost already
    assert await count_beats(_job.Pulse()) == 0
    assert await count_beats(None) > 0


@pytest.mark.parametrize(("most_tries", "beats"), [(1, []), (0, [({"failures": 1},)])])
async def test_only_what_temporal_tries_again_counts_its_failures_in_heartbeats(most_tries: int, beats: Any) -> None:
    """Whoever looks at a training takes the details of its heartbeats for its progress."""
    told: list[Any] = []
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, retry_policy=RetryPolicy(maximum_attempts=most_tries))
    environment.on_heartbeat = lambda *details: told.append(details)

    async def fail() -> None:
        _job.application_error(Failure(error_type="KeyError", message="a bug"))

    await environment.run(fail)
    assert told == beats


def test_a_starter_that_is_closed_leaves_no_template_and_nothing_to_say(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def start_and_close() -> int:
        async with aclosing(JobStarter(tmp_path)) as starter:
            await starter.warm_up()
            assert starter._process is not None
            return starter._process.pid

    template = asyncio.run(start_and_close())
    assert not psutil.pid_exists(template)
    assert capfd.readouterr().err == ""


async def count_beats(pulse: _job.Pulse | None) -> int:
    """Return how many heartbeats there are in a fifth of a second, at a timeout of a tenth."""
    beats: list[Any] = []
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, heartbeat_timeout=timedelta(seconds=0.1))
    environment.on_heartbeat = lambda *details: beats.append(details)

    async def wait() -> None:
        async with _job.heartbeats(pulse):
            await asyncio.sleep(0.2)

    await environment.run(wait)
    return len(beats)
