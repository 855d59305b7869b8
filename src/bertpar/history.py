"""Reads the histories that Temporal keeps of workflows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure as FailureMessage
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import Client

from bertpar.events import Failure
from bertpar.payloads import DATA_CONVERTER
from bertpar.workflows.failures import describe_failure

T = TypeVar("T")

History = Sequence[HistoryEvent]
"""Of one execution. A run's workflows have several only where its best checkpoint was damaged and made again."""

_ASKED_TO_END = "activity_task_cancel_requested_event_attributes"
"""Says nothing yet: how the activity took it comes later."""


async def recall(client: Client, workflow_id: str) -> tuple[Sequence[History], Sequence[PendingActivityInfo]]:
    """Return the histories of all executions of a workflow, oldest first, and the activities that have not ended."""
    found = [execution async for execution in client.list_workflows(f"WorkflowId = '{workflow_id}'")]
    handles = [
        client.get_workflow_handle(workflow_id, run_id=execution.run_id)
        for execution in sorted(found, key=lambda execution: execution.start_time)
    ]
    histories = [[event async for event in handle.fetch_history_events()] for handle in handles]
    described = [await handle.describe() for handle in handles[-1:]]  # of the others nothing is pending
    return histories, [activity for d in described for activity in d.raw_description.pending_activities]


def telling_events(history: History) -> Iterator[tuple[HistoryEvent, str, Any]]:
    """Yield the events that say what has become of something, each with its kind and what it says."""
    for event in history:
        kind = event.WhichOneof("attributes")
        assert kind is not None
        if kind != _ASKED_TO_END:
            yield event, kind, getattr(event, kind)


def event_time(event: HistoryEvent) -> datetime:
    return utc(event.event_time)


def utc(timestamp: Any) -> datetime:
    """Return a protobuf timestamp as an aware datetime."""
    moment: datetime = timestamp.ToDatetime(tzinfo=UTC)
    return moment


def decoded(payload: Payload, cls: type[T]) -> T:
    """Return what a payload holds, checked against its type."""
    value: T = DATA_CONVERTER.payload_converter.from_payload(payload, cls)
    return value


def decoded_error(failure: FailureMessage) -> BaseException:
    """Return a failure as the exception that a workflow sees."""
    return DATA_CONVERTER.failure_converter.from_failure(failure, DATA_CONVERTER.payload_converter)


def described_in(holder: Any, field: str) -> Failure | None:
    """Return the failure in a field of a message, as workflows describe it; None where the field is not set."""
    return describe_failure(decoded_error(getattr(holder, field))) if holder.HasField(field) else None
