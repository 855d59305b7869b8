"""A client of Temporal that waits through outages, says so, and starts a local stack that has died again."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from temporalio.client import Client
from temporalio.service import RPCError

from bertpar import stack
from bertpar.client import connect_to_address, uses_local_stack
from bertpar.errors import ConnectionFailedError, StackError, WorkflowStuckError
from bertpar.paths import Home
from bertpar.spec import TemporalSpec

T = TypeVar("T")

_SECONDS_UNTIL_SAID = 5.0
_SECONDS_BETWEEN_REMINDERS = 30.0
_SECONDS_BETWEEN_TRIES = 1.0

_STOPPED = (
    "the local stack was stopped (bertpar down), and the sweep with it; both go on with: bertpar up. "
    "This client waits for that; Ctrl-C leaves"
)


def _print_to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class PatientClient:
    """Asks through outages. What it asks must be safe to ask again."""

    def __init__(
        self, client: Client, temporal: TemporalSpec, home: Home, *, say: Callable[[str], None] = _print_to_stderr
    ) -> None:
        """Take over `client`, which was made for `temporal`; `say` is how the user is told of outages."""
        self._client = client
        self._tell = say
        self._home = home
        self._is_local = uses_local_stack(temporal)
        self._said_at: dict[str, float] = {}
        """By kind of trouble, when it was last said; empty while all is well."""

    async def ask(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Return what `work` returns, as soon as Temporal is there for it."""
        while True:
            try:
                answer = await self._answer(work)
            except (RPCError, ConnectionFailedError) as error:
                self._say("away", f"waiting for Temporal ({error}); the sweep goes on without this client")
            except WorkflowStuckError as error:
                self._say("stuck", f"{error}. This client waits until it can; Ctrl-C leaves")
            except StackError as error:
                self._say("stack", str(error))
            else:
                if self._said_at:
                    self._said_at.clear()
                    self._tell("Temporal answers again")
                return answer
            await asyncio.sleep(_SECONDS_BETWEEN_TRIES)

    async def _answer(self, work: Callable[[Client], Awaitable[T]]) -> T:
        if self._is_local:
            await self._find_local_stack()
        working = asyncio.ensure_future(work(self._client))
        await asyncio.wait({working}, timeout=_SECONDS_UNTIL_SAID)
        if not working.done():
            self._say("away", "waiting for Temporal (no answer yet); the sweep goes on without this client")
        return await working

    async def _find_local_stack(self) -> None:
        """Start the local stack again if it died, and follow its server to another port."""
        running = await asyncio.to_thread(stack.heal, self._home, on_wait=lambda text: self._say("died", text))
        if running is None:
            raise StackError(_STOPPED)
        if running.temporal_address != self._client.service_client.config.target_host:
            self._client = await connect_to_address(running.temporal_address, running.namespace)

    def _say(self, kind: str, text: str) -> None:
        """Say `text`, unless something of its kind was said a moment ago."""
        now = time.monotonic()
        if kind not in self._said_at or now - self._said_at[kind] > _SECONDS_BETWEEN_REMINDERS:
            self._said_at[kind] = now
            self._tell(text)
