"""One configuration from overrides, as `train.py` would compose it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import CompactHydraException

from bertpar.compose import compose_runs
from bertpar.errors import ConfigError
from bertpar.hydra_errors import explain
from bertpar.paths import Home, conf_dir
from bertpar.spec import RunSpec


def compose_run(overrides: Sequence[str], config_dir: Path | None, home: Home) -> RunSpec:
    """Return the specification of the one run that the overrides describe.

    Raises:
        ConfigError: they are wrong, or describe several runs.
    """
    search = [f"hydra.searchpath=[file://{config_dir.resolve()}]"] if config_dir is not None else []
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            config = compose("config", [*search, *overrides])
    except CompactHydraException as error:
        if "--multirun" in str(error):  # said by Hydra of choices and of lists of values
            raise ConfigError(f"{' '.join(overrides)} describes several runs: give one value for each key") from error
        raise ConfigError(explain(error)) from error
    _, (run,) = compose_runs([config], [""], home)
    return run
