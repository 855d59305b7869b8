"""The one door to a job process: a job goes in as a file, events come out as JSON lines.

A job runs in a process of its own, so that an out-of-memory kill or a crash in native code is just a failure, and
so that the worker stays small. How the process is started is known to this module alone.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from bertpar.codec import from_json, to_json
from bertpar.errors import ProcessDiedError
from bertpar.events import Failure

STOP_GRACE_SECONDS = 10.0

EventHandler = Callable[[str, Any], Awaitable[None]]
"""Called with an event's kind and its value as plain JSON."""


class JobFailed(Exception):
    """The job said why it failed."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


async def run_job(kind: str, job: Any, on_event: EventHandler, *, log_file: Path) -> Any:
    """Run one job to its end in a process of its own, and return its result as plain JSON.

    The process group is stopped whenever this function is left, by cancellation too.

    Raises:
        JobFailed: the job reported a failure.
        ProcessDiedError: the process ended without a result.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bertpar-job-") as folder:
        job_file = Path(folder) / "job.json"
        job_file.write_text(to_json(job), encoding="utf-8")
        read_end, write_end = os.pipe()
        try:
            with log_file.open("ab") as log:
                process = await asyncio.create_subprocess_exec(
                    *(
                        sys.executable,
                        "-m",
                        "bertpar.jobs",
                        kind,
                        str(job_file),
                        str(write_end),
                        str(os.getpid()),
                    ),
                    pass_fds=(write_end,),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # one signal then reaches whatever the job starts
                )
        finally:
            os.close(write_end)
        try:
            return await _relay(process, read_end, on_event, log_file)
        finally:
            await stop_group(process)


async def _relay(process: asyncio.subprocess.Process, read_end: int, on_event: EventHandler, log_file: Path) -> Any:
    reader = asyncio.StreamReader(limit=2**24)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb")
    )
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
        transport.close()
    code = await process.wait()
    raise ProcessDiedError(f"the process {_ending(code)} without a result.{_tail(log_file)}")


async def stop_group(process: asyncio.subprocess.Process) -> None:
    """Ask the process group to end, and kill what has not ended within the grace."""
    for number, grace in ((signal.SIGTERM, STOP_GRACE_SECONDS), (signal.SIGKILL, None)):
        if number == signal.SIGKILL or process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(process.wait()), grace)


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
