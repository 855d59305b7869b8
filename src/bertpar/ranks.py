"""The processes of one training over several devices, its *ranks*: the job's own process, rank 0, and those it forks.

Rank 0 alone has to do with the outside: it reads and writes the store, and tells events. The others compute their share
of each step, and end with it, whatever ends it. So there is nothing to agree about at the end: rank 0 just exits. That
another rank has ended, or shows no sign of life, rank 0 is told over a pipe; it ends what it is writing, and exits.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from bertpar.errors import ProcessDiedError, failure_of
from bertpar.events import TICK_SECONDS, Failure

_LONGEST_SILENCE_SECONDS = 20 * TICK_SECONDS
_NEWS_SECONDS = 10.0
_LONGEST_WRITING_SECONDS = _LONGEST_SILENCE_SECONDS  # so long the one that has ended still counts as alive
LOOPBACK = "127.0.0.1"


@dataclass
class _Member:
    """Another rank, as rank 0 knows it."""

    rank: int
    pid: int
    reports: int
    """The read end of its pipe: an empty line is a sign of life, any other one says why it failed."""
    seen: float = field(default_factory=time.monotonic)


@dataclass
class Team:
    """The ranks of a training, as one of them knows them."""

    rank: int = 0
    size: int = 1
    port: int = 0
    """On the loopback interface: rank 0 serves there what the ranks find each other by."""
    listener: socket.socket | None = None
    """Rank 0's, of this port."""
    writing: threading.Lock = field(default_factory=threading.Lock)
    """Held by rank 0 while it writes what would else be lost with the training."""
    _members: list[_Member] = field(default_factory=list)
    _report: int = -1
    _has_news: threading.Event = field(default_factory=threading.Event)

    def is_alive(self) -> bool:
        """Say whether all ranks give signs of life; rank 0's question."""
        return all(time.monotonic() - member.seen < _LONGEST_SILENCE_SECONDS for member in self._members)

    def watch(self, fail: Callable[[Failure], None]) -> None:
        """Call `fail`, which ends this process, with the failure of another rank, once nothing is being written."""

        def end(failure: Failure) -> None:
            self._has_news.set()
            self.writing.acquire(timeout=_LONGEST_WRITING_SECONDS)
            fail(failure)

        for member in self._members:
            threading.Thread(target=_watch, args=(member, end), name=f"rank-{member.rank}", daemon=True).start()

    def wait_for_news(self) -> None:
        """Return after some seconds, unless a rank has ended: `watch` tells that better than a lost connection does."""
        if self._has_news.wait(_NEWS_SECONDS):
            threading.Event().wait()  # until `watch` has ended this process

    def be_replica(self, work: Callable[[], None]) -> None:
        """Be another rank than 0 for the rest of this process's life: do `work`, and report a failure of it."""
        # Rank 0 decides after which step they leave. Blocked, not ignored: Lightning sets a handler of its own.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=self._tick, name="tick", daemon=True).start()
        try:
            work()
        except Exception as error:
            os.write(self._report, json.dumps(asdict(failure_of(error))).encode() + b"\n")
            raise
        while True:
            signal.pause()  # until rank 0 has ended

    def _tick(self) -> None:
        while True:
            os.write(self._report, b"\n")
            time.sleep(TICK_SECONDS)


_team = Team()


def current_team() -> Team:
    """Return the ranks to which this process belongs; it alone unless `form_team` said otherwise."""
    return _team


def form_team(size: int, die_with: Callable[[int], Any]) -> Team:
    """Fork the other ranks of this process, which has no threads yet, and return the team, in each of them.

    `die_with` has a process end with another.
    """
    global _team
    if size > 1:
        _team = _fork_others(size, die_with)
    return _team


def _fork_others(size: int, die_with: Callable[[int], Any]) -> Team:
    leader = os.getpid()
    listener = socket.create_server((LOOPBACK, 0), backlog=size)
    port = listener.getsockname()[1]
    members: list[_Member] = []
    for rank in range(1, size):
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            die_with(leader)
            listener.close()
            for descriptor in (read_end, *(member.reports for member in members)):
                os.close(descriptor)
            return Team(rank=rank, size=size, port=port, _report=write_end)
        os.close(write_end)
        members.append(_Member(rank=rank, pid=pid, reports=read_end))
    return Team(size=size, port=port, listener=listener, _members=members)


def _watch(member: _Member, fail: Callable[[Failure], None]) -> None:
    with os.fdopen(member.reports, encoding="utf-8") as reports:
        for line in reports:
            member.seen = time.monotonic()
            if line.strip():
                fail(Failure(**json.loads(line)))
    _, status = os.waitpid(member.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    fail(failure_of(ProcessDiedError(f"rank {member.rank} of the training {how}")))
