"""Overrides become runs without Hydra's application, with its grammar and the same refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from bertpar.composing import Batch, compose_run, compose_sweep
from bertpar.errors import ConfigError
from bertpar.paths import Home, conf_dir

HOME = Home(Path("/nowhere"))


def composed(*overrides: str) -> Batch:
    return compose_sweep(["experiment=smoke", *overrides], HOME)


def test_lists_ranges_and_choices_expand_as_on_the_command_line() -> None:
    batch = composed("lr=1e-3,3e-3", "seed=range(1,3)", "optim.schedule=choice(linear,constant)")
    assert len(batch.runs) == 8
    assert batch.overrides[0] == ("experiment=smoke", "lr=0.001", "seed=1", "optim.schedule=linear")
    assert [run.optim.lr for run in batch.runs] == [1e-3] * 4 + [3e-3] * 4
    assert batch.given == {"experiment=smoke"}


def test_the_sweepers_own_parameters_in_a_file_are_swept_too(tmp_path: Path) -> None:
    file = tmp_path / "experiment" / "mine.yaml"
    file.parent.mkdir()
    file.write_text("# @package _global_\nhydra:\n  sweeper:\n    params:\n      seed: 1,2\n")
    batch = compose_sweep(["experiment=mine"], HOME, config_dir=tmp_path)
    assert [run.seed for run in batch.runs] == [1, 2]


def test_runs_are_numbered_from_where_their_sweep_stands() -> None:
    batch = compose_sweep(["lr=1e-3,3e-3"], HOME, first_index=4)
    assert [config.hydra.job.num for config in batch.configs] == [4, 5]


def test_a_folder_of_ones_own_is_searched_as_with_config_dir(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 17\n")
    assert compose_sweep(["experiment=mine"], HOME, config_dir=tmp_path).runs[0].seed == 17
    with pytest.raises(ConfigError, match="no_such_folder does not exist"):
        compose_sweep([], HOME, config_dir=tmp_path / "no_such_folder")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("foo=1", "foo is unknown. Choose from: budget, cache, checkpoint"),
        ("trainer.bachsize=1", "Did you mean trainer.batch_size"),
        ("model=minlm", "model=minlm is unknown; choose from: bert_base"),
        ("lr=1e-3,fast", "lr=fast must be a number > 0"),
        ("lr=[1", "lr=[1: no viable alternative"),
        ("lr=interval(0,1)", "hydra/sweeper=optuna"),
        ("hydra/launcher=basic", "hydra/launcher must be bertpar"),
        ("hydra.sweeper.max_batch_size=2", "sweep.max_parallel=2"),
        ("hydra.sweeper._target_=my.Sweeper", "python train.py -m"),
    ],
)
def test_what_cannot_be_submitted_is_refused_as_a_users_mistake(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        composed(override)
    assert message in str(caught.value)


def test_one_configuration_is_not_several() -> None:
    assert compose_run(["experiment=smoke", "seed=3"], None, HOME).seed == 3
    with pytest.raises(ConfigError, match="describes several runs: give one value for each key"):
        compose_run(["seed=1,2"], None, HOME)


def test_an_application_that_uses_hydra_itself_keeps_its_own() -> None:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        theirs = GlobalHydra.instance().hydra
        composed("lr=1e-3")
        assert GlobalHydra.instance().hydra is theirs
    composed("lr=1e-3")
    assert not GlobalHydra.instance().is_initialized()
