"""MLflow's page for real: whichever of its processes is killed, one healthy page comes back at the same address."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress

import psutil
import pytest

from bertpar import stack
from bertpar.paths import Home
from bertpar.stack.roles import is_healthy
from tests.stack.helpers import processes_of, wait_for


def page_processes(home: Home) -> list[int]:
    """Return the process that the supervisor started for the page, and its children's pids."""
    running = stack.read(home)
    assert running is not None
    leader = running.pids["mlflow"]
    return [leader, *(child.pid for child in psutil.Process(leader).children(recursive=True))]


def the_parent_alone(pids: list[int]) -> None:
    os.kill(pids[0], signal.SIGKILL)


def a_child_alone(pids: list[int]) -> None:
    os.kill(pids[-1], signal.SIGKILL)


def the_whole_group(pids: list[int]) -> None:
    os.killpg(pids[0], signal.SIGKILL)


@pytest.mark.parametrize("kill", [the_parent_alone, a_child_alone, the_whole_group])
def test_a_killed_page_comes_back_once_and_at_the_same_address(home: Home, kill: Callable[[list[int]], None]) -> None:
    url = stack.request_mlflow_ui(home)
    before = page_processes(home)
    assert len(before) > 1
    kill(before)

    def is_back() -> bool:
        with suppress(KeyError, psutil.NoSuchProcess):
            return page_processes(home)[0] != before[0] and is_healthy(url)
        return False

    wait_for(is_back, "page", seconds=60)
    assert stack.request_mlflow_ui(home) == url
    assert set(processes_of(home)).isdisjoint(before)
    group = os.getpgid(page_processes(home)[0])
    serving = {
        c.pid
        for c in psutil.net_connections("inet")
        if c.status == psutil.CONN_LISTEN and c.laddr.port == int(url.rsplit(":", 1)[1])
    }
    assert {os.getpgid(pid) for pid in serving if pid is not None} == {group}
