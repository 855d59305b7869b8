"""Hydra's basic sweeper, which leaves it to the launcher to compose the jobs.

Hydra imports this file at each start.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore


@dataclass
class BertparSweeperConf(BasicSweeperConf):
    """`hydra.sweeper.*`, as of Hydra's own."""

    _target_: str = "hydra_plugins.bertpar_sweeper.BertparSweeper"


class BertparSweeper(BasicSweeper):
    """Launches the product of all values."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Do nothing: Hydra's would compose every job, as the launcher does before it submits any."""


ConfigStore.instance().store(group="hydra/sweeper", name="bertpar", node=BertparSweeperConf, provider="bertpar_sweeper")
