"""A training activity that is cancelled: its process leaves in order, or is stopped."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.testing import ActivityEnvironment

from bertpar.activities import _job
from bertpar.errors import PreemptedError, ProcessDiedError


async def cancelled_after_start(process: _Process) -> object:
    """Have an activity wait for the process, cancel it, and return or raise what it does."""
    environment, leaving = ActivityEnvironment(), asyncio.Event()

    async def activity() -> object:
        return await _job._result_or_leave(asyncio.create_task(process.run(leaving)), leaving)

    running = asyncio.create_task(environment.run(activity))
    await process.started.wait()
    environment.cancel()
    return await running


class _Process:
    """A job process that does `at_leaving` once it is asked to leave."""

    def __init__(self, at_leaving: Exception | str | None) -> None:
        self.started = asyncio.Event()
        self.stopped = False
        self._at_leaving = at_leaving

    async def run(self, leaving: asyncio.Event) -> str:
        self.started.set()
        try:
            await leaving.wait()
            if self._at_leaving is None:
                await asyncio.Event().wait()
            if isinstance(self._at_leaving, Exception):
                raise self._at_leaving
            return str(self._at_leaving)
        except asyncio.CancelledError:
            self.stopped = True
            raise


async def test_it_says_how_far_it_came() -> None:
    with pytest.raises(PreemptedError, match="left in order after step 7"):
        await cancelled_after_start(_Process(PreemptedError("left in order after step 7")))


async def test_what_ends_well_meanwhile_has_ended_well() -> None:
    assert await cancelled_after_start(_Process("result")) == "result"


async def test_a_process_that_dies_of_it_has_left_too() -> None:
    with pytest.raises(PreemptedError, match="goes on from the one before"):
        await cancelled_after_start(_Process(ProcessDiedError("was killed by SIGTERM")))


async def test_a_process_that_does_not_leave_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_job, "_LONGEST_LEAVING_SECONDS", 0.05)
    process = _Process(None)
    with pytest.raises(PreemptedError, match="without a checkpoint of its own"):
        await asyncio.wait_for(cancelled_after_start(process), 10)
    assert process.stopped
