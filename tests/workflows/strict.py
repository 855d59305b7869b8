"""Temporal's sandbox, in which tests run bertpar's workflows: it refuses what would make a replay differ."""

from __future__ import annotations

from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

# Shared with the sandbox instead of being imported anew for each workflow: all of it deterministic.
_PASSED_THROUGH = (
    "bertpar.claims",
    "bertpar.errors",
    "bertpar.events",
    "bertpar.mlflow_jobs",
    "bertpar.payloads",
    "bertpar.states",
    "bertpar.spec",
    "pydantic",
    "pydantic_core",
    "annotated_types",
)


def sandbox() -> SandboxedWorkflowRunner:
    """Return a runner that runs each workflow with modules of its own, and without clock, randomness or files."""
    return SandboxedWorkflowRunner(restrictions=SandboxRestrictions.default.with_passthrough_modules(*_PASSED_THROUGH))
