"""Says what Hydra refuses the way every other error is said: key, value, what is allowed."""

from __future__ import annotations

from difflib import get_close_matches

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import CompactHydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from bertpar.paths import conf_dir

_HELP = "--cfg job shows every key, --help every group"


def explain(error: CompactHydraException) -> str:
    """Return what is wrong with an override that Hydra refused, and what it could have been."""
    cause = error.__cause__
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and cause.full_key:
        return _unknown_key(str(cause.full_key))
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={option} is unknown; choose from: {', '.join(error.options)}"
    lines = [str(error).strip().split("\nSee https://")[0]]
    if isinstance(cause, OmegaConfBaseException):
        lines.append(str(cause).splitlines()[0])
    return "; ".join(lines)


def _unknown_key(key: str) -> str:
    section_key, _, name = key.rpartition(".")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("config", return_hydra_config=True)
    known = _keys(config)
    by_name = {known_key.rpartition(".")[2]: known_key for known_key in known}
    close = [*get_close_matches(key, known), *(by_name[n] for n in get_close_matches(name, by_name))]
    meant = f"Did you mean {' or '.join(dict.fromkeys(close))}? " if close else ""
    siblings = sorted(k for k in known if k.rpartition(".")[0] == section_key)
    return f"{key} is unknown. {meant}Choose from: {', '.join(siblings)}; {_HELP}"


def _keys(config: DictConfig, prefix: str = "") -> list[str]:
    """Return the dotted keys of `config`; of Hydra's own only the launcher's."""
    keys: list[str] = []
    for name in map(str, config):
        node = None if config._is_missing(name) else config._get_node(name)
        key = f"{prefix}{name}"
        if key == "hydra":
            keys += _keys(config.hydra.launcher, "hydra.launcher.")
            continue
        keys.append(key)
        if isinstance(node, DictConfig):
            keys += _keys(node, f"{key}.")
    return keys
