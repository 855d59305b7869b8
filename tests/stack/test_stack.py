"""The local stack for real: shared, kept alive, stopped in order, and durable."""

from __future__ import annotations

import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import psutil
import pytest
from google.protobuf.duration_pb2 import Duration
from temporalio import workflow
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest

from bertpar import stack
from bertpar.client import connect, connect_to_address, temporal_spec, uses_local_stack, web_ui
from bertpar.errors import ConfigError, ConnectionFailedError, StackError
from bertpar.paths import Home
from bertpar.stack import Stack
from bertpar.worker import make_worker
from tests.stack.helpers import processes_of, wait_for

SERVICES = {"supervisor", "temporal", "eval_worker", "training_worker"}


@workflow.defn(sandboxed=False)
class Echo:
    """The smallest workflow."""

    @workflow.run
    async def run(self, text: str) -> str:
        return text


def services_of(home: Home) -> set[int]:
    """Return the stack's processes but for the templates, which workers start by and by to fork jobs from."""
    return {pid for pid in processes_of(home) if not _is_template(pid)}


def _is_template(pid: int) -> bool:
    try:
        return "bertpar.template" in psutil.Process(pid).cmdline()
    except psutil.NoSuchProcess:
        return True


def restarted(home: Home, role: str, old_pid: int) -> Stack:
    def find() -> Stack | None:
        now = stack.read(home)
        return now if now and now.state == "up" and now.pids.get(role, old_pid) != old_pid else None

    return wait_for(find, f"new {role}")


def test_two_commands_at_once_share_one_stack(home: Home) -> None:
    assert stack.read(home) is None
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda _: stack.ensure_up(home, slots=1), range(2))
    assert one.pids == two.pids
    assert set(one.pids) == SERVICES
    assert services_of(home) == set(one.pids.values())
    assert stack.read(home) == one


def test_all_services_listen_on_loopback_alone(home: Home) -> None:
    server = psutil.Process(stack.ensure_up(home).pids["temporal"])
    listening = [c.laddr.ip for c in server.net_connections() if c.status == psutil.CONN_LISTEN]
    assert listening
    assert set(listening) == {"127.0.0.1"}


def test_another_number_of_slots_is_refused_while_it_runs(home: Home) -> None:
    stack.ensure_up(home, slots=1)
    with pytest.raises(StackError, match="slots=1, not 3"):
        stack.ensure_up(home, slots=3)


async def test_closed_workflows_are_kept_for_years(home: Home) -> None:
    client = await connect(temporal_spec(), home)
    answer = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace="default"))
    kept: Duration = answer.config.workflow_execution_retention_ttl
    assert kept.ToTimedelta() >= timedelta(days=3650)


async def test_the_local_stack_is_used_unless_a_cluster_is_named(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert uses_local_stack(temporal_spec())
    assert not uses_local_stack(temporal_spec("127.0.0.1:1"))
    assert web_ui(temporal_spec(), home) == f"{stack.ensure_up(home).temporal_ui}/namespaces/default"
    assert web_ui(temporal_spec("ns.acc.tmprl.cloud:7233", "ns.acc"), home) is not None
    monkeypatch.setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
    assert not uses_local_stack(temporal_spec())


async def test_a_queue_that_no_local_worker_serves_is_refused(home: Home) -> None:
    with pytest.raises(ConfigError, match=r"temporal\.training_queue=mine"):
        await connect(replace(temporal_spec(), training_queue="mine"), home)


async def test_a_namespace_that_does_not_exist_is_named(home: Home) -> None:
    address = stack.ensure_up(home).temporal_address
    with pytest.raises(ConfigError, match=r"temporal\.namespace=nowhere does not exist"):
        await connect(temporal_spec(address, "nowhere"), home)


async def test_an_unreachable_address_is_known_at_once(home: Home) -> None:
    with pytest.raises(ConnectionFailedError, match=r"temporal\.address=127\.0\.0\.1:1 cannot be reached"):
        await connect(temporal_spec("127.0.0.1:1"), home)


async def test_an_address_that_never_answers_is_given_up_within_seconds(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bertpar.client._CONNECT_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ConnectionFailedError, match=address):
            await connect(temporal_spec(address), home)


async def test_a_command_connects_through_a_restart_of_the_server(home: Home) -> None:
    before = stack.ensure_up(home)
    os.kill(before.pids["temporal"], signal.SIGKILL)
    client = await connect(temporal_spec(), home)
    assert await client.count_workflows() is not None
    assert restarted(home, "temporal", before.pids["temporal"]).temporal_address == before.temporal_address


@pytest.mark.parametrize("role", ["training_worker", "eval_worker", "temporal"])
def test_a_killed_service_is_started_again(home: Home, role: str) -> None:
    before = stack.ensure_up(home)
    os.kill(before.pids[role], signal.SIGKILL)
    after = restarted(home, role, before.pids[role])
    assert {r: pid for r, pid in after.pids.items() if r != role} == {
        r: pid for r, pid in before.pids.items() if r != role
    }


def test_a_killed_supervisor_takes_all_with_it_and_the_next_command_starts_anew(home: Home) -> None:
    stack.down(home)
    before = stack.ensure_up(home, slots=1)
    os.kill(before.pids["supervisor"], signal.SIGKILL)
    wait_for(lambda: processes_of(home) == [], "end of the services")
    assert stack.read(home) is None
    after = stack.ensure_up(home)
    assert set(after.pids.values()).isdisjoint(before.pids.values())
    assert after.temporal_address == before.temporal_address
    assert after.slots == before.slots == 1
    assert services_of(home) == set(after.pids.values())


async def test_workflows_outlive_the_stack(home: Home) -> None:
    client = await connect(temporal_spec(), home)
    await client.start_workflow(Echo.run, "still here", id="echo", task_queue="echo-queue")
    assert stack.down(home)
    assert processes_of(home) == []
    assert stack.read(home) is None
    assert not stack.down(home)

    again = stack.ensure_up(home)
    client = await connect_to_address(again.temporal_address, again.namespace)
    worker = make_worker("eval", client, queue="echo-queue", num_slots=1, workflows=[Echo], activities=[])
    async with worker:
        assert await client.get_workflow_handle_for(Echo.run, "echo").result() == "still here"


def test_a_deleted_home_ends_its_stack(home: Home) -> None:
    stack.ensure_up(home)
    home.lock_file.unlink()
    wait_for(lambda: processes_of(home) == [], "end of the stack")


def test_a_chosen_port_that_is_taken_is_named(home: Home) -> None:
    stack.down(home)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=f"port={port} on 127.0.0.1 is taken"):
            stack.ensure_up(home, port=port)


def test_mlflows_page_comes_on_demand_and_leaves_nothing_behind(home: Home) -> None:
    url = stack.request_mlflow_ui(home)
    assert stack.request_mlflow_ui(home) == url
    running = stack.read(home)
    assert running is not None
    assert running.mlflow_ui == url
    assert len(processes_of(home)) > len(running.pids)  # the server has children of its own
    stack.down(home)
    assert processes_of(home) == []
