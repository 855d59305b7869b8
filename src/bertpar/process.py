"""The one door to a job process: a job goes in as JSON, events come out as JSON lines.

A job runs in a process of its own, so that an out-of-memory kill or a crash in native code is just a failure, and so
that the worker stays small. Processes are forks of a warm template (template.py), of which a worker has one; nobody
but this module knows that.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from bertpar.codec import from_json, to_json
from bertpar.errors import ProcessDiedError
from bertpar.events import Failure
from bertpar.logs import open_log

STOP_GRACE_SECONDS = 5.0
LONGEST_START_SECONDS = 120.0
"""From the request for a job to its first sign of life: a new template imports first, for long on a busy machine."""

_MESSAGE_BYTES = 65536
_DRAIN_SECONDS = 5.0
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Thread pools started at import would not survive the fork; training sets its own number afterwards."""

EventHandler = Callable[[str, Any], Awaitable[None]]
"""Called with an event's kind and its value as plain JSON."""

_log = logging.getLogger(__name__)


class JobFailed(Exception):
    """The job said why it failed."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class JobProcess:
    """A job process from its parent's side."""

    def __init__(self, pid: int, exit_code: asyncio.Future[int]) -> None:
        self.pid = pid
        self._exit_code = exit_code

    async def wait(self) -> int:
        """Return the exit code, negative for a signal, once the process has ended."""
        return await asyncio.shield(self._exit_code)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process group, unless it has ended."""
        if not self._exit_code.done():
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    async def stop(self, grace_seconds: float = STOP_GRACE_SECONDS) -> int:
        """Ask the process group to end, kill what has not ended within the grace, and return the exit code.

        A template that is stopped or hangs reports none: after a second grace the kill counts as the end.
        """
        for number in (signal.SIGTERM, signal.SIGKILL):
            self.send(number)
            with suppress(asyncio.TimeoutError):
                return await asyncio.wait_for(self.wait(), grace_seconds)
        return -signal.SIGKILL


class JobStarter:
    """Owns this worker's template, started at the first need and again should it die or not answer."""

    def __init__(self, log_folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self._environment = environment or {}
        """What the jobs' environment has beside this process's own."""
        self._log_file = log_folder / f"template-{os.getpid()}.log"
        self._starting = asyncio.Lock()
        self._connection: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._next_id = 0
        self._pids: dict[int, asyncio.Future[int]] = {}
        self._exit_codes: dict[int, asyncio.Future[int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def warm_up(self) -> socket.socket:
        """Start the template unless it runs; it imports while other work goes on."""
        async with self._starting:
            if self._connection is None:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                ours.setblocking(False)
                with theirs, open_log(self._log_file) as log:
                    self._process = await asyncio.create_subprocess_exec(
                        *(sys.executable, "-m", "bertpar.template", str(theirs.fileno()), str(os.getpid())),
                        env={**os.environ, **self._environment, **_ONE_THREAD},
                        pass_fds=(theirs.fileno(),),
                        stdin=asyncio.subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                    )
                self._connection = ours
                task = asyncio.create_task(self._listen(ours, self._process))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            return self._connection

    async def start(
        self, kind: str, job_fd: int, events_fd: int, log_file: Path, gpus: Sequence[str] = ()
    ) -> JobProcess:
        """Fork a process for the job; it reads the job from `job_fd` and writes its events to `events_fd`.

        It sees `gpus` alone; all that the worker sees where there are none.
        """
        connection = await self.warm_up()
        self._next_id += 1
        number = self._next_id
        loop = asyncio.get_running_loop()
        self._pids[number], self._exit_codes[number] = loop.create_future(), loop.create_future()
        request = {"id": number, "kind": kind, "log_file": str(log_file), "gpus": list(gpus)}
        try:
            socket.send_fds(connection, [json.dumps(request).encode()], [job_fd, events_fd])
        except (BrokenPipeError, ConnectionResetError) as error:
            self._forget(connection, "is gone")
            raise ProcessDiedError(f"the template of job processes is gone: {error}") from error
        pid, exit_code = self._pids[number], self._exit_codes[number]
        limit = loop.call_later(LONGEST_START_SECONDS, self._give_up, connection)
        pid.add_done_callback(lambda _: limit.cancel())  # a cancelled wait leaves it: the next job needs a template
        try:
            return JobProcess(await asyncio.shield(pid), exit_code)
        except asyncio.CancelledError:
            pid.add_done_callback(_kill_unwanted)  # it is forked all the same, as soon as the template gets to it
            raise

    async def aclose(self) -> None:
        """End the template, which has no job any more, before the event loop ends that it is a child of."""
        if self._connection is not None:
            self._connection = None
            assert self._process is not None
            with suppress(ProcessLookupError):
                self._process.kill()
            await asyncio.gather(*self._tasks)

    async def _listen(self, connection: socket.socket, process: asyncio.subprocess.Process) -> None:
        loop = asyncio.get_running_loop()
        with connection, suppress(OSError):
            while message := await loop.sock_recv(connection, _MESSAGE_BYTES):
                answer = json.loads(message)
                if self._connection is not connection:
                    continue  # the last words of a template that was given up
                if "pid" in answer:
                    self._pids.pop(answer["id"]).set_result(answer["pid"])
                else:
                    self._exit_codes.pop(answer["id"]).set_result(answer["exit_code"])
        is_missed = self._connection is connection
        self._forget(connection, "died")
        exit_code = await process.wait()
        if is_missed:
            _log.warning("the template of job processes ended with exit code %s", exit_code)

    def _give_up(self, connection: socket.socket) -> None:
        """Kill a template that is stopped or hangs, which cannot report its end."""
        if self._connection is connection:
            assert self._process is not None
            with suppress(ProcessLookupError):
                self._process.kill()
            self._forget(connection, f"gave no answer for {LONGEST_START_SECONDS:g} s")

    def _forget(self, connection: socket.socket, why: str) -> None:
        """Let go of a dead template: its children died with it."""
        if self._connection is connection:
            self._connection = None
            gone = ProcessDiedError(f"the template of job processes {why}.{_tail(self._log_file)}")
            for pid in self._pids.values():
                pid.set_exception(gone)
            for exit_code in self._exit_codes.values():
                exit_code.set_result(-signal.SIGKILL)
            self._pids, self._exit_codes = {}, {}


def _kill_unwanted(pid: asyncio.Future[int]) -> None:
    if pid.exception() is None:
        with suppress(ProcessLookupError):
            os.kill(pid.result(), signal.SIGKILL)


async def run_job(
    starter: JobStarter,
    kind: str,
    job: Any,
    on_event: EventHandler,
    *,
    log_file: Path,
    gpus: Sequence[str] = (),
    stop_asked: Callable[[], Awaitable[None]] | None = None,
) -> Any:
    """Run one job to its end in a process of its own, which sees `gpus`, and return its result as plain JSON.

    Once `stop_asked` returns, the job is asked to leave in order, and its events are relayed to the last. The process
    group is stopped whenever this function is left, by cancellation too.

    Raises:
        JobFailed: the job reported a failure.
        ProcessDiedError: the process ended without a result.
    """
    read_end, write_end = os.pipe()
    try:
        with _nameless_file() as job_file:
            job_file.write(to_json(job).encode())
            job_file.seek(0)
            process = await starter.start(kind, job_file.fileno(), write_end, log_file, gpus)
    except BaseException:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    asking = asyncio.create_task(_ask_to_leave(process, stop_asked)) if stop_asked else None
    try:
        return await _relay(process, read_end, on_event, log_file)
    finally:
        if asking is not None:
            asking.cancel()
        await process.stop()


def _nameless_file() -> IO[bytes]:
    """Return a file that whoever is killed leaves no trace of: in memory where that can be had, for a full disk."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("bertpar-job"), "w+b")
    return tempfile.TemporaryFile()


async def _ask_to_leave(process: JobProcess, stop_asked: Callable[[], Awaitable[None]]) -> None:
    await stop_asked()
    process.send(signal.SIGTERM)


async def _relay(process: JobProcess, read_end: int, on_event: EventHandler, log_file: Path) -> Any:
    reader = asyncio.StreamReader(limit=2**24)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb")
    )
    ending = asyncio.create_task(_close_after(process, transport))
    try:
        while line := await reader.readline():
            try:
                event = json.loads(line)
            except ValueError:
                break  # the process died within a line
            if event["kind"] == "result":
                return event["value"]
            if event["kind"] == "failure":
                raise JobFailed(from_json(Failure, json.dumps(event["value"])))
            await on_event(event["kind"], event["value"])
    finally:
        ending.cancel()
        transport.close()
    code = await process.stop()  # one that closed its events but lives is of no use
    raise ProcessDiedError(f"the process {_ending(code)} without a result.{_tail(log_file)}")


async def _close_after(process: JobProcess, transport: asyncio.ReadTransport) -> None:
    """End the events of a dead process that somebody else keeps open: what it had written is read by then."""
    await process.wait()
    await asyncio.sleep(_DRAIN_SECONDS)
    transport.close()


def _ending(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _tail(log_file: Path, num_lines: int = 5) -> str:
    with suppress(OSError):
        lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-num_lines:]
        return f" Last lines of {log_file}:\n" + "\n".join(lines) if lines else ""
    return ""
