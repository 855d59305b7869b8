"""What a clumsy user sees: one clear error and a non-zero exit, before any training, and nothing half-made."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import User, until

FILES = (
    "experiment=smoke",
    "data=files",
    "data.train_size=null",
    "data.validation_size=null",
    "data.test_size=null",
    "data.max_length=16",
)
ROWS = [(f"film number {i}", "ab"[i % 2]) for i in range(40)]


@pytest.fixture
def nobody(tmp_path: Path) -> Iterator[User]:
    """Somebody whose home must stay without a stack."""
    user = User(tmp_path / "home")
    yield user
    if (user.home / "stack.json").exists():
        user.bertpar("down")


def csv_file(path: Path, rows: list[tuple[str, ...]], header: str = "text,label") -> Path:
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return path


def assert_refused(done: subprocess.CompletedProcess[str], *expected: str) -> None:
    assert done.returncode in (1, 2), done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    for text in expected:
        assert text in errors[0]


# --- before anything is started ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["foo=1"], ["foo is unknown", "Choose from: budget, cache, checkpoint, data, lr,"]),
        (["trainer.bachsize=3"], ["trainer.bachsize is unknown", "Did you mean trainer.batch_size"]),
        (["model=minlm"], ["model=minlm is unknown; choose from: bert_base, hub, local, minilm, tiny"]),
        (["lr=1e-4,fast"], ["lr=fast must be a number > 0", "For example lr=1e-4"]),
        (["lr=interval(1e-4,1e-2)"], ["interval(...) leaves the choice", "hydra/sweeper=optuna"]),
        (["data=files", "data.train_file={tmp}/a.csv"], ["data.train_file={tmp}/a.csv: there is no such file"]),
        (["data=files", "data.train_file={tmp}/cols.csv"], ["data.text_column=text", "there are: sentence, label"]),
        (["data=files", "data.train_file={tmp}/empty.csv"], ["empty.csv: has no rows"]),
        (["model=local", "model.path={tmp}/model"], ["{tmp}/model lacks a tokenizer", "there is: config.json"]),
        (["model=minilm", "model.weights_sha256=abc"], ["model.weights_sha256=abc is not the digest of"]),
        (["store.root={tmp}/file/store"], ["store.root={tmp}/file/store cannot be written", "Give a folder"]),
        (["tracking.uri=http://127.0.0.1:{port}"], ["tracking.uri=http://127.0.0.1:{port} cannot be reached"]),
        (["temporal.address=127.0.0.1:{port}"], ["temporal.address=127.0.0.1:{port} cannot be reached"]),
    ],
)
def test_what_can_be_seen_at_once_starts_nothing(
    nobody: User, tmp_path: Path, overrides: list[str], expected: list[str]
) -> None:
    csv_file(tmp_path / "cols.csv", [("good", "1")], "sentence,label")
    csv_file(tmp_path / "empty.csv", [])
    (tmp_path / "file").touch()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        known = {"tmp": str(tmp_path), "port": str(nobody_listens.getsockname()[1])}
        given = [text.format(**known) for text in overrides]
        done = nobody.train("experiment=smoke", "hydra.launcher.detach=true", *given, check=False)
    assert_refused(done, *(text.format(**known) for text in expected))
    assert not nobody.home.exists() or not [p.name for p in nobody.home.iterdir() if p.name not in ("hydra", "store")]


def test_another_launcher_is_refused(nobody: User) -> None:
    assert_refused(nobody.train("hydra/launcher=basic", check=False), "hydra/launcher must be bertpar")


def test_a_python_without_bertpar_is_led_to_the_environment(nobody: User) -> None:
    assert_refused(nobody.run(sys.executable, "-I", "-S", "train.py", check=False), "source .venv/bin/activate")


def test_where_a_sweep_is_cannot_be_said_without_a_sweep(nobody: User) -> None:
    for command in ("status", "ui"):
        done = nobody.bertpar(command, "--address", "127.0.0.1:1", check=False)
        assert done.returncode == 2
        assert "name a SWEEP" in done.stderr


def test_a_taken_port_is_named(nobody: User) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = nobody.bertpar("up", "--port", str(port), check=False)
    assert_refused(done, str(port))
    assert nobody.json("status")["state"] == "down"


# --- what only the preparation of the data can see --------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "cause"),
    [
        (["data.train_file={tmp}/blank.csv", "lr=1e-3,2e-3"], "is empty or NaN in rows 3 (line 4), 4 (line 5)"),
        (["data.train_file={tmp}/number.jsonl"], "must be text, but is not in row 2 (line 2); the first is 5"),
        (["data.train_file={tmp}/one.csv"], "holds 'a' in all 20 training examples"),
        (["data.train_file={tmp}/good.csv", "data.test_file={tmp}/other.csv"], "has the label 'c' in row 1 (line 2)"),
        (["data.train_file={tmp}/ids.csv", "data.id_column=id"], "repeats ids, such as '7', in rows 1 (line 2)"),
    ],
)
def test_bad_data_end_the_sweep_with_the_cause_told_once(
    user: User, tmp_path: Path, overrides: list[str], cause: str
) -> None:
    csv_file(tmp_path / "good.csv", ROWS)
    csv_file(tmp_path / "blank.csv", [*ROWS[:2], ("", "a"), ("  ", "b"), *ROWS[2:]])
    csv_file(tmp_path / "one.csv", [(text, "a") for text, _ in ROWS[:20]])
    csv_file(tmp_path / "other.csv", [("unseen", "c"), ("seen", "a")])
    csv_file(tmp_path / "ids.csv", [(*row, "7") for row in ROWS[:3]], "text,label,id")
    (tmp_path / "number.jsonl").write_text('{"text": "a", "label": "a"}\n{"text": 5, "label": "b"}\n')
    before = set((user.home / "store" / "snapshots").glob("*"))

    done = user.train(*FILES, *(text.format(tmp=tmp_path) for text in overrides), check=False)

    assert done.returncode == 1
    assert (done.stdout + done.stderr).count(cause) == 1
    assert "Traceback" not in done.stdout + done.stderr
    sweep = user.newest_sweep()
    assert cause in user.bertpar("status", sweep, check=False).stdout
    assert user.json("ls")[0]["status"] == user.json("status", sweep)["status"] == "failed"
    assert set((user.home / "store" / "snapshots").glob("*")) == before
    assert not still_running(user, sweep)


def still_running(user: User, sweep: str) -> list[str]:
    """Return the sweep's MLflow runs that are not ended."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=user.stack()["mlflow_tracking_uri"])
    (experiment,) = [e for e in client.search_experiments() if e.name == "bertpar"]
    found = client.search_runs([experiment.experiment_id], f"tags.`bertpar.sweep` = '{sweep}'")
    assert found
    return [run.info.run_name for run in found if run.info.status == "RUNNING"]


def test_a_run_that_diverges_fails_alone_and_at_once(user: User) -> None:
    done = user.train("experiment=smoke", "optim.weight_decay=0.01,1e38", check=False)
    assert done.returncode == 1
    assert done.stdout.count("train/loss=nan at step") == 1
    sweep = user.newest_sweep()
    good, bad = user.json("status", sweep)["runs"]
    assert (good["status"], bad["status"]) == ("completed", "failed")
    assert (bad["attempt"], bad["failure"]["error_type"]) == (1, "NotANumberError")
    assert bad["mlflow_run_id"] not in (None, good["mlflow_run_id"])
    assert not still_running(user, sweep)


# --- commands ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(user: User) -> str:
    """A sweep of one run, computed by itself, and completed."""
    user.train("experiment=smoke", "cache=off")
    return user.newest_sweep()


def test_names_that_do_not_exist_are_told(user: User, finished: str) -> None:
    for arguments, expected in (
        (["status", "nope"], "nope does not exist; `bertpar ls` lists the sweeps"),
        (["attach", "nope"], "nope does not exist"),
        (["cancel", "nope"], "nope does not exist"),
        (["status", f"{finished}/0/train"], "another kind"),
        (["status", f"{finished}/0"], f"{finished}/0 names a run, not a sweep: its sweep is {finished}"),
        (["cancel", f"{finished}/0"], f"sweep {finished} has ended"),
        (["predict", f"{finished}/0", "--text", " "], "--text is empty"),
        (["cancel", f"{finished}/0/train"], "another kind"),
        (["checkpoints", f"{finished}/7"], f"sweep {finished} has no run 7; its runs: 0 to 0"),
        (["predict", "nope/0", "--text", "a"], "nope does not exist"),
        (["predict", f"{finished}/7", "--text", "a"], "has no run 7"),
        (["predict", f"{finished}/0", "--text", "a", "--step", "999"], "no checkpoint of step 999; there are: "),
    ):
        assert_refused(user.bertpar(*arguments, check=False), expected)


def test_a_finished_sweep_can_be_looked_at_and_not_be_cancelled(user: User, finished: str) -> None:
    assert "nothing to cancel" in user.bertpar("cancel", finished).stdout
    assert f"sweep {finished} completed" in user.bertpar("attach", finished).stdout
    status = user.json("status", finished)
    assert {"sweep_id", "status", "runs"} <= status.keys()
    run_keys = ("run_id", "index", "overrides", "status", "attempt", "step", "total_steps", "metrics", "checkpoints")
    assert {*run_keys, "mlflow_run_id"} <= status["runs"][0].keys()


def test_texts_that_cannot_be_predicted_are_told_by_line(user: User, finished: str, tmp_path: Path) -> None:
    run, file = f"{finished}/0", tmp_path / "in.jsonl"
    for lines, expected in (
        ('{"text": "a"}\nnonsense\n', f"--file {file} line 2: not JSON"),
        ('{"text": "a"}\n{"txt": "b"}\n', f'--file {file} line 2: must be an object like {{"text": "..."}}'),
        ('{"text": "a"}\n\n{"text": " "}\n', f"--file {file} line 3: its text is empty"),
        ("\n", f"--file {file} has no lines"),
    ):
        file.write_text(lines)
        assert_refused(user.bertpar("predict", run, "--file", str(file), check=False), expected)
    file.write_text('{"text": "a"}\n')
    to_folder = user.bertpar("predict", run, "--file", str(file), "--out", str(tmp_path), check=False)
    assert_refused(to_folder, f"--out {tmp_path} is a folder")
    onto_itself = user.bertpar("predict", run, "--file", str(file), "--out", str(file), check=False)
    assert_refused(onto_itself, f"--out {file} would overwrite --file {file}")
    assert file.read_text() == '{"text": "a"}\n'
    pair = user.bertpar("predict", run, "--text", "a", "--text-pair", "b", check=False)
    assert pair.returncode == 2
    assert "this model reads single texts" in pair.stderr


def interrupted_sweeps(user: User) -> list[dict[str, str]]:
    return [sweep for sweep in user.json("ls") if sweep["sweep_id"].startswith("interrupted")]


def test_ctrl_c_leaves_the_sweep_running_for_attach_and_predict_has_to_wait(user: User) -> None:
    client = user.start_training("experiment=smoke", "cache=off", "trainer.max_epochs=200", "sweep.name=interrupted")
    sweep = str(until(lambda: interrupted_sweeps(user))[0]["sweep_id"])

    def step() -> int:
        return int(user.json("status", sweep)["runs"][0]["step"])

    until(lambda: step() > 0)
    client.send_signal(signal.SIGINT)
    printed, _ = client.communicate(timeout=30)
    assert client.returncode == 130
    assert f"follow it:  bertpar attach {sweep}" in printed
    assert "Traceback" not in printed
    early = user.bertpar("predict", f"{sweep}/0", "--text", "a", check=False)
    assert_refused(early, f"{sweep}/0 has no best checkpoint: it is not trained to its end")
    attached = user.start("attach", sweep)
    assert attached.stdout is not None
    assert "training" in attached.stdout.readline()
    attached.send_signal(signal.SIGINT)
    printed, _ = attached.communicate(timeout=30)
    assert attached.returncode == 130
    assert "interrupted: the sweep goes on." in printed
    reached = step()
    until(lambda: step() > reached)
    user.bertpar("cancel", sweep)
    assert f"sweep {sweep} cancelled" in user.bertpar("attach", sweep, check=False).stdout


def test_a_detached_sweep_is_cancelled_from_elsewhere(user: User) -> None:
    started = time.monotonic()
    user.train("experiment=smoke", "cache=off", "trainer.max_epochs=200", "hydra.launcher.detach=true")
    assert time.monotonic() - started < 30
    sweep = user.newest_sweep()
    until(lambda: user.json("status", sweep)["runs"][0]["checkpoints"])
    user.bertpar("cancel", sweep)
    attached = user.bertpar("attach", sweep, check=False)
    assert attached.returncode == 1
    (run,) = user.json("status", sweep)["runs"]
    assert run["status"] == "cancelled"
    assert run["checkpoints"] > 0
    assert not still_running(user, sweep)
