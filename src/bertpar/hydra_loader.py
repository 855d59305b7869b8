"""Hydra's configuration loader outside of Hydra's own application, which it leaves as it finds it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.utils import setup_globals
from hydra.types import RunMode
from omegaconf import DictConfig

from bertpar.errors import ConfigError
from bertpar.paths import conf_dir

VERSION_BASE = "1.3"
CONFIG_NAME = "config"
JOB_NAME = "train"


def load_multirun(overrides: Sequence[str], config_dir: Path | None = None) -> tuple[ConfigLoader, DictConfig]:
    """Return Hydra's loader and the configuration that `train.py -m` hands to its sweeper for these overrides.

    Hydra's compose API is not used: it works on a global that belongs to whoever calls us, a notebook say.

    Raises:
        ConfigError: `config_dir` is no folder.
        HydraException: Hydra refuses an override.
    """
    version.setbase(VERSION_BASE)
    setup_globals()
    search_path = create_config_search_path(str(conf_dir()))
    if config_dir is not None:
        if not config_dir.is_dir():
            raise ConfigError(f"the folder of configuration {config_dir} does not exist")
        folder = f"file://{config_dir.resolve()}"  # at the place that Hydra gives to --config-dir
        search_path.prepend("command-line", folder, anchor=SearchPathQuery(provider="schema"))
    loader = ConfigLoaderImpl(search_path)
    given = [f"hydra.job.name={JOB_NAME}", *overrides]
    return loader, loader.load_configuration(CONFIG_NAME, given, run_mode=RunMode.MULTIRUN)
