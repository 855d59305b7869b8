"""`bertpar compare` on sweeps of real workflows, whose evaluations put chosen predictions into a real store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from bertpar import cli
from bertpar.codec import publish_spec
from bertpar.evaluation.stored import PREDICTIONS_FILE, evaluation_key
from bertpar.events import EvaluateJob, EvaluateResult, TrainJob, TrainResult
from bertpar.states import RunRef
from bertpar.store import Store
from tests.unit.stored_results import publish_evaluation, spec
from tests.workflows.conftest import Script, Sweep, checkpoint, running_sweep, trained

ALL, NONE = [True] * 8, [False] * 8
SAME = [True, False] * 20


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"), tmp_path / "cache")


@asynccontextmanager
async def finished_sweep(
    client: Client,
    store: Store,
    outputs: Sequence[Sequence[bool]],
    *,
    seeds: Sequence[int] | None = None,
    first_row: int = 0,
    fails: int | None = None,
    script: Script | None = None,
    **options: object,
) -> AsyncIterator[Sweep]:
    """Yield a sweep that has ended, of one run for each of `outputs`, with learning rates .1, .2, ...

    The first is the best on validation. With `seeds` all have the same learning rate. The run `fails` fails.
    `script` says how the other activities behave.
    """

    async def train(job: TrainJob) -> TrainResult:
        index = int(job.run_id.rpartition("/")[2])
        if index == fails:
            raise ValueError("no luck")
        return trained(job, checkpoint(job, 10, accuracy=0.9 - index / 10))

    async def evaluate(job: EvaluateJob) -> EvaluateResult:
        index = int(job.run_id.rpartition("/")[2])
        metrics = publish_evaluation(store, job.run_id, outputs[index], checkpoint=job.checkpoint, first_row=first_row)
        return EvaluateResult(key=evaluation_key(job.run_id, job.checkpoint), digest="e", metrics=metrics)

    script = replace(script or Script(), train=train, evaluate=evaluate)
    async with running_sweep(client, script, store_root=store.root, max_attempts=1, **options) as sweep:
        await sweep.run(*(_ref(sweep, store, i, seeds[i] if seeds else None) for i in range(len(outputs))))
        yield sweep


def _ref(sweep: Sweep, store: Store, index: int, seed: int | None) -> RunRef:
    lr = 0.1 if seed is not None else round(0.1 * (index + 1), 1)
    swept = {"lr": str(lr), "seed": str(seed or 1)}
    return replace(sweep.ref(index), swept=swept, spec_key=publish_spec(store, spec(lr, seed or 1)))


async def compare(client: Client, *arguments: str) -> int:
    address = client.service_client.config.target_host
    return await asyncio.to_thread(cli.run, ["compare", *arguments, "--address", address])


async def as_json(client: Client, capsys: pytest.CaptureFixture[str], *sweeps: str) -> dict[str, Any]:
    assert await compare(client, *sweeps, "--json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


async def test_identical_predictions_and_a_known_difference_have_their_known_answers(
    client: Client, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    # the second run is as the first; the third gets 8 wrong that the first gets right, and no other one right
    async with finished_sweep(client, store, [SAME + ALL, SAME + ALL, SAME + NONE]) as sweep:
        found = await as_json(client, capsys, sweep.sweep_id)
        assert await compare(client, sweep.sweep_id) == 0
    table = capsys.readouterr().out
    winner, same, worse = found["configurations"]
    assert (winner["name"], winner["verdict"]) == ("lr=0.1", "winner")
    lead = same["lead_of_winner"]
    assert (lead["difference"], lead["low"], lead["high"], lead["p_value"], lead["p_adjusted"]) == (0, 0, 0, 1, 1)
    assert same["verdict"] == "not separable"
    lead = worse["lead_of_winner"]
    assert lead["difference"] == pytest.approx(8 / 48)
    assert lead["p_mcnemar"] == pytest.approx(2 / 2**8)
    assert lead["p_adjusted"] == pytest.approx(2 * 2 / 2**8)
    assert worse["verdict"] == "worse"
    assert found["conclusion"].startswith("Winner not separable from runner-up")
    assert "Winner not separable from runner-up" in table
    assert "+0.1667 [" in table


async def test_seeds_are_one_configuration_across_sweeps_and_failed_runs_are_named(
    client: Client, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        finished_sweep(client, store, [SAME, SAME], seeds=[1, 2]) as one,
        finished_sweep(client, store, [SAME, SAME], seeds=[3, 4], fails=1) as other,
    ):
        found = await as_json(client, capsys, one.sweep_id, other.sweep_id, one.sweep_id)
    (only,) = found["configurations"]
    assert only["seeds"] == [1, 2, 3]
    assert found["left_out"] == [f"{other.sweep_id}/1 (failed)"]
    assert "one configuration only" in found["conclusion"]


async def test_other_test_sets_unknown_sweeps_and_damage_are_refused(
    client: Client, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        finished_sweep(client, store, [SAME]) as one,
        finished_sweep(client, store, [SAME], first_row=1) as other,
    ):
        assert await compare(client, one.sweep_id, other.sweep_id) == 2
        told = capsys.readouterr().err
        assert f"(sweeps {other.sweep_id} and {one.sweep_id})" in told
        assert "39 ids in common; 1 only in" in told
        assert await compare(client, one.sweep_id, "nosuch") == 2
        assert "nosuch does not exist" in capsys.readouterr().err
        predictions_of(store, one).unlink()
        assert await compare(client, one.sweep_id) == 1
        assert "predictions.jsonl is missing. The same files are in MLflow" in capsys.readouterr().err


def predictions_of(store: Store, sweep: Sweep) -> Path:
    (predictions,) = Path(store.root).glob(f"runs/{sweep.sweep_id}/0/evaluation/*/{PREDICTIONS_FILE}")
    return predictions
