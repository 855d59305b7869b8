"""Evaluation end to end: a tiny random BERT, a snapshot of made-up files, a real MLflow store."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from mlflow import MlflowClient

from bertpar import tracking
from bertpar.codec import fetch_spec, publish_spec
from bertpar.data.snapshot import open_split
from bertpar.errors import CheckpointDamagedError, CorruptError, TrackingError
from bertpar.evaluation import evaluate as evaluate_module
from bertpar.evaluation.evaluate import evaluate
from bertpar.spec import Demand
from tests.training.cases import Case, as_lines, ignore, load_model, read_lines


def test_an_evaluation_publishes_report_predictions_and_picture(single: Case) -> None:
    events: list[tuple[str, Any]] = []
    result = evaluate(single.evaluate_job("e1"), single.store, lambda kind, value: events.append((kind, value)))
    assert result.key == f"runs/e1/evaluation/{single.checkpoint.digest[:16]}"
    folder = single.store.fetch(result.key, digest=result.digest)
    report = json.loads((folder / "report.json").read_bytes())
    rows = read_lines(folder / "predictions.jsonl")
    assert (folder / "confusion_matrix.png").read_bytes().startswith(b"\x89PNG")
    assert report["num_examples"] == len(rows) == single.snapshot.num_examples["test"]
    assert report["metrics"] == result.metrics
    right = sum(row["label"] == row["predicted"] for row in rows)
    assert result.metrics["test/accuracy"] == pytest.approx(right / len(rows))
    assert np.trace(report["confusion_matrix"]) == right
    assert sum(row["support"] for row in report["per_class"]) == len(rows)
    assert result.metrics["test/accuracy_low"] <= result.metrics["test/accuracy"]
    assert result.metrics["test/accuracy_high"] >= result.metrics["test/accuracy"]
    assert {"test/loss", "test/macro_f1", "test/mcc"} < set(result.metrics)
    assert ("progress", {"phase": "evaluating", "done": len(rows), "total": len(rows)}) in events


def test_predictions_belong_to_their_own_rows(single: Case) -> None:
    result = evaluate(single.evaluate_job("e2"), single.store, ignore)
    rows = read_lines(single.store.fetch(result.key) / "predictions.jsonl")
    split = open_split(single.store, single.snapshot, "test")
    model = load_model(single.store.fetch(single.checkpoint.key))
    assert len({row["probabilities"]["pos"] for row in rows}) > len(rows) // 2  # so that a swap would show
    for i, row in enumerate(rows):
        assert (row["row_id"], row["text"]) == (split.row_id(i), split.text(i))
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([split.example(i)["input_ids"]])).logits
        expected = logits.softmax(-1)[0].tolist()
        assert list(row["probabilities"].values()) == pytest.approx(expected, abs=1e-5)
        assert row["predicted"] == max(row["probabilities"], key=row["probabilities"].get)


def test_eval_precision_is_what_test_scores_and_predictions_are_computed_with(single: Case) -> None:
    spec = fetch_spec(single.store, single.spec_key)
    bf16 = replace(spec, trainer=replace(spec.trainer, eval_precision="bf16"))
    cases = {"fp32": single, "bf16": replace(single, spec_key=publish_spec(single.store, bf16))}

    def probabilities(rows: list[dict[str, Any]]) -> npt.NDArray[np.float64]:
        return np.array([list(row["probabilities"].values()) for row in rows])

    evaluated, predicted = [], []
    for name, case in cases.items():
        result = evaluate(case.evaluate_job(name), case.store, ignore)
        folder = case.store.fetch(result.key)
        assert json.loads((folder / "report.json").read_bytes())["precision"] == name
        rows = read_lines(folder / "predictions.jsonl")
        evaluated.append(probabilities(rows))
        predicted.append(probabilities(case.predict(name, as_lines({"text": row["text"]} for row in rows))))
    for exact, rounded in (evaluated, predicted):
        assert 1e-6 < np.abs(exact - rounded).max() < 0.02


def test_mlflow_gets_test_metrics_artifacts_and_a_model_that_transformers_loads(single: Case) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    result = evaluate(single.evaluate_job("e3"), single.store, ignore)
    run_id = tracking.close_run(single.closing_job("e3", result), single.store).run_id
    run = single.mlflow.get_run(run_id)
    assert run.data.metrics == result.metrics
    assert {"report.json", "predictions.jsonl", "confusion_matrix.png"} == single.artifacts(run_id, "evaluation")
    names = single.artifacts(run_id, "model")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert not {"optimizer.safetensors", "training_state.json", "metric_rows.json", "manifest.json"} & names
    folder = single.mlflow.download_artifacts(run_id, "model")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = ["a good film", "boring and very long, not one good actor in it"]
    with torch.no_grad():
        theirs = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits.softmax(-1)
    ours = single.predict("artifact", as_lines({"text": text} for text in texts))
    for row, expected in zip(ours, theirs.tolist(), strict=True):
        named = {model.config.id2label[i]: p for i, p in enumerate(expected)}
        assert row["probabilities"] == pytest.approx(named, abs=1e-6)
        assert row["label"] == max(named, key=named.__getitem__)


def test_a_repeated_evaluation_computes_nothing_and_adds_no_row(single: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    job = single.evaluate_job("e4")
    first = evaluate(job, single.store, ignore)
    monkeypatch.setattr(evaluate_module, "load_trained_model", None)
    assert evaluate(job, single.store, ignore) == first


def test_an_evaluation_that_was_logged_in_part_is_logged_to_its_end_and_once(
    single: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = single.closing_job("e8", evaluate(single.evaluate_job("e8"), single.store, ignore))
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "set_terminated", _lose_connection)
        with pytest.raises(TrackingError):
            tracking.close_run(job, single.store)
    run_id = tracking.close_run(job, single.store).run_id
    assert single.mlflow.get_run(run_id).info.status == "FINISHED"
    assert job.evaluation is not None
    for key in job.evaluation.result.metrics:
        assert len(single.mlflow.get_metric_history(run_id, key)) == 1


def _lose_connection(*_: Any, **__: Any) -> None:
    raise OSError("connection lost")


def test_two_evaluations_of_a_checkpoint_give_the_same_bits(single: Case) -> None:
    one = evaluate(single.evaluate_job("e5"), single.store, ignore)
    other = evaluate(single.evaluate_job("e6"), single.store, ignore)
    assert one.metrics == other.metrics
    one_file, other_file = (single.store.fetch(r.key) / "predictions.jsonl" for r in (one, other))
    assert one_file.read_bytes() == other_file.read_bytes()


@pytest.mark.parametrize("num_threads", [1, 2])
def test_an_evaluation_computes_with_the_threads_of_its_job(single: Case, num_threads: int) -> None:
    before = torch.get_num_threads()
    try:
        job = single.evaluate_job(f"threads-{num_threads}", demand=Demand(num_threads=num_threads))
        evaluate(job, single.store, ignore)
        assert torch.get_num_threads() == num_threads
    finally:
        torch.set_num_threads(before)


def test_a_damaged_evaluation_is_made_again_and_said_so(single: Case) -> None:
    job, notes = single.evaluate_job("e7"), []
    first = evaluate(job, single.store, ignore)
    (single.store.fetch(first.key) / "predictions.jsonl").write_text("torn")
    again = evaluate(job, single.store, lambda kind, value: notes.append(value) if kind == "note" else None)
    assert again.metrics == first.metrics
    assert "predictions.jsonl" in notes[0]


def test_another_checkpoint_than_the_reference_says_is_refused(single: Case) -> None:
    wrong = replace(single.checkpoint, digest="0" * 64)
    with pytest.raises(CheckpointDamagedError, match="digest"):
        evaluate(single.evaluate_job("e9", checkpoint=wrong), single.store, ignore)


def test_a_checkpoint_of_another_task_is_refused(single: Case, regression: Case) -> None:
    job = single.evaluate_job("e10", checkpoint=regression.checkpoint)
    with pytest.raises(CorruptError, match="1 outputs"):
        evaluate(job, single.store, ignore)


def test_a_regression_is_scored_by_correlation_and_has_no_confusion_matrix(regression: Case) -> None:
    job = regression.evaluate_job("r1")
    result = evaluate(job, regression.store, ignore)
    assert set(result.metrics) == {
        "test/loss",
        "test/pearson",
        "test/spearman",
        "test/pearson_low",
        "test/pearson_high",
    }
    folder = regression.store.fetch(result.key)
    assert not (folder / "confusion_matrix.png").exists()
    rows = read_lines(folder / "predictions.jsonl")
    scores, labels = ([row[key] for row in rows] for key in ("score", "label"))
    assert result.metrics["test/pearson"] == pytest.approx(np.corrcoef(scores, labels)[0, 1])
    assert result.metrics["test/loss"] == pytest.approx(np.mean((np.array(scores) - labels) ** 2))
    assert set(regression.predict("score", as_lines([{"text": "good"}]))[0]) == {"text", "score"}


def test_pairs_are_evaluated_and_predicted_with_both_texts(pair: Case) -> None:
    result = evaluate(pair.evaluate_job("p1"), pair.store, ignore)
    rows = read_lines(pair.store.fetch(result.key) / "predictions.jsonl")
    given = [{"text": row["text"], "text_pair": row["text_pair"]} for row in rows]
    predicted = pair.predict("pairs", as_lines(given))
    for row, again in zip(rows, predicted, strict=True):
        assert again["probabilities"] == pytest.approx(row["probabilities"], abs=1e-5)
    swapped = pair.predict("swapped", as_lines({"text": r["text_pair"], "text_pair": r["text"]} for r in given))
    assert any(
        abs(a["probabilities"]["pos"] - b["probabilities"]["pos"]) > 1e-3
        for a, b in zip(predicted, swapped, strict=True)
    )
