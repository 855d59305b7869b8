"""The promise, end to end: `train.py -m`, a kill -9 in the middle, and everything is there afterwards, once."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.conftest import User, until

LEARNING_RATES = "lr=1e-3,3e-3"
NAME = "killed"
SLOW = (
    "cache=off",
    *("experiment=smoke", "data.train_size=1000", "trainer.batch_size=8", "checkpoint.every_n_steps=5"),
    "temporal.heartbeat_timeout=5",
)


@pytest.fixture(scope="module")
def killed_sweep(user: User) -> tuple[str, int]:
    """A sweep of two that lost its training worker after the first checkpoint, and its eval worker in evaluation.

    Returns its id and the client's exit code.
    """
    user.order("evaluation.before_write", "stop")  # so that the first evaluation waits to be killed
    client = user.start_training(*SLOW, LEARNING_RATES, f"sweep.name={NAME}")
    sweep = until(lambda: (user.home / "stack.json").exists() and _sweep_of(user))
    until(lambda: any(run["checkpoints"] for run in user.json("status", sweep)["runs"]))
    os.kill(user.stack()["pids"]["training_worker"], signal.SIGKILL)
    until(lambda: any(run["status"] == "evaluating" for run in user.json("status", sweep)["runs"]))
    os.kill(user.stack()["pids"]["eval_worker"], signal.SIGKILL)
    client.communicate(timeout=300)
    return sweep, client.returncode


def _sweep_of(user: User) -> str | None:
    sweeps = user.bertpar("ls", "--json", check=False)
    found = json.loads(sweeps.stdout) if sweeps.returncode == 0 else []
    return next((str(sweep["sweep_id"]) for sweep in found if sweep["sweep_id"].startswith(NAME)), None)


def test_a_killed_worker_costs_no_run(user: User, killed_sweep: tuple[str, int]) -> None:
    sweep, exit_code = killed_sweep
    status = user.json("status", sweep)
    assert exit_code == 0
    assert (status["sweep_id"], status["status"]) == (sweep, "completed")
    assert [run["status"] for run in status["runs"]] == ["completed", "completed"]
    assert [run["index"] for run in status["runs"]] == [0, 1]
    assert all(run["step"] == run["total_steps"] == 125 for run in status["runs"])
    assert all({"val/accuracy", "test/accuracy", "test/mcc"} <= run["metrics"].keys() for run in status["runs"])
    assert max(run["attempt"] for run in status["runs"]) == 2


def test_history_shows_the_attempt_its_cause_and_where_it_resumed(user: User, killed_sweep: tuple[str, int]) -> None:
    sweep, _ = killed_sweep
    index = next(run["index"] for run in user.json("status", sweep)["runs"] if run["attempt"] == 2)
    query = ("workflow", "query", "-w", f"{sweep}/{index}/train", "--output", "json")
    attempts = json.loads(user.temporal(*query, "--type", "status"))["queryResult"][0]["attempts"]
    assert attempts[0]["cause"]["error_type"] == "WorkerLostError"
    assert attempts[1]["resumed_from_step"] > 0
    checkpoints = json.loads(user.temporal(*query, "--type", "checkpoints"))["queryResult"][0]
    assert max(c["step"] for c in checkpoints) == 125
    history = user.temporal("workflow", "show", "-w", f"{sweep}/{index}/train", "--output", "json")
    assert history.count('"checkpoint_saved"') >= 25


def test_workflows_are_on_their_queues(user: User, killed_sweep: tuple[str, int]) -> None:
    sweep, _ = killed_sweep
    listed = json.loads(user.temporal("workflow", "list", "--output", "json", "--limit", "50"))
    types = sorted(w["type"]["name"] for w in listed if w["execution"]["workflowId"].startswith(sweep))
    assert types == ["CoordinatorWorkflow"] + ["EvaluationWorkflow"] * 2 + ["TrainingWorkflow"] * 2
    history = user.temporal("workflow", "show", "-w", f"{sweep}/0/train", "--output", "json")
    assert "bert-training-task-queue" in history
    assert "bert-eval-task-queue" in history


def test_the_snapshot_was_made_once(user: User, killed_sweep: tuple[str, int]) -> None:
    manifests = (user.home / "store" / "snapshots").glob("*/manifest.json")
    sizes = [json.loads(m.read_text())["meta"]["num_examples"]["train"] for m in manifests]
    assert sizes.count(1000) == 1
    sweep, _ = killed_sweep
    assert user.temporal("workflow", "show", "-w", sweep, "--output", "json").count('"name": "make_snapshot"') == 1


def test_mlflow_has_one_honest_run_each(user: User, killed_sweep: tuple[str, int]) -> None:
    from mlflow import MlflowClient

    sweep, _ = killed_sweep
    client = MlflowClient(tracking_uri=user.stack()["mlflow_tracking_uri"])
    (experiment,) = [e for e in client.search_experiments() if e.name == "bertpar"]
    runs = client.search_runs([experiment.experiment_id], f"tags.`bertpar.sweep` = '{sweep}'")
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert (len(runs), len(children)) == (3, 2)
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.params["lr"] for run in children} == {"0.001", "0.003"}
    assert {run.data.tags["sweep.lr"] for run in children} == {"0.001", "0.003"}
    for run in children:
        losses = client.get_metric_history(run.info.run_id, "train/loss")
        assert [m.step for m in sorted(losses, key=lambda m: m.step)] == list(range(5, 126, 5))
        assert len(client.get_metric_history(run.info.run_id, "test/accuracy")) == 1
        assert len(run.inputs.dataset_inputs) == 1


def test_predictions_are_those_of_the_model_in_mlflow(
    user: User, killed_sweep: tuple[str, int], tmp_path: Path
) -> None:
    import torch
    from mlflow import MlflowClient
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    sweep, _ = killed_sweep
    texts = ["A warm and funny film.", "Dull, long and pointless."]
    printed = user.bertpar("predict", f"{sweep}/0", "--text", texts[0], "--text", texts[1]).stdout
    predicted = [json.loads(line) for line in printed.splitlines()]
    assert [p["text"] for p in predicted] == texts

    run = user.json("status", sweep)["runs"][0]
    client = MlflowClient(tracking_uri=user.stack()["mlflow_tracking_uri"])
    folder = client.download_artifacts(run["mlflow_run_id"], "model", str(tmp_path))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    expected = logits.softmax(-1).numpy()
    for i, prediction in enumerate(predicted):
        got = [prediction["probabilities"][model.config.id2label[c]] for c in range(2)]
        np.testing.assert_allclose(got, expected[i], atol=1e-5)


def test_a_file_is_predicted_line_by_line(user: User, killed_sweep: tuple[str, int], tmp_path: Path) -> None:
    sweep, _ = killed_sweep
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"text": f"film {i}", "id": i}) + "\n" for i in range(5)))
    user.bertpar("predict", f"{sweep}/1", "--file", str(source), "--out", str(target))
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert [line["id"] for line in lines] == list(range(5))
    assert all(line["label"] in ("negative", "positive") for line in lines)
