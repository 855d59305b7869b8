"""The SDK's core does not write into the terminal of a client."""

from __future__ import annotations

import subprocess
import sys

from bertpar import stack
from bertpar.paths import Home

ASK_DURING_AN_OUTAGE = """
import asyncio, sys
from pathlib import Path

from temporalio.service import RPCError

from bertpar import stack
from bertpar.client import connect, temporal_spec
from bertpar.cli import leave
from bertpar.paths import Home


async def ask() -> None:
    home = Home(Path(sys.argv[1]))
    client = await connect(temporal_spec(), home)
    stack.down(home)
    try:
        await client.count_workflows()
    except RPCError:
        print("no answer")


asyncio.run(ask())
leave(0)
"""


def test_a_client_of_a_server_that_went_away_prints_nothing_of_the_sdks_own(home: Home) -> None:
    stack.ensure_up(home)
    done = subprocess.run(
        [sys.executable, "-c", ASK_DURING_AN_OUTAGE, str(home.root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "no answer\n")
