"""A run is named by what the sweeper chose for it."""

from __future__ import annotations

from bertpar.composing import given_values
from bertpar.submit import swept_values


def test_what_differs_between_runs_is_swept() -> None:
    runs = [["experiment=smoke", "lr=0.001"], ["experiment=smoke", "lr=0.003"]]
    assert swept_values(runs, {"experiment=smoke"}) == [{"lr": "0.001"}, {"lr": "0.003"}]


def test_what_is_not_on_the_command_line_is_swept_in_a_batch_of_one_too() -> None:
    assert swept_values([["experiment=smoke", "lr=0.00123"]], {"experiment=smoke"}) == [{"lr": "0.00123"}]


def test_given_values_are_told_apart_from_sweeps_as_hydra_writes_them() -> None:
    given = given_values(["lr=1e-4", "seed=1,2", "model=choice(minilm,tiny)", "data.text_column=text"])
    assert given == {"lr=0.0001", "data.text_column=text"}
