"""Hydra's launcher plugin: hands every job of a multirun to one durable sweep.

Hydra imports this file at each start: everything else is imported when a sweep is launched. It does so without an
entry in sys.modules, where a dataclass would look for its annotations if they were postponed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from bertpar.launch import Session


@dataclass
class BertparLauncherConf:
    """`hydra.launcher.*`: how this client behaves. What is computed is configured elsewhere."""

    _target_: str = "hydra_plugins.bertpar_launcher.BertparLauncher"
    detach: bool = False
    """Return as soon as the sweep is accepted, with nan for every objective."""
    poll_seconds: float = 0.5
    """How often to ask for the sweep's state."""
    plan: bool = False
    """Tell what would become of the runs, and start nothing: what `--plan` stands for."""


class BertparLauncher(Launcher):
    """Runs each batch of jobs as runs of one sweep, and waits for them."""

    def __init__(self, detach: bool, poll_seconds: float, plan: bool) -> None:
        self.detach = detach
        self.poll_seconds = poll_seconds
        self.plan = plan
        self._session: Session | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._hydra_context = hydra_context
        self._config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Return one JobReturn a job, in order; a failed run's value is nan and sets the exit code."""
        from bertpar.launch import Session

        if self._session is None:
            self._session = Session(
                self._hydra_context,
                self._config,
                detach=self.detach,
                poll_seconds=self.poll_seconds,
                plan=self.plan,
            )
        return self._session.launch(job_overrides, initial_job_idx)


ConfigStore.instance().store(
    group="hydra/launcher", name="bertpar", node=BertparLauncherConf, provider="bertpar_launcher"
)
