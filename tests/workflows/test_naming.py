"""Sweeps and runs that are named by parts of their ids, asked of a real server."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
from temporalio.client import (
    Client,
    Interceptor,
    ListWorkflowsInput,
    OutboundInterceptor,
    WorkflowExecutionAsyncIterator,
)

from bertpar import cli
from bertpar.errors import NotFoundError
from bertpar.naming import resolve_run, resolve_sweep, resolve_target
from tests.workflows.conftest import Script, Sweep, running_sweep

TAG = uuid.uuid4().hex[:6]


class _NoLists(OutboundInterceptor):
    def list_workflows(self, input: ListWorkflowsInput) -> WorkflowExecutionAsyncIterator:
        raise AssertionError("all workflows were asked for")


class NoLists(Interceptor):
    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:
        return _NoLists(next)


@pytest.fixture(scope="module")
async def sweeps(server: object) -> AsyncIterator[tuple[Sweep, Sweep]]:
    """A sweep of two runs and, newer, one of a single run, with ids that begin alike."""
    client: Client = server.client  # type: ignore[attr-defined]
    async with running_sweep(client, Script()) as many, running_sweep(client, Script()) as single:
        many.sweep_id, single.sweep_id = f"named{TAG}-0101-000000-aa{TAG}", f"named{TAG}-0102-000000-bb{TAG}"
        await many.run(many.ref(0), many.ref(1))
        await single.run(single.ref(0))
        yield many, single


async def test_any_part_that_is_unambiguous_names_a_sweep_or_a_run(sweeps: tuple[Sweep, Sweep], client: Client) -> None:
    many, _ = sweeps
    for text in (f"aa{TAG}", f"aa{TAG[:3]}", f"named{TAG}-0101"):
        assert await resolve_sweep(client, text) == many.sweep_id
        assert await resolve_target(client, text) == many.sweep_id
        assert await resolve_run(client, f"{text}/1") == f"{many.sweep_id}/1"
        assert await resolve_target(client, f"{text}/1") == f"{many.sweep_id}/1"


async def test_last_is_the_newest_sweep(sweeps: tuple[Sweep, Sweep], client: Client) -> None:
    async with running_sweep(client, Script()) as newest:
        await newest.run(newest.ref(0))
        assert await resolve_sweep(client, "last") == newest.sweep_id
        assert await resolve_run(client, "last/0") == f"{newest.sweep_id}/0"


async def test_an_exact_id_costs_no_list_of_all_sweeps(sweeps: tuple[Sweep, Sweep], client: Client) -> None:
    many, _ = sweeps
    config = client.config()
    config["interceptors"] = [NoLists()]
    without_lists = Client(**config)
    assert await resolve_sweep(without_lists, many.sweep_id) == many.sweep_id
    assert await resolve_run(without_lists, f"{many.sweep_id}/1") == f"{many.sweep_id}/1"
    with pytest.raises(AssertionError):
        await resolve_sweep(without_lists, f"aa{TAG}")


async def test_a_sweep_of_one_run_names_its_run_and_one_of_several_none(
    sweeps: tuple[Sweep, Sweep], client: Client
) -> None:
    _, single = sweeps
    assert await resolve_run(client, f"bb{TAG}") == f"{single.sweep_id}/0"
    with pytest.raises(NotFoundError, match=rf"aa{TAG} is a sweep of 2 runs: .* aa{TAG}/0 to aa{TAG}/1"):
        await resolve_run(client, f"aa{TAG}")


async def test_an_ambiguous_text_lists_whom_it_may_mean(
    sweeps: tuple[Sweep, Sweep], client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    many, single = sweeps
    address = client.service_client.config.target_host
    assert await asyncio.to_thread(cli.run, ["status", f"named{TAG}", "--address", address]) == 2
    told = capsys.readouterr().err
    assert f"named{TAG} is ambiguous; it stands for 2 sweeps" in told
    newest, oldest = told.splitlines()[1:]
    assert newest.split()[:3] == [single.sweep_id, "completed", "started"]
    assert oldest.split()[:3] == [many.sweep_id, "completed", "started"]


async def test_an_unknown_text_lists_what_it_is_near_to(sweeps: tuple[Sweep, Sweep], client: Client) -> None:
    many, _ = sweeps
    with pytest.raises(NotFoundError, match=f"does not exist; `bertpar ls` .* Near it:\n  {many.sweep_id}"):
        await resolve_sweep(client, f"named{TAG}-0101-000001-aa{TAG}")
    with pytest.raises(NotFoundError, match="The newest:\n"):
        await resolve_sweep(client, "?" * 5000)


async def test_a_run_or_another_workflow_is_no_sweep(sweeps: tuple[Sweep, Sweep], client: Client) -> None:
    many, _ = sweeps
    with pytest.raises(NotFoundError, match="names a run, not a sweep"):
        await resolve_sweep(client, f"{many.sweep_id}/0")
    with pytest.raises(NotFoundError, match="workflow of another kind"):
        await resolve_sweep(client, f"{many.sweep_id}/0/train")


async def test_a_shell_completes_sweeps_and_runs(
    sweeps: tuple[Sweep, Sweep], client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    many, single = sweeps
    address = client.service_client.config.target_host
    monkeypatch.setenv("_BERTPAR_COMPLETE", "bash_complete")
    # what is measured here is the answer, not how soon this machine gives it
    monkeypatch.setattr("bertpar.cli.completion._PATIENCE_SECONDS", 1e6)

    async def completed(*words: str) -> list[str]:
        monkeypatch.setenv("COMP_WORDS", " ".join(["bertpar", *words]))
        monkeypatch.setenv("COMP_CWORD", str(len(words)))
        await asyncio.to_thread(cli.run, [])
        answer = capsys.readouterr()
        assert answer.err == ""
        return [line.split(",", 1)[1] for line in answer.out.split()]

    where = ("--address", address)
    assert await completed("status", *where, f"named{TAG}") == [single.sweep_id, many.sweep_id]
    assert await completed("why", *where, f"named{TAG}") == [single.sweep_id, many.sweep_id]
    assert await completed("why", *where, f"aa{TAG}") == [f"{many.sweep_id}/0", f"{many.sweep_id}/1"]
    assert await completed("why", *where, f"aa{TAG}/1") == [f"{many.sweep_id}/1"]
    assert await completed("status", "--address", "127.0.0.1:1", "n") == []
