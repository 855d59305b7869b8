"""What a coordinator starts next, how a sweep ends, and how runs rank."""

from bertpar.states import RunState, RunStatus
from bertpar.workflows.planning import leaderboard, next_starts, rank, sweep_outcome
from tests.specs import run_ref


def run(index: int, status: RunStatus = "queued", accuracy: float | None = None, mode: str = "max") -> RunState:
    ref = run_ref(f"s/{index}", mode=mode)
    return RunState(run=ref, status=status, metrics={} if accuracy is None else {"val/accuracy": accuracy})


def test_at_most_the_limit_is_in_flight() -> None:
    assert next_starts([run(0, "training"), run(1), run(2), run(3)], 2) == [1]
    assert next_starts([run(0, "training"), run(1, "evaluating"), run(2)], 2) == []


def test_ended_runs_take_no_place() -> None:
    assert next_starts([run(0, "failed"), run(1, "completed"), run(2), run(3)], 1) == [2]


def test_runs_start_in_order() -> None:
    assert next_starts([run(2), run(0), run(1)], 5) == [0, 1, 2]


def test_a_sweep_completes_only_with_every_run() -> None:
    assert sweep_outcome([run(0, "completed"), run(1, "training")]) == "running"
    assert sweep_outcome([run(0, "completed"), run(1, "failed")]) == "failed"
    assert sweep_outcome([run(0, "completed"), run(1, "completed")]) == "completed"
    assert sweep_outcome([]) == "running"


def test_the_best_validation_ranks_first_and_runs_without_one_last() -> None:
    states = [run(0, accuracy=0.5), run(1), run(2, accuracy=0.9), run(3, accuracy=float("nan"))]
    assert [s.run.index for s in rank(states)] == [2, 0, 1, 3]
    assert [s.run.index for s in rank([run(0, accuracy=0.5, mode="min"), run(1, accuracy=0.4, mode="min")])] == [1, 0]


def test_the_leaderboard_shows_every_run_with_its_metric() -> None:
    board = leaderboard([run(0, "completed", 0.5), run(1, "training")]).replace("\u00a0", "").splitlines()
    assert board[2].startswith("| [0] lr=0 | completed | 0.5000 |")
    assert board[3].startswith("| [1] lr=1 | training |")
