"""The Python interface on a real stack: in a notebook's kernel, in a script, and under Ctrl-C and outages."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import nbclient
import nbformat
import pytest
from jupyter_client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel

import bertpar
from tests.e2e.conftest import ROOT, User, until

SLOW = ("experiment=smoke", "data.train_size=1000", "trainer.batch_size=8", "trainer.max_epochs=4", "cache=off")


@pytest.fixture
def at_home(user: User, monkeypatch: pytest.MonkeyPatch) -> User:
    """Let this very process be the user's."""
    monkeypatch.setenv("BERTPAR_HOME", str(user.home))
    return user


def documented_blocks() -> list[str]:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


def execute(user: User, monkeypatch: pytest.MonkeyPatch, cells: list[str]) -> list[list[Any]]:
    """Run the cells in a kernel of the user's, and return the outputs of each; an error in one fails the test."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(user.home / "jupyter"))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = nbclient.NotebookClient(notebook, kernel_name="python3", timeout=240)
    client.execute(cwd=str(user.home), env=user.environment)
    return [cell.outputs for cell in notebook.cells]


def texts(outputs: list[Any], kind: str = "text/plain") -> str:
    data = [output["data"].get(kind, "") for output in outputs if "data" in output]
    streams = [output["text"] for output in outputs if output.output_type == "stream" and kind == "text/plain"]
    return "\n".join([*data, *streams])


@pytest.fixture(scope="module")
def notebook(user: User) -> Iterator[dict[str, list[Any]]]:
    """The outputs of the documented cells, by a word of each."""
    user.home.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as monkeypatch:
        blocks = documented_blocks()
        yield dict(zip(blocks, execute(user, monkeypatch, blocks), strict=True))


def output_of(notebook: dict[str, list[Any]], word: str, kind: str = "text/plain") -> str:
    (found,) = [outputs for block, outputs in notebook.items() if word in block]
    return texts(found, kind)


def test_every_documented_block_runs_in_a_notebook(notebook: dict[str, list[Any]]) -> None:
    assert "lr=0.001" in output_of(notebook, "import bertpar", "text/html")
    results = output_of(notebook, "sweep.results()", "text/html")
    assert results.count("completed") == 2
    assert "<th>val/accuracy</th>" in results
    assert output_of(notebook, "best.predict").count("'label'") == 2
    assert "CheckpointRef(" in output_of(notebook, "bertpar.attach")
    assert output_of(notebook, "live.cancel()") == "'cancelled'"
    steered = output_of(notebook, "live.drop", "text/html")
    assert (steered.count("lr"), steered.count("<td>cancelled</td>")) == (1, 1)
    planned = output_of(notebook, "bertpar.plan", "text/html")
    assert (planned.count("<td>cached</td>"), planned.count("<td>new</td>")) == (2, 1)
    assert "lr=fast must be a number > 0" in output_of(notebook, "lr=1e-3,fast")


def test_every_method_is_documented(notebook: dict[str, list[Any]]) -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    for name, kind in (("sweep", bertpar.Sweep), ("run", bertpar.Run)):
        for member in vars(kind):
            assert member.startswith("_") or f"`{name}.{member}" in page, f"{name}.{member}"


def test_following_in_a_notebook_leaves_one_table_which_is_the_ranking(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = "import bertpar\nbertpar.sweep('experiment=smoke', 'lr=1e-3', 'sweep.name=followed').follow()"
    (outputs,) = execute(user, monkeypatch, [start])
    (table,) = [output for output in outputs if output.output_type == "display_data"]
    assert ">completed</span>" in table["data"]["text/html"]
    assert ">rank</th>" in table["data"]["text/html"]


def test_a_script_waits_and_ends_in_order(user: User) -> None:
    code = "import bertpar; s = bertpar.sweep('experiment=smoke', 'lr=1e-3').wait(); print(s.status(), s.best().index)"
    assert user.run(sys.executable, "-c", code).stdout == "completed 0\n"


async def test_awaiting_survives_the_death_of_temporals_server(at_home: User) -> None:
    sweep = await asyncio.to_thread(bertpar.sweep, *SLOW, "lr=1e-3,3e-3")
    waiting = asyncio.ensure_future(_returned(sweep))
    await asyncio.to_thread(until, lambda: any(run.checkpoints() for run in sweep.runs))
    os.kill(at_home.stack()["pids"]["temporal"], signal.SIGKILL)
    assert not waiting.done()
    assert await waiting is sweep
    assert await asyncio.to_thread(sweep.status) == "completed"


async def _returned(sweep: bertpar.Sweep) -> bertpar.Sweep:
    return await sweep


def test_interrupting_the_waiting_leaves_the_sweep_and_says_so(at_home: User) -> None:
    code = f"import bertpar; s = bertpar.sweep(*{SLOW!r}, 'lr=1e-3'); print(s.sweep_id, flush=True); s.wait()"
    waiting = subprocess.Popen(
        [sys.executable, "-c", code],
        env=at_home.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert waiting.stdout is not None
    sweep_id = waiting.stdout.readline().strip()
    sweep = bertpar.attach(sweep_id)
    until(lambda: sweep.details()["runs"][0]["step"] > 0)
    waiting.send_signal(signal.SIGINT)
    _, said = waiting.communicate(timeout=60)
    assert f"interrupted: the sweep goes on.\n  follow it:  bertpar attach {sweep_id}" in said
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert sweep.status() == "running"
    assert sweep.wait().status() == "completed"


def test_what_does_not_exist_is_not_attached_to(at_home: User) -> None:
    with pytest.raises(bertpar.NotFoundError, match="no-such-sweep does not exist; `bertpar ls` lists the sweeps"):
        bertpar.attach("no-such-sweep")


def test_the_best_of_a_sweep_that_has_not_got_one_and_impossible_texts_are_refused(at_home: User) -> None:
    sweep = bertpar.sweep("experiment=smoke", "lr=1e-3", "trainer.max_epochs=3", "cache=off")
    with pytest.raises(bertpar.NotFoundError, match=f"no run of {sweep.sweep_id} has completed"):
        sweep.best()
    (run,) = sweep.runs
    for texts_, message in (("one", "takes a list"), ([], "no text"), (["a", " "], r"texts\[1\]=' ' must be")):
        with pytest.raises(bertpar.BertparError, match=message):
            run.predict(texts_)
    with pytest.raises(bertpar.BertparError, match="there are 1 texts, but 2 text_pairs"):
        run.predict(["a"], text_pairs=["b", "c"])
    sweep.wait()


@pytest.fixture
def kernel(user: User, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    """A notebook's kernel of the user's, to which cells are given one by one."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(user.home / "jupyter"))
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(user.home), env=user.environment)
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def message_of(client: BlockingKernelClient, kind: str) -> dict[str, Any]:
    """Return the content of the kernel's next message of that kind; an error that it reports instead fails the test."""
    while True:
        message = client.get_iopub_msg(timeout=120)
        if message["msg_type"] == kind:
            return dict(message["content"])
        assert message["msg_type"] != "error", message["content"]


def test_a_sweep_that_was_shown_is_redrawn_while_the_notebook_does_other_things(
    kernel: tuple[KernelManager, BlockingKernelClient],
) -> None:
    _, client = kernel
    client.execute(f"import bertpar; sweep = bertpar.sweep(*{SLOW!r}, 'lr=1e-3', 'sweep.name=shown'); sweep")
    shown = message_of(client, "display_data")
    client.execute("1 + 1")
    redrawn = message_of(client, "update_display_data")
    while "</span> (1 completed)</div>" not in redrawn["data"]["text/html"]:
        redrawn = message_of(client, "update_display_data")
    assert redrawn["transient"] == shown["transient"]  # it is the same table


def test_interrupting_a_cell_that_awaits_leaves_the_sweep_and_says_so(
    at_home: User, kernel: tuple[KernelManager, BlockingKernelClient]
) -> None:
    manager, client = kernel
    code = f"import bertpar; sweep = bertpar.sweep(*{SLOW!r}, 'lr=1e-3', 'sweep.name=awaited'); print(sweep.sweep_id)"
    client.execute(f"{code}\nawait sweep")
    sweep = bertpar.attach(message_of(client, "stream")["text"].strip())
    until(lambda: sweep.details()["runs"][0]["step"] > 0)
    manager.interrupt_kernel()
    assert (
        f"interrupted: the sweep goes on.\n  follow it:  bertpar attach {sweep.sweep_id}"
        in message_of(client, "stream")["text"]
    )
    assert message_of(client, "error")["ename"] == "CancelledError"
    assert sweep.status() == "running"
    sweep.cancel()


def test_a_live_sweep_is_steered(at_home: User) -> None:
    sweep = bertpar.sweep(*SLOW, "lr=1e-3,2e-3,3e-3", "sweep.max_parallel=1", "trainer.max_epochs=40")
    assert [run.index for run in sweep.drop("lr=2e-3")] == [1]
    (added,) = sweep.add("lr=5e-3")
    assert (added.index, dict(added.swept)) == (3, {"lr": "0.005"})
    with pytest.raises(bertpar.RefusedError):
        sweep.add("lr=5e-3")
    added.cancel()
    until(lambda: added.status() == "cancelled")
    added.retry()
    first, _, third, _ = sweep.runs
    until(lambda: first.status() == "training")
    third.priority("high", preempt=True)
    until(lambda: third.status() == "training")
    third.pause()
    until(lambda: third.status() == "paused")
    third.resume()
    sweep.set(max_parallel=None)
    with pytest.raises(bertpar.ConfigError, match="max_parallel=0 must be a whole number"):
        sweep.set(max_parallel=0)
    sweep.pause()
    until(lambda: {run.status() for run in sweep.runs}.isdisjoint(("training", "pausing", "waiting")))
    sweep.resume()
    assert sweep.cancel()
    assert sweep.wait().status() == "cancelled"
    assert not sweep.cancel()
    with pytest.raises(bertpar.RefusedError, match="has ended: cancelled"):
        sweep.pause()
