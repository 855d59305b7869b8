"""Sweepers that launch one batch after another: their runs are one sweep, told of once."""

from __future__ import annotations

import re
import signal

from tests.e2e.conftest import User, until

BATCHES_OF_ONE = ("experiment=smoke", "hydra.sweeper.max_batch_size=1", "lr=1e-3,3e-3")


def test_batches_of_one_are_named_by_what_was_swept_and_ranked_once_at_the_end(user: User) -> None:
    printed = user.train(*BATCHES_OF_ONE).stdout
    sweep = user.newest_sweep()
    assert printed.startswith(f"sweep {sweep}: runs as its sweeper asks for them\n")
    assert printed.count(f"sweep {sweep} completed") == 1
    assert printed.count("rank") == 1
    assert re.findall(r"^\[(\d)\] (\S+): completed", printed, re.MULTILINE) == [("0", "lr=0.001"), ("1", "lr=0.003")]
    ranked = re.findall(r"^ +[12] +([01]) +(lr=\S+)", printed, re.MULTILINE)
    assert sorted(ranked) == [("0", "lr=0.001"), ("1", "lr=0.003")]


def test_a_value_given_once_is_not_taken_for_swept(user: User) -> None:
    printed = user.train("experiment=smoke", "lr=1e-3", "trainer.max_steps=2").stdout
    assert "[0] run 0: completed" in printed


def test_a_sweep_whose_sweeper_is_interrupted_ends_with_the_runs_that_it_has(user: User) -> None:
    client = user.start_training(*BATCHES_OF_ONE, "trainer.max_epochs=10", "sweep.name=half")
    sweep = str(until(lambda: [s for s in user.json("ls") if s["sweep_id"].startswith("half")])[0]["sweep_id"])
    until(lambda: user.json("status", sweep)["runs"][0]["step"] > 0)
    client.send_signal(signal.SIGINT)
    printed, _ = client.communicate(timeout=60)
    assert client.returncode == 130, printed
    assert f"follow it:  bertpar attach {sweep}" in printed
    assert f"sweep {sweep} completed" in user.bertpar("attach", sweep).stdout
    assert len(user.json("status", sweep)["runs"]) == 1
