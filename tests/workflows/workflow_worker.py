"""A worker for workflows alone, in a process that tests can kill: `python -m ... ADDRESS QUEUE`."""

from __future__ import annotations

import asyncio
import sys

from temporalio.client import Client

from bertpar.payloads import DATA_CONVERTER
from bertpar.worker import make_worker
from bertpar.workflows import WORKFLOWS


async def main(address: str, queue: str) -> None:
    client = await Client.connect(address, data_converter=DATA_CONVERTER)
    async with make_worker("eval", client, queue=queue, num_slots=1, workflows=WORKFLOWS, activities=[]):
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
