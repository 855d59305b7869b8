"""Says what Hydra refuses the way every other error is said: key, value, what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from bertpar.compose import MISPLACED_EXPERIMENT
from bertpar.hydra_loader import load_multirun

_CHOSEN_TWICE = re.compile(r"Multiple values for (\S+)\. To override a value use 'override \S+: (\S+)'")

_UNSUPPORTED_SWEEP = "BasicSweeper does not support sweep type"


def explain(error: HydraException) -> str:
    """Return what is wrong with an override that Hydra refused, and what it could have been."""
    if _UNSUPPORTED_SWEEP in str(error):
        return (
            "interval(...) leaves the choice of values to a sweeper that can choose, say hydra/sweeper=optuna. "
            "Hydra's own needs them all: lr=1e-4,3e-4, choice(...) or range(...)"
        )
    cause = error.__cause__
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and cause.full_key:
        return _unknown_key(str(cause.full_key))
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={option} is unknown; choose from: {', '.join(error.options)}"
    if chosen := _CHOSEN_TWICE.search(str(error)):
        group, option = chosen.groups()
        return f"+{group}={option}: {group} has a place in the configuration already. Leave out the +: {group}={option}"
    if "@experiment." in str(error):
        return f"experiment: {MISPLACED_EXPERIMENT}"
    lines = str(error).split("Config search path:")[0].split("See https://")[0].splitlines()
    if isinstance(cause, OmegaConfBaseException):
        lines.append(str(cause).splitlines()[0])
    gist = "; ".join(line.strip(" .") for line in lines if line.strip())
    return f"{error.override}: {gist}" if isinstance(error, OverrideParseException) else gist


def _unknown_key(key: str) -> str:
    section, _, name = key.rpartition(".")
    known = _known_keys()
    by_name = {known_key.rpartition(".")[2]: known_key for known_key in known}
    close = [*get_close_matches(key, known), *(by_name[n] for n in get_close_matches(name, by_name))]
    meant = f"Did you mean {' or '.join(dict.fromkeys(close))}? " if close else ""
    siblings = sorted(k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == section)
    allowed = f"Choose from: {', '.join(siblings)}. " if siblings else ""
    return f"{key} is unknown. {meant}{allowed}--cfg job shows every key, --help every group"


def _known_keys() -> list[str]:
    """Return the dotted keys of the default configuration, groups too; of Hydra's own the launcher's alone."""
    _, config = load_multirun([])
    launcher = OmegaConf.to_container(config.hydra.launcher)
    with open_dict(config):
        del config["hydra"]
    plain = OmegaConf.to_container(config)
    assert isinstance(plain, dict)
    assert isinstance(launcher, dict)
    return [*_dotted(plain), *_dotted(launcher, "hydra.launcher.")]


def _dotted(section: Mapping[Any, Any], prefix: str = "") -> Iterator[str]:
    for key, value in section.items():
        if not str(key).startswith("_"):
            yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
