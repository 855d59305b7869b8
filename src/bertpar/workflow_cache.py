"""The workflows that a worker keeps between their tasks, and when it must forget one.

A question to a workflow that has nothing to do waits at the server for a worker: for long where that is busy, or was
killed. It then reaches one together with the events that came meanwhile, and the workflow takes these in, to answer.
But no workflow task has begun with just these events: the next one brings further events, and whoever replays it takes
in all of them at once, which can give commands in another order. So a workflow that has answered may be ahead of its
history, and must not go on. It is forgotten before its answer leaves, and the next task replays it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.worker import Worker, WorkflowInstance, WorkflowInstanceDetails, WorkflowRunner
from temporalio.workflow import _Definition

_DIRECT_QUESTION = "legacy_query"
"""The id of every query that comes by itself. Others come with a workflow task, and see just its events."""


class ForgetfulRunner(WorkflowRunner):
    """Runs workflows as another runner does, and has each forgotten that is asked a question by itself."""

    def __init__(self, inner: WorkflowRunner, forget: Callable[[str], None]) -> None:
        """`forget` is called with the run id of the workflow's execution, before the question is answered."""
        self._inner = inner
        self._forget = forget

    def prepare_workflow(self, defn: _Definition) -> None:
        self._inner.prepare_workflow(defn)

    def set_worker_level_failure_exception_types(self, types: Sequence[type[BaseException]]) -> None:
        self._inner.set_worker_level_failure_exception_types(types)

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        instance = self._inner.create_instance(det)
        activate = instance.activate

        def tell_and_activate(act: WorkflowActivation) -> WorkflowActivationCompletion:
            if any(job.query_workflow.query_id == _DIRECT_QUESTION for job in act.jobs):
                self._forget(act.run_id)
            return activate(act)

        instance.activate = tell_and_activate  # type: ignore[method-assign]
        return instance


def forget(worker: Worker, run_id: str) -> None:
    """Have `worker` remove a workflow from its cache as soon as what it does is done; callable from any thread."""
    bridge: Any = worker._bridge_worker
    bridge.request_workflow_eviction(run_id)
