"""Every task learns what there is to learn, end to end: snapshot, training, evaluation, prediction."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bertpar.codec import publish_spec
from bertpar.data.snapshot import make_snapshot
from bertpar.evaluation.evaluate import evaluate
from bertpar.evaluation.predict import predict
from bertpar.events import EvaluateJob, EvaluateResult, PredictJob, TrainResult
from bertpar.spec import DataSpec, RunSpec
from tests.training.conftest import REVIEWS, SPEC, Lab

FILLERS = ["film", "movie", "the", "plot", "actor"]


def single_sentence(rng: random.Random) -> dict[str, Any]:
    label = rng.choice(["good", "bad"])
    words = [*rng.choices(FILLERS, k=4), label]
    rng.shuffle(words)
    return {"text": " ".join(words), "label": label}


def sentence_pair(rng: random.Random) -> dict[str, Any]:
    """What counts is the second sentence: a model that sees only the first can but guess."""
    first, second = rng.choice(["good", "bad"]), rng.choice(["good", "bad"])
    filler = [" ".join(rng.choices(FILLERS, k=3)) for _ in range(2)]
    return {"text": f"{filler[0]} {first}", "text_pair": f"{filler[1]} {second}", "label": second}


def regression(rng: random.Random) -> dict[str, Any]:
    count = rng.randrange(5)
    words = [*["good"] * count, *rng.choices(FILLERS, k=6 - count)]
    rng.shuffle(words)
    return {"text": " ".join(words), "label": count / 2}


def write(path: Path, make: Any, num_rows: int = 400) -> DataSpec:
    rng = random.Random(0)
    rows = {json.dumps(make(rng)) for _ in range(num_rows)}
    path.write_text("\n".join(sorted(rows)) + "\n")
    return replace(
        REVIEWS,
        source="files",
        train_file=str(path),
        text_pair_column="text_pair" if make is sentence_pair else None,
        task="regression" if make is regression else "classification",
        id_column=None,
        train_size=None,
        validation_size=None,
        test_size=None,
    )


def train_and_evaluate(lab: Lab, data: DataSpec, run_id: str) -> tuple[RunSpec, TrainResult, EvaluateResult]:
    monitor = "val/pearson" if data.task == "regression" else "val/accuracy"
    spec = replace(
        SPEC,
        data=data,
        optim=replace(SPEC.optim, lr=5e-3),
        trainer=replace(SPEC.trainer, max_epochs=12, batch_size=16, accumulate=1),
        checkpoint=replace(SPEC.checkpoint, monitor=monitor, keep=1, every_n_steps=None),
    )
    lab = replace(lab, snapshot=make_snapshot(data, SPEC.model, lab.store))
    trained = lab.train(spec, run_id)
    evaluated = evaluate(
        EvaluateJob(
            store_root=lab.store.root,
            run_id=run_id,
            spec_key=publish_spec(lab.store, spec),
            snapshot=lab.snapshot,
            checkpoint=trained.best,
        ),
        lab.store,
        lambda kind, value: None,
    )
    lab.store.publish(
        f"predictions/{run_id}/input", lambda folder: (folder / "input.jsonl").write_text(example_of(data)) and None
    )
    result = predict(
        PredictJob(
            store_root=lab.store.root,
            spec_key=publish_spec(lab.store, spec),
            snapshot=lab.snapshot,
            checkpoint=trained.best,
            input_key=f"predictions/{run_id}/input",
            output_key=f"predictions/{run_id}/output",
        ),
        lab.store,
        lambda kind, value: None,
    )
    assert result.num_examples == 1
    return spec, trained, evaluated


def example_of(data: DataSpec) -> str:
    pair = {"text_pair": "the film plot good"} if data.text_pair_column else {}
    return json.dumps({"text": "the film plot bad" if pair else "the good plot", **pair}) + "\n"


@pytest.mark.parametrize("make", [single_sentence, sentence_pair])
def test_classification_learns(lab: Lab, tmp_path: Path, make: Any) -> None:
    run_id = f"task-{make.__name__}"
    _, _, evaluated = train_and_evaluate(lab, write(tmp_path / "data.jsonl", make), run_id)
    assert evaluated.metrics["test/accuracy"] > 0.9
    output = json.loads((lab.store.fetch(f"predictions/{run_id}/output") / "output.jsonl").read_text())
    assert output["label"] == "good"
    assert output["probabilities"]["good"] > 0.5


def test_regression_learns(lab: Lab, tmp_path: Path) -> None:
    _, trained, evaluated = train_and_evaluate(lab, write(tmp_path / "data.jsonl", regression), "task-regression")
    assert evaluated.metrics["test/pearson"] > 0.9
    assert evaluated.metrics["test/spearman"] > 0.85
    assert trained.metrics.keys() == {"val/loss", "val/pearson", "val/spearman"}
