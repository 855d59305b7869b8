"""A stack that died is started again by whoever looks at it next; one that was stopped is not."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import psutil
import pytest
from temporalio.client import Client

from bertpar import cli, stack
from bertpar.client import connect, temporal_spec
from bertpar.paths import Home
from bertpar.patience import PatientClient
from bertpar.stack import control
from bertpar.stack.record import last_record, write_record
from tests.stack.helpers import processes_of, wait_for


def kill_everything(home: Home) -> None:
    """Kill supervisor, services and templates at once, as a power cut would, and wait for their ends."""
    killed = []
    while found := processes_of(home):
        for pid in found:
            with suppress(psutil.NoSuchProcess):
                killed.append(psutil.Process(pid))
                killed[-1].kill()
    psutil.wait_procs(killed, timeout=10)  # a dying process still holds its port


async def count_workflows(client: Client) -> int:
    return (await client.count_workflows()).count


@pytest.fixture
async def patient(home: Home) -> PatientClient:
    return PatientClient(await connect(temporal_spec(), home), temporal_spec(), home)


def test_what_never_was_up_is_not_started(home: Home) -> None:
    assert stack.heal(home) is None
    assert processes_of(home) == []


def test_status_starts_a_stack_again_that_was_killed_whole(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERTPAR_HOME", str(home.root))
    before = stack.ensure_up(home, slots=1)
    kill_everything(home)
    assert cli.run(["status", "--json"]) == 0
    said = capsys.readouterr()
    description = json.loads(said.out)
    assert description["state"] == "up"
    assert set(description["pids"].values()).isdisjoint(before.pids.values())
    assert description["temporal_address"] == before.temporal_address
    assert "died; starting it again" in said.err


def test_after_a_reboot_in_order_it_is_started_again_whatever_its_old_pids_are_now(home: Home) -> None:
    supervisor = stack.ensure_up(home).pids["supervisor"]
    os.kill(supervisor, signal.SIGTERM)
    wait_for(lambda: processes_of(home) == [], "end of the stack")
    left = last_record(home)
    assert left is not None
    write_record(home, replace(left, state="up", pids=dict.fromkeys(("supervisor", "temporal"), os.getpid())))
    healed = stack.heal(home)
    assert healed is not None
    assert healed.state == "up"


def test_two_who_heal_at_once_share_one_stack(home: Home) -> None:
    stack.ensure_up(home)
    kill_everything(home)
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda _: stack.heal(home), range(2))
    assert one is not None
    assert two is not None
    assert one.pids == two.pids


def test_what_runs_is_left_alone(home: Home) -> None:
    assert stack.heal(home) == stack.ensure_up(home)


def test_what_was_stopped_stays_down(home: Home) -> None:
    stack.ensure_up(home)
    stack.down(home)
    assert stack.heal(home) is None
    assert processes_of(home) == []


def test_what_died_and_was_then_stopped_stays_down(home: Home) -> None:
    stack.ensure_up(home)
    kill_everything(home)
    stack.down(home)
    assert stack.heal(home) is None


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_stop_at_the_same_moment_wins(home: Home, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    stack.ensure_up(home)
    kill_everything(home)
    launch: Callable[..., Any] = control._launch

    def launch_and_stop(*arguments: Any) -> Any:
        launched = launch(*arguments)
        assert stack.down(home)
        return launched

    if when == "after":
        monkeypatch.setattr(control, "_launch", launch_and_stop)
    assert stack.heal(home, on_wait=lambda _text: when == "before" and stack.down(home)) is None
    assert processes_of(home) == []


async def test_a_client_that_waits_starts_a_dead_stack_again_and_says_so_once(
    home: Home, patient: PatientClient, capsys: pytest.CaptureFixture[str]
) -> None:
    await patient.ask(count_workflows)
    assert capsys.readouterr().err == ""
    kill_everything(home)
    for _ in range(3):
        await patient.ask(count_workflows)
    said = capsys.readouterr().err
    assert said.count("died; starting it again") == 1
    assert said.count("Temporal answers again") == 1


async def test_a_client_finds_the_stack_at_another_port(home: Home, patient: PatientClient) -> None:
    before = stack.ensure_up(home)
    kill_everything(home)
    with socket.create_server(("127.0.0.1", before.temporal_port)):
        await patient.ask(count_workflows)
        now = stack.read(home)
    assert now is not None
    assert now.temporal_port != before.temporal_port
    await patient.ask(count_workflows)


async def test_a_client_waits_for_a_stack_that_was_stopped_and_does_not_start_it(
    home: Home, patient: PatientClient, capsys: pytest.CaptureFixture[str]
) -> None:
    stack.down(home)
    asking = asyncio.create_task(patient.ask(count_workflows))
    await asyncio.sleep(3)
    assert not asking.done()
    assert processes_of(home) == []
    assert capsys.readouterr().err.count("the local stack was stopped (bertpar down)") == 1
    await asyncio.to_thread(stack.ensure_up, home)
    await asking


async def test_a_client_of_a_cluster_waits_and_touches_nothing_local(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = temporal_spec(stack.ensure_up(home).temporal_address)
    patient = PatientClient(await connect(cluster, home), cluster, home)
    kill_everything(home)
    asking = asyncio.create_task(patient.ask(count_workflows))
    said = ""
    async with asyncio.timeout(20):
        while "waiting for Temporal" not in said:
            await asyncio.sleep(0.1)
            said += capsys.readouterr().err
    assert processes_of(home) == []
    await asyncio.to_thread(stack.ensure_up, home)
    await asking
