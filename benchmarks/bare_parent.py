"""What anybody would write without bertpar: a parent whose children do activities, with Temporal's SDK alone."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import activity, workflow

NUM_ACTIVITIES = 5
"""Of one child: as many as a run of a sweep has (claim, open, train, evaluate, close)."""


@activity.defn
async def do_nothing(name: str) -> str:
    return name


@workflow.defn
class BareChild:
    @workflow.run
    async def run(self, name: str) -> str:
        for _ in range(NUM_ACTIVITIES):
            name = await workflow.execute_activity(do_nothing, name, start_to_close_timeout=timedelta(minutes=1))
        return name


@workflow.defn
class BareParent:
    @workflow.run
    async def run(self, num_children: int) -> int:
        """Return how many children have ended: all, which run at the same time."""
        parent_id = workflow.info().workflow_id
        children = (
            workflow.execute_child_workflow(BareChild.run, str(index), id=f"{parent_id}/{index}")
            for index in range(num_children)
        )
        return len(await asyncio.gather(*children))
