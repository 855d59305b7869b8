"""Any number of clients may look at a sweep at once."""

from __future__ import annotations

import asyncio

from temporalio.client import Client

from bertpar.workflows import CoordinatorWorkflow
from tests.workflows.conftest import Script, running_sweep

SECONDS_UNTIL_LOST = 15.0
"""A question that the worker has dropped is given up after thirty."""


async def test_every_one_of_many_questions_at_once_is_answered(client: Client) -> None:
    async with running_sweep(client, Script(), kept=True) as sweep:
        await sweep.run(sweep.ref(0))
        handle = client.get_workflow_handle(sweep.sweep_id)
        for num_questions in (4, 8, 16):
            asked = [handle.query(CoordinatorWorkflow.status) for _ in range(num_questions)]
            async with asyncio.timeout(SECONDS_UNTIL_LOST):
                answers = await asyncio.gather(*asked)
            assert {answer.status for answer in answers} == {"completed"}
