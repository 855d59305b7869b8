"""`bertpar verify-resume`, as a user types it: real job processes, really killed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest

from bertpar.verify import RunOutcome, Weights
from bertpar.verify.killing import Kill
from bertpar.verify.resume import judge

RUN = RunOutcome(
    run_id="undisturbed/0",
    statuses=("FINISHED",),
    rows=(),
    weights={step: Weights({"a": str(step)}) for step in (4, 8, 12)},
    best_step=12,
    num_evaluations=1,
    test_metrics={},
    predictions=None,
)
OTHER = Weights({"a": "other"})
SMALL = ("experiment=smoke", "data.train_size=96", "checkpoint.every_n_steps=2", "trainer.batch_size=8")


def verify_resume(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("TEMPORAL_", "BERTPAR_", "MLFLOW_"))}
    command = [sys.executable, "-m", "bertpar.cli", "verify-resume", *arguments]
    return subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=False, timeout=300)


def kills_of(output: str) -> list[int]:
    found = re.search(r"^IDENTICAL .* after (\d+) kills at steps ([\d, ]+)$", output, re.MULTILINE)
    assert found, output
    steps = [int(step) for step in found.group(2).split(",")]
    assert len(steps) == int(found.group(1))
    return steps


def test_a_configuration_is_identical_after_its_kills_though_clocks_differ_by_an_hour_between_attempts() -> None:
    shifted = str(Path(__file__).with_name("shifted_clock"))
    varied = ("trainer.accumulate=2", "trainer.validate_every_n_steps=4", "optim.clip=0.1", "trainer.max_epochs=2")
    done = verify_resume(*SMALL, *varied, "--kills", "4", "--seed", "3", PYTHONPATH=shifted)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 steps" in done.stdout
    assert len(kills_of(done.stdout)) >= 2


def problems_of(*, undisturbed: Collection[int] = (4, 8, 12), killed: Collection[int]) -> tuple[str, ...]:
    one, other = (
        replace(RUN, run_id=f"{side}/0", weights={step: RUN.weights.get(step, OTHER) for step in steps})
        for side, steps in (("undisturbed", undisturbed), ("killed", killed))
    )
    return judge(one, other, kills=[Kill(step=5, point="step.done")], commits=[4, 8, 12, 16]).problems


def test_a_checkpoint_that_either_side_lacks_is_a_problem_even_if_both_lack_it() -> None:
    assert problems_of(killed=(4, 8, 12)) == ()  # both have stopped early
    assert problems_of(killed=(4, 12)) == ("killed/0: step 8 has no checkpoint",)
    assert len(problems_of(undisturbed=(4, 12), killed=(4, 12))) == 2
    assert problems_of(killed=(4, 7, 8, 12)) == ("killed/0: step 7 has a checkpoint that was not planned",)


def test_nothing_is_proven_where_no_kill_hit() -> None:
    assert judge(RUN, RUN, kills=[], commits=[4, 8, 12]).problems == ("no kill hit: nothing is proven",)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("trainer.num_threads=null",), "trainer.num_threads=null leaves the number of CPU threads to each worker"),
        (("lr=1e-3,3e-3",), "describes several runs"),
        (("trainer.max_epochs=0",), "trainer.max_epochs=0 must be an integer >= 1"),
        (("model=nonesuch",), "model=nonesuch is unknown; choose from"),
    ],
)
def test_what_cannot_be_verified_is_refused_before_anything_is_trained(
    overrides: tuple[str, ...], message: str
) -> None:
    done = verify_resume("experiment=smoke", *overrides)
    assert done.returncode == 2
    assert message in done.stderr
    assert "training" not in done.stdout


def test_own_yaml_is_found_through_config_dir(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nlr: -1\n")
    done = verify_resume("experiment=mine", "--config-dir", str(tmp_path))
    assert done.returncode == 2
    assert "lr=-1 must be" in done.stderr
