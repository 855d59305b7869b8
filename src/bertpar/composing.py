"""From overrides to a checked batch of runs: the one way for the command line, Python and the proofs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict

from bertpar.compose import SweepSpec, compose_runs
from bertpar.errors import ConfigError
from bertpar.hydra_errors import explain
from bertpar.hydra_loader import load_multirun
from bertpar.paths import Home
from bertpar.spec import RunSpec

_LAUNCHER = "hydra_plugins.bertpar_launcher.BertparLauncher"


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Runs that are submitted together: what they compute, checked, and how each came about."""

    sweep: SweepSpec
    runs: tuple[RunSpec, ...]
    configs: tuple[DictConfig, ...]
    """As Hydra composed them, with its own node `hydra`."""
    overrides: tuple[tuple[str, ...], ...]
    """Of each run, one value a key."""
    given: frozenset[str]
    """The overrides that no sweeper chose, in the form in which it passes them on."""
    first_index: int
    """Of the first of these runs in their sweep."""


def compose_batch(
    loader: ConfigLoader, multirun: DictConfig, overrides: Sequence[Sequence[str]], first_index: int, home: Home
) -> Batch:
    """Return the batch of the runs for which a sweeper of `multirun` chose these overrides.

    Raises:
        ConfigError: with one line per distinct problem of any run.
        HydraException: Hydra refuses an override.
    """
    configs = tuple(_compose(loader, multirun, list(o), first_index + i) for i, o in enumerate(overrides))
    tasks = [without_hydra(config) for config in configs]
    by_run = tuple(tuple(config.hydra.overrides.task) for config in configs)
    sweep, runs = compose_runs(tasks, [" ".join(o) for o in by_run], home)
    return Batch(
        sweep=sweep,
        runs=tuple(runs),
        configs=configs,
        overrides=by_run,
        given=frozenset(given_values(multirun.hydra.overrides.task)),
        first_index=first_index,
    )


def compose_sweep(
    overrides: Sequence[str], home: Home, *, config_dir: Path | None = None, first_index: int = 0
) -> Batch:
    """Return the batch of all runs that `train.py -m` would launch for these overrides, which it would refuse alike.

    Raises:
        ConfigError: with one line per distinct problem of any run.
    """
    with _hydras_mistakes_told():
        loader, multirun = load_multirun(overrides, config_dir)
        return compose_batch(loader, multirun, _expand(loader, multirun), first_index, home)


def compose_run(overrides: Sequence[str], config_dir: Path | None, home: Home) -> RunSpec:
    """Return the specification of the one run that the overrides describe.

    Raises:
        ConfigError: they are wrong, or describe several runs.
    """
    batch = compose_sweep(overrides, home, config_dir=config_dir)
    if len(batch.runs) > 1:
        raise ConfigError(f"{' '.join(overrides)} describes several runs: give one value for each key")
    return batch.runs[0]


def is_basic(multirun: DictConfig) -> bool:
    """Say whether the sweeper that is configured is Hydra's own, or ours, which know all runs beforehand."""
    return str(multirun.hydra.sweeper.get("_target_", "")).endswith((".BasicSweeper", ".BertparSweeper"))


def given_values(overrides: Sequence[str]) -> set[str]:
    """Return the overrides of a command line that give one value, in the form in which a sweeper passes them on."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return {f"{o.get_key_element()}={o.get_value_element_as_str()}" for o in parsed if not o.is_sweep_override()}


def without_hydra(config: DictConfig) -> DictConfig:
    """Return a copy of the configuration without Hydra's own node: what a task is given."""
    task = config.copy()
    with open_dict(task):
        del task["hydra"]
    return task


def _expand(loader: ConfigLoader, multirun: DictConfig) -> list[list[str]]:
    """Return the overrides of every run, as BasicSweeper makes them in one batch."""
    _refuse_other_ways(multirun)
    chosen = [f"{key}={value}" for key, value in (multirun.hydra.sweeper.params or {}).items()]
    parsed = OverridesParser.create(loader).parse_overrides([*chosen, *multirun.hydra.overrides.task])
    (batch,) = BasicSweeper.split_arguments(parsed, None)
    return batch


def _refuse_other_ways(multirun: DictConfig) -> None:
    if multirun.hydra.launcher.get("_target_") != _LAUNCHER:
        raise ConfigError("hydra/launcher must be bertpar: runs are carried out by workers, not in this process")
    if not is_basic(multirun):
        name = multirun.hydra.runtime.choices.get("hydra/sweeper")
        raise ConfigError(
            f"hydra/sweeper={name} chooses runs by the results of others: start it with python train.py -m"
        )
    if (size := multirun.hydra.sweeper.max_batch_size) is not None:
        raise ConfigError(
            f"hydra.sweeper.max_batch_size={size} is for python train.py -m: here all runs are submitted at once. "
            f"To limit how many of them run side by side: sweep.max_parallel={size}"
        )


def _compose(loader: ConfigLoader, multirun: DictConfig, overrides: list[str], index: int) -> DictConfig:
    config = loader.load_sweep_config(multirun, overrides)
    with open_dict(config):
        config.hydra.job.id = str(index)
        config.hydra.job.num = index
    return config


@contextmanager
def _hydras_mistakes_told() -> Iterator[None]:
    try:
        yield
    except HydraException as error:
        raise ConfigError(explain(error)) from error
