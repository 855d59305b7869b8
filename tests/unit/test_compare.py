"""Comparisons of runs whose predictions a test has put into a store: who is in, who wins, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bertpar.compare import compare, conclusion, limits, read_sweep_results
from bertpar.compare.comparison import Comparison
from bertpar.errors import CorruptError, NotComparableError, NotFoundError
from bertpar.evaluation.stored import PREDICTIONS_FILE, evaluation_key
from bertpar.states import RunState
from bertpar.store import Store
from tests.unit.stored_results import best_checkpoint, publish_evaluation, stored_run, sweep_of

HALF = [True, False] * 50
BETTER = [True] * 100


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"), tmp_path / "cache")


def compared(store: Store, *sweeps: tuple[RunState, ...]) -> Comparison:
    return compare([read_sweep_results(sweep_of(store, *runs), store) for runs in sweeps])


def test_runs_that_differ_in_their_seed_are_one_configuration_with_mean_and_spread(store: Store) -> None:
    found = compared(
        store,
        (
            stored_run(store, "a/0", HALF, lr=0.1, seed=1, validation=0.5),
            stored_run(store, "a/1", BETTER, lr=0.1, seed=2, validation=0.7),
            stored_run(store, "a/2", HALF, lr=0.2, seed=1, validation=0.8),
        ),
    )
    one, two = found.rows
    assert (one.configuration.name, one.configuration.seeds, one.objective.spread) == ("lr=0.2", (1,), None)
    assert (two.configuration.name, two.configuration.seeds) == ("lr=0.1", (1, 2))
    assert two.objective.mean == pytest.approx(0.6)
    assert two.objective.spread == pytest.approx(0.2 / 2**0.5)
    assert (two.test.mean, two.test.spread) == (0.75, pytest.approx(0.5 / 2**0.5))


def test_the_winner_is_chosen_on_validation_though_the_test_set_says_otherwise(store: Store) -> None:
    runs = (
        stored_run(store, "a/0", BETTER, lr=0.1, validation=0.4),
        stored_run(store, "a/1", HALF, lr=0.2, validation=0.6),
    )
    found = compared(store, runs)
    assert found.winner.configuration.name == "lr=0.2"
    assert found.rows[1].verdict == "better"
    assert "won on validation, but the runner-up lr=0.1 is better on the test set" in conclusion(found)


def test_a_smaller_objective_wins_where_the_mode_is_min(store: Store) -> None:
    runs = (
        stored_run(store, "a/0", HALF, lr=0.1, validation=0.4, mode="min"),
        stored_run(store, "a/1", HALF, lr=0.2, validation=0.6, mode="min"),
    )
    assert compared(store, runs).winner.configuration.name == "lr=0.1"


def test_identical_predictions_are_not_separable(store: Store) -> None:
    runs = (
        stored_run(store, "a/0", HALF, lr=0.1, validation=0.6),
        stored_run(store, "a/1", HALF, lr=0.2, validation=0.5),
    )
    row = compared(store, runs).rows[1]
    assert row.lead is not None
    assert (row.lead.difference, row.lead.low, row.lead.high, row.p_adjusted) == (0.0, 0.0, 0.0, 1.0)
    assert row.verdict == "not separable"
    assert conclusion(compared(store, runs)).startswith("Winner not separable from runner-up")


def test_p_values_are_corrected_for_the_number_of_comparisons(store: Store) -> None:
    # the winner is right everywhere, the others wrong 6 times: p = 2/2^6 = .03125 each, .0625 of two
    worse = [False] * 6 + [True] * 94
    alone = (
        stored_run(store, "a/0", BETTER, lr=0.1, validation=0.9),
        stored_run(store, "a/1", worse, lr=0.2, validation=0.6),
    )
    assert compared(store, alone).rows[1].p_adjusted == pytest.approx(0.03125)
    assert compared(store, alone).rows[1].verdict == "worse"
    both = compared(store, (*alone, stored_run(store, "a/2", worse, lr=0.3, validation=0.5)))
    assert [row.p_adjusted for row in both.rows[1:]] == pytest.approx([0.0625, 0.0625])
    assert both.rows[1].verdict == "not separable"


def test_seeds_of_several_sweeps_are_one_configuration_and_a_repeated_one_counts_once(store: Store) -> None:
    found = compared(
        store,
        (stored_run(store, "a/0", HALF, lr=0.1, seed=1), stored_run(store, "a/1", HALF, lr=0.2, seed=1)),
        (stored_run(store, "b/0", HALF, lr=0.1, seed=2), stored_run(store, "b/1", BETTER, lr=0.2, seed=1)),
    )
    by_name = {row.configuration.name: row.configuration for row in found.rows}
    assert by_name["lr=0.1"].seeds == (1, 2)
    assert [run.run.run_id for run in by_name["lr=0.2"].runs] == ["a/1"]
    assert "b/1 (seed 1) repeats a/1, but with OTHER predictions" in " ".join(limits(found))


def test_runs_that_did_not_complete_are_left_out_and_named(store: Store) -> None:
    runs = (
        stored_run(store, "a/0", HALF, lr=0.1),
        stored_run(store, "a/1", HALF, lr=0.2),
        replace(stored_run(store, "a/2", HALF, lr=0.3), status="failed"),
    )
    found = compared(store, runs)
    assert [row.configuration.name for row in found.rows] == ["lr=0.1", "lr=0.2"]
    assert "a/2 (failed)" in " ".join(limits(found))


def test_one_configuration_alone_is_said_to_have_nothing_to_be_compared_with(store: Store) -> None:
    found = compared(store, (stored_run(store, "a/0", HALF, lr=0.1), stored_run(store, "a/1", HALF, lr=0.1, seed=2)))
    assert "one configuration only (lr=0.1, 2 seeds)" in conclusion(found)


def test_a_sweep_of_which_nothing_has_completed_is_refused_with_the_states(store: Store) -> None:
    run = replace(stored_run(store, "a/0", HALF, lr=0.1), status="training")
    with pytest.raises(NotFoundError, match=r"no run of a has completed.*a/0 \(training\)"):
        compared(store, (run,))


def test_different_test_sets_are_refused_with_what_differs(store: Store) -> None:
    one = (stored_run(store, "a/0", HALF, lr=0.1),)
    other = (stored_run(store, "b/0", HALF[:80], lr=0.2, first_row=30),)
    with pytest.raises(NotComparableError) as refused:
        compared(store, one, other)
    told = str(refused.value)
    assert "b/0 and a/0 have different test sets: 80 against 100 examples (sweeps b and a)" in told
    assert "70 ids in common; 10 only in b/0 (ids 00100, 00101, 00102, ...); 30 only in a/0" in told
    # the same ids, with another label or text, are another test set too
    assert "50 with another label" not in told
    assert NotComparableError.exit_code == 2


def test_other_objectives_are_refused(store: Store) -> None:
    one, other = stored_run(store, "a/0", HALF, lr=0.1), stored_run(store, "a/1", HALF, lr=0.2)
    loss = replace(other, run=replace(other.run, objective="val/loss", mode="min"), metrics={"val/loss": 0.1})
    with pytest.raises(NotComparableError, match=r"checkpoint\.monitor=val/loss \(min\)"):
        compared(store, (one, loss))


def test_a_damaged_evaluation_is_told_with_where_an_intact_copy_is(store: Store) -> None:
    run = stored_run(store, "a/0", HALF, lr=0.1)
    key = evaluation_key("a/0", best_checkpoint("a/0"))
    file = Path(store.root) / key / PREDICTIONS_FILE
    intact = file.read_bytes()
    file.write_bytes(intact[:-3])
    with pytest.raises(CorruptError, match=r"predictions\.jsonl has .* bytes.*MLflow, as artifacts of run mlflow-0"):
        compared(store, (run,))
    file.write_bytes(intact)  # what the message asks for mends it
    assert len(compared(store, (run,)).rows) == 1


def test_a_missing_evaluation_is_told(store: Store) -> None:
    run = stored_run(store, "a/0", HALF, lr=0.1)
    store.remove(evaluation_key("a/0", best_checkpoint("a/0")))
    with pytest.raises(CorruptError, match="has no evaluation of its checkpoint of step 10"):
        compared(store, (run,))


def test_a_reused_result_is_found_where_its_origin_has_it(store: Store) -> None:
    run = stored_run(store, "b/0", HALF, lr=0.1)
    publish_evaluation(store, "a/7", BETTER)
    reused = replace(run, reused=True, evaluation_key=evaluation_key("a/7", best_checkpoint("a/7")))
    assert compared(store, (reused,)).winner.test.mean == 1.0


def test_a_regression_is_compared_by_pearsons_r(store: Store) -> None:
    labels = [float(i % 17) for i in range(200)]
    near = [label + 0.1 * (i % 5) for i, label in enumerate(labels)]
    far = [label * ((i % 3) - 1) for i, label in enumerate(labels)]
    found = compared(
        store,
        (
            stored_run(store, "a/0", near, lr=0.1, labels=labels, validation=0.9),
            stored_run(store, "a/1", far, lr=0.2, labels=labels, validation=0.2),
        ),
    )
    assert found.test_metric == "test/pearson"
    assert found.rows[1].verdict == "worse"
    lead = found.rows[1].lead
    assert lead is not None
    assert lead.difference == pytest.approx(found.rows[0].test.mean - found.rows[1].test.mean)


def test_configurations_that_no_swept_key_tells_apart_are_named_by_what_does(store: Store) -> None:
    one, other = stored_run(store, "a/0", HALF, lr=0.1), stored_run(store, "b/0", HALF, lr=0.2)
    plain = [replace(run, run=replace(run.run, swept={})) for run in (one, other)]
    names = [row.configuration.name for row in compared(store, (plain[0],), (plain[1],)).rows]
    assert names == ["optim.lr=0.1", "optim.lr=0.2"]
