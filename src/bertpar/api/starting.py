"""Where Python's users have their sweeps from: started, found again, listed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bertpar import paths
from bertpar.api import background
from bertpar.api.cluster import Cluster, as_folder, say
from bertpar.api.frame import plan_frame
from bertpar.api.sweeping import Sweep
from bertpar.client import temporal_spec
from bertpar.composing import compose_sweep
from bertpar.listing import list_sweeps
from bertpar.naming import resolve_sweep
from bertpar.plans import make_plan
from bertpar.submit import submit

if TYPE_CHECKING:
    from pandas import DataFrame


def sweep(*overrides: str, config_dir: str | Path | None = None) -> Sweep:
    """Start a sweep, as `python train.py -m` does with the same overrides; return as soon as it is accepted.

    `config_dir` is a folder with YAML of your own, as for `--config-dir`.

    Raises:
        ConfigError: with one line per distinct problem; nothing was started.
        BertparError: the store, MLflow or Temporal cannot be reached.
    """
    home = paths.home()
    batch = compose_sweep(overrides, home, config_dir=as_folder(config_dir))
    submitted = background.run(submit(batch, home, final=True, say=say))
    return Sweep(Cluster(batch.sweep.temporal, home), submitted.sweep_id)


def plan(*overrides: str, config_dir: str | Path | None = None) -> DataFrame:
    """Return what would become of each run of that sweep: `verdict` (new, cached, resume, duplicate), why, how long.

    Data is prepared if that was not done before; nothing is trained.

    Raises:
        ConfigError, BertparError: as `sweep`.
    """
    home = paths.home()
    batch = compose_sweep(overrides, home, config_dir=as_folder(config_dir))
    return plan_frame(background.run(make_plan(batch, home, say)))


def attach(
    sweep_id: str, *, address: str | None = None, namespace: str | None = None, profile: str | None = None
) -> Sweep:
    """Return a sweep that runs or has ended, whoever started it.

    `sweep_id` may be shortened to any part that names one sweep; `last` is the newest. The options are those of
    `bertpar attach`.

    Raises:
        NotFoundError: there is no such sweep, or there are several; the message lists the candidates.
    """
    cluster = _cluster(address, namespace, profile)
    return Sweep(cluster, cluster.ask(lambda client: resolve_sweep(client, sweep_id)))


def sweeps(
    limit: int = 20, *, address: str | None = None, namespace: str | None = None, profile: str | None = None
) -> list[Sweep]:
    """Return the sweeps that were started last, newest first."""
    cluster = _cluster(address, namespace, profile)
    return [Sweep(cluster, entry.sweep_id) for entry in cluster.ask(lambda client: list_sweeps(client, limit))]


def _cluster(address: str | None, namespace: str | None, profile: str | None) -> Cluster:
    return Cluster(temporal_spec(address, namespace, profile), paths.home())
