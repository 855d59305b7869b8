"""Running a sweep again does only what is missing, a plan says so beforehand, and changed code is never mixed in."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import ROOT, User, until

SMOKE = ("experiment=smoke", "data.train_size=64", "data.validation_size=16", "data.test_size=16")
LONG = (*SMOKE, "trainer.max_epochs=40", "trainer.validate_every_n_steps=8", "checkpoint.every_n_steps=4")


@dataclass
class Editor(User):
    """A user whose bertpar is a copy that can be edited."""

    source: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "PYTHONPATH": str(self.source)}

    def edit_training_code(self) -> None:
        with (self.source / "bertpar" / "training" / "module.py").open("a") as file:
            file.write("# a comment\n")


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Editor]:
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(ROOT / "src", home / "src")
    shutil.copytree(ROOT / "conf", home / "conf")  # found beside the copy, as beside a checkout
    user = Editor(home, home / "src")
    yield user
    user.bertpar("down", check=False)


def runs_of(user: User, sweep: str) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = user.json("status", sweep)["runs"]
    return runs


def plan(user: User, *overrides: str) -> list[dict[str, Any]]:
    planned: list[dict[str, Any]] = user.json("plan", *SMOKE, *overrides)
    return planned


def test_a_sweep_that_is_run_again_trains_nothing_and_a_larger_one_only_what_is_new(user: User) -> None:
    user.train(*SMOKE, "lr=1e-3,3e-3")
    first = user.newest_sweep()
    assert [p["verdict"] for p in plan(user, "lr=1e-3,2e-3,3e-3,2e-3")] == ["cached", "new", "cached", "duplicate"]

    again = user.train(*SMOKE, "lr=1e-3,3e-3")
    assert f"[0] lr=0.001: reused from {first}/0" in again.stdout
    assert "2 of 2 runs were computed before" in again.stdout
    second = user.newest_sweep()
    assert [run["origin"] for run in runs_of(user, second)] == [f"{first}/0", f"{first}/1"]
    assert not (user.home / "store" / "runs" / second / "0" / "checkpoints").exists()
    assert user.bertpar("diff", first, second).stdout.endswith("IDENTICAL\n")
    assert "probabilities" in user.bertpar("predict", f"{second}/1", "--text", "good").stdout

    user.train(*SMOKE, "lr=1e-3,2e-3,3e-3")
    assert [run["reused"] for run in runs_of(user, user.newest_sweep())] == [True, False, True]


def test_a_cancelled_sweep_is_gone_on_with_and_gives_the_bits_of_an_undisturbed_one(user: User) -> None:
    user.train(*LONG, "cache=off", "lr=1e-3")
    undisturbed = user.newest_sweep()
    user.train(*LONG, "lr=1e-3", "hydra.launcher.detach=true")
    cancelled = user.newest_sweep()
    until(lambda: runs_of(user, cancelled)[0]["checkpoints"] > 2)
    user.bertpar("cancel", cancelled)
    until(lambda: user.json("status", cancelled)["status"] == "cancelled")
    (planned,) = user.json("plan", *LONG, "lr=1e-3")
    assert (planned["verdict"], planned["origin"]) == ("resume", f"{cancelled}/0")

    told = user.train(*LONG, "lr=1e-3").stdout
    assert f"goes on from a checkpoint of {cancelled}/0" in told
    resumed = user.newest_sweep()
    (run,) = runs_of(user, resumed)
    assert (run["reused"], run["origin"]) == (False, f"{cancelled}/0")
    assert run["saved_seconds"] > 0
    assert user.bertpar("diff", undisturbed, resumed).stdout.endswith("IDENTICAL\n")


def test_a_plan_names_the_part_of_the_key_that_has_changed(editor: Editor, tmp_path: Path) -> None:
    rows = [f"{i},film {i} is {word},{word}" for i, word in enumerate(["good", "bad"] * 80)]
    data = tmp_path / "data.csv"
    files = ("data=files", f"data.train_file={data}", "data.text_column=text", "data.label_column=label")

    def write() -> None:
        data.write_text("\n".join(["id,text,label", *rows]) + "\n")

    write()
    editor.train(*SMOKE, *files, "lr=1e-3")
    origin = f"{editor.newest_sweep()}/0"
    assert plan(editor, *files, "lr=1e-3")[0]["verdict"] == "cached"

    rows[3] = "3,film 3 is quite bad,bad"
    write()
    assert reason(editor, *files).startswith(f"nearest is {origin}, which differs in data: ")
    rows[3] = "3,film 3 is bad,bad"
    write()
    assert plan(editor, *files, "lr=1e-3")[0]["verdict"] == "cached"

    other = editor.source / "transformers-0.0.1.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 0.0.1\n")
    assert reason(editor, *files).startswith(
        f"nearest is {origin}, which differs in versions: transformers=0.0.1 instead of "
    )
    shutil.rmtree(other)

    editor.bertpar("down")
    editor.edit_training_code()
    told = reason(editor, *files)
    assert told.startswith(f"nearest is {origin}, which differs in code: ")
    assert ";" not in told

    again = editor.bertpar("reproduce", origin).stdout
    assert "  differs: bertpar's code: " in again
    assert f"IDENTICAL  ({origin} and reproduce-" in again


def reason(user: User, *overrides: str) -> str:
    (planned,) = plan(user, *overrides, "lr=1e-3")
    assert planned["verdict"] == "new"
    return str(planned["reason"])


def test_a_retry_under_changed_code_refuses_and_says_so(editor: Editor) -> None:
    editor.bertpar("down")
    editor.train(*LONG, "lr=5e-3", "hydra.launcher.detach=true")
    sweep = editor.newest_sweep()
    until(lambda: runs_of(editor, sweep)[0]["checkpoints"] > 1)
    editor.edit_training_code()
    os.kill(editor.stack()["pids"]["training_worker"], signal.SIGKILL)
    until(lambda: editor.json("status", sweep)["status"] == "failed")
    (run,) = runs_of(editor, sweep)
    assert run["failure"]["error_type"] == "CodeChangedError"
    assert "bertpar's code" in run["failure"]["message"]
