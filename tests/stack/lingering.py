"""A workflow for tests, apart from them so that the sandbox imports nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from temporalio import workflow


@dataclass(frozen=True, kw_only=True)
class Slow:
    duration: timedelta
    queue: str


@workflow.defn
class Lingering:
    """Run the activity `linger` on the queue asked for; it lasts for as long as asked."""

    @workflow.run
    async def run(self, work: Slow) -> str:
        result: str = await workflow.execute_activity(
            "linger", work, result_type=str, task_queue=work.queue, start_to_close_timeout=timedelta(minutes=1)
        )
        return result
