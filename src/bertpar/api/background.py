"""One event loop for the whole process, in a thread of its own, on which everything that Python's users ask for runs.

So the same calls work in a script, in a notebook, whose own loop is busy with the cell, and inside a coroutine.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

_SECONDS_TO_END = 5.0
_SECONDS_BETWEEN_WAKES = 0.5

_lock = threading.Lock()
_background: _Background | None = None


def run(work: Coroutine[Any, Any, T]) -> T:
    """Do the work and return what it returns; whoever interrupts the waiting (Ctrl-C) cancels the work."""
    future = begin(work)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


async def run_beside(work: Coroutine[Any, Any, T]) -> T:
    """Do the work without blocking the caller's own loop; a caller that is cancelled cancels the work."""
    future = asyncio.wrap_future(begin(work))
    try:
        while not future.done():  # a loop in which nothing happens would not notice a notebook's Interrupt
            await asyncio.wait({future}, timeout=_SECONDS_BETWEEN_WAKES)
    except asyncio.CancelledError:
        future.cancel()
        raise
    return future.result()


def begin(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Have the work done without anybody waiting for it."""
    return asyncio.run_coroutine_threadsafe(work, _loop())


def _loop() -> asyncio.AbstractEventLoop:
    global _background
    with _lock:
        if _background is None:
            _background = _Background()
            _background.start()
            _background.serves.wait()
            atexit.register(_background.end)
        return _background.loop


class _Background(threading.Thread):
    """The thread. Python ends it in order: an SDK whose loop just vanishes may abort the process at its exit."""

    def __init__(self) -> None:
        super().__init__(name="bertpar", daemon=True)
        self.serves = threading.Event()
        self.loop: asyncio.AbstractEventLoop

    def run(self) -> None:
        asyncio.run(self._serve())

    def end(self) -> None:
        """Cancel what is under way, and wait a moment for it."""
        self.loop.call_soon_threadsafe(self._ending.set)
        self.join(_SECONDS_TO_END)

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        self.serves.set()
        await self._ending.wait()
