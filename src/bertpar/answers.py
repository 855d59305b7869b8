"""What workflows answer when they are asked; and their answers kept for those who ask again and again."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

from temporalio.client import Client, WorkflowExecutionDescription, WorkflowQueryFailedError
from temporalio.service import RPCError, RPCStatusCode

from bertpar.errors import NotFoundError, WorkflowStuckError

T = TypeVar("T")

_NO_SUCH_QUESTION = "expected but not found"
"""How the SDK's worker refuses a query that its workflow does not define."""


class Answers:
    """Workflows' answers, each kept for as long as nothing happens to its workflow.

    Whether anything has, the server alone can tell. To answer, a worker has to replay the workflow's history, and then
    forgets the workflow (workflow_cache.py).
    """

    def __init__(self) -> None:
        self._kept: dict[str, tuple[tuple[str, int], Any]] = {}
        """By workflow id, with the execution and the length of its history before it was asked."""
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def to(
        self, client: Client, workflow_id: str, question: Callable[[Any], T]
    ) -> tuple[T, WorkflowExecutionDescription]:
        """Return a workflow's present answer to its one question, and what the server says of it.

        Raises:
            NotFoundError, WorkflowStuckError, RPCError: as `query`.
        """
        described = await describe(client, workflow_id)
        return await self.of(client, described, question), described

    async def of(self, client: Client, described: WorkflowExecutionDescription, question: Callable[[Any], T]) -> T:
        """Return the answer of a workflow that the server has just described.

        Raises:
            NotFoundError, WorkflowStuckError, RPCError: as `query`.
        """
        moment = (described.run_id, described.history_length)
        async with self._locks[described.id]:  # who asks at the same time takes the same answer
            kept = self._kept.get(described.id)
            if kept is None or kept[0] != moment:
                kept = self._kept[described.id] = moment, await query(client, described.id, question)
        answer: T = kept[1]
        return answer


async def describe(client: Client, workflow_id: str) -> WorkflowExecutionDescription:
    """Return what the server says of a workflow.

    Raises:
        NotFoundError: there is none.
        RPCError: the server does not answer.
    """
    try:
        return await client.get_workflow_handle(workflow_id).describe()
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            raise unknown_sweep(workflow_id) from error
        raise


async def query(client: Client, workflow_id: str, question: Callable[[Any], T]) -> T:
    """Return a workflow's answer.

    Raises:
        NotFoundError: no such workflow, or not of the kind that understands the question.
        WorkflowStuckError: it is there and understands, but cannot answer.
        RPCError: the server or the evaluation worker does not answer.
    """
    other_kind = f"{workflow_id} is a workflow of another kind; `bertpar ls` lists the sweeps"
    try:
        return await client.get_workflow_handle(workflow_id).query(question)
    except ValueError as error:  # the answer of another kind of workflow
        raise NotFoundError(other_kind) from error
    except WorkflowQueryFailedError as error:
        if _NO_SUCH_QUESTION in error.message:
            raise NotFoundError(other_kind) from error
        raise _stuck(workflow_id, error.message) from error
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            raise unknown_sweep(workflow_id) from error
        if error.status == RPCStatusCode.FAILED_PRECONDITION:
            raise _stuck(workflow_id, error.message) from error
        raise


def unknown_sweep(name: str) -> NotFoundError:
    """Return the error for a name that is no sweep's; one that has a run's form is told as that."""
    sweep_id, _, index = name.rpartition("/")
    if sweep_id and index.isdecimal():
        return NotFoundError(
            f"{name} names a run, not a sweep: its sweep is {sweep_id}; bertpar why {name} tells of it"
        )
    return NotFoundError(f"{name} does not exist; `bertpar ls` lists the sweeps")


def _stuck(workflow_id: str, reason: str) -> WorkflowStuckError:
    return WorkflowStuckError(
        f"workflow {workflow_id} cannot answer: {reason.strip().rstrip('.')}. Its worker may run other code than the "
        "one it began with; the evaluation worker's log and Temporal's page of the workflow say more"
    )
