"""The sweeps under fire: four runs that differ in everything that exact resumption has to get right."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf

from bertpar.data.packaged import packaged_file
from bertpar.paths import Home

Configuration = Literal["tiny", "minilm"]

HEARTBEAT_TIMEOUT_SECONDS = 2
_PREFIX = "storm_"
_NUM_PAIRS = 3000

_COMMON: dict[Configuration, dict[str, Any]] = {
    "tiny": {
        "cache": "off",
        "defaults": [{"override /model": "tiny"}],
        "data": {"train_size": 1200, "validation_size": 64, "test_size": 64, "max_length": 48},
        "trainer": {"max_epochs": 2, "batch_size": 8, "validate_every_n_steps": 50, "log_every_n_steps": 3},
        "checkpoint": {"every_n_steps": 8},
        "lr": 1e-3,
    },
    "minilm": {
        "cache": "off",
        "defaults": [{"override /model": "minilm"}],
        "data": {"train_size": 320, "validation_size": 64, "test_size": 64, "max_length": 64},
        "trainer": {"max_epochs": 2, "batch_size": 16, "validate_every_n_steps": 15, "log_every_n_steps": 3},
        "checkpoint": {"every_n_steps": 4},
    },
}
_RUNS: dict[str, dict[str, Any]] = {
    "plain": {},
    "pairs_accumulated": {
        "defaults": [{"override /data": "files"}],
        "data": {"text_column": "text", "text_pair_column": "pair", "label_column": "label"},
        "trainer": {"accumulate": 2},
        "optim": {"clip": 0.1, "warmup_ratio": 0.3, "schedule": "cosine"},
    },
    "stopped_early": {
        "trainer": {"early_stopping_patience": 3, "early_stopping_min_delta": 0.5, "validate_every_n_steps": 35}
    },
    "bf16": {"trainer": {"precision": "bf16"}, "optim": {"clip": None}},
}
"""Dropout is in all of them; what they have beside the common settings, by name."""


@dataclass(frozen=True, kw_only=True)
class Sweeps:
    """The commands of a storm's sweeps."""

    home: Home
    config_dir: Path
    overrides: tuple[str, ...]
    """The user's own, for all runs."""

    @property
    def experiments(self) -> list[str]:
        return [f"{_PREFIX}{name}" for name in _RUNS]

    def command(self, name: str, store_root: Path, tracking_uri: str | None) -> list[str]:
        """Return what a user would type to start a sweep of that name."""
        command = [str(Path(sys.executable).with_name("bertpar-train")), "-m", "--config-dir", str(self.config_dir)]
        command += [f"experiment={','.join(self.experiments)}", f"sweep.name={name}", f"store.root={store_root}"]
        command += [f"temporal.heartbeat_timeout={HEARTBEAT_TIMEOUT_SECONDS}", "sweep.max_parallel=2", *self.overrides]
        return command + ([f"tracking.uri={tracking_uri}"] if tracking_uri is not None else [])


def write_configurations(home: Home, configuration: Configuration, overrides: Sequence[str]) -> Sweeps:
    """Write the YAML of the runs into the home, and return the sweeps over them."""
    folder = home.root / "conf" / "experiment"
    folder.mkdir(parents=True, exist_ok=True)
    pairs = home.root / "pairs.jsonl"
    _write_pairs(pairs)
    for name, own in _RUNS.items():
        config = OmegaConf.merge(_COMMON[configuration], own, {"defaults": _defaults(configuration, own)})
        if "text_pair_column" in config.data:
            config.data.train_file = str(pairs)
        (folder / f"{_PREFIX}{name}.yaml").write_text("# @package _global_\n" + OmegaConf.to_yaml(config))
    return Sweeps(home=home, config_dir=folder.parent, overrides=tuple(overrides))


def _defaults(configuration: Configuration, own: dict[str, Any]) -> list[Any]:
    return [*_COMMON[configuration]["defaults"], *own.get("defaults", [])]


def _write_pairs(file: Path) -> None:
    """Write labelled pairs of sentences: each review with the one after it."""
    with gzip.open(packaged_file("movie_reviews"), "rt", encoding="utf-8") as source:
        rows = [line.rstrip("\n").split("\t") for line in source][1 : _NUM_PAIRS + 2]
    with file.open("w", encoding="utf-8") as target:
        for (_, _, label, text), (_, _, _, pair) in pairwise(rows):
            target.write(json.dumps({"text": text, "pair": pair, "label": label}) + "\n")
