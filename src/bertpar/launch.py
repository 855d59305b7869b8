"""From the command line to a followed sweep: Hydra's entry point, and what its launcher plugin does."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from bertpar.cli import DEBUG_VARIABLE, leave
from bertpar.errors import BertparError, ConfigError
from bertpar.hydra_loader import CONFIG_NAME, VERSION_BASE
from bertpar.paths import HOME_VARIABLE, Home, conf_dir, home

if TYPE_CHECKING:
    from bertpar.composing import Batch
    from bertpar.observe import SweepView
    from bertpar.states import RunState

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

_PLAN_FLAG = "--plan"
_PLAN_OVERRIDE = "hydra.launcher.plan=true"
"""What the flag stands for: Hydra's command line takes no flags of others."""

_HYDRA_FULL_ERROR = "HYDRA_FULL_ERROR"

_sessions: list[Session] = []
"""Those of this process, for the exit code: Hydra hands nothing back from a launcher to its application."""


def main() -> None:
    """Run Hydra's application on sys.argv and leave with 0 only if every run of the sweep completed."""
    os.environ.setdefault(HOME_VARIABLE, str(home().root))
    in_full = bool(os.environ.get(DEBUG_VARIABLE) or os.environ.get(_HYDRA_FULL_ERROR))
    os.environ[_HYDRA_FULL_ERROR] = "1"  # Hydra then raises instead of printing its own message
    sys.argv = [_PLAN_OVERRIDE if argument == _PLAN_FLAG else argument for argument in sys.argv]
    code = 0
    try:
        _run_hydra()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except KeyboardInterrupt:
        code = INTERRUPTED
    except HydraException as error:
        if in_full:
            raise
        from bertpar.hydra_errors import explain

        code = _complain(ConfigError(explain(error)))
    except BertparError as error:
        code = _complain(error)
    leave(code or int(any(session.failed for session in _sessions)))


def _run_hydra() -> None:
    """Run Hydra's application; when its sweeper has ended, or failed, no batch follows."""
    try:
        hydra.main(version_base=VERSION_BASE, config_path=str(conf_dir()), config_name=CONFIG_NAME)(_run_here)()
    except Exception:
        _close_sessions()
        raise
    except BaseException:  # Ctrl-C, or a batch that was refused, has been told of
        _close_sessions(follow=False)
        raise
    _close_sessions()


def _close_sessions(*, follow: bool = True) -> None:
    for session in _sessions:
        session.close(follow=follow)


def _run_here(config: DictConfig) -> None:
    raise ConfigError(
        "hydra/launcher must be bertpar, and hydra.mode MULTIRUN: runs are carried out by workers, not in this process"
    )


def _complain(error: BertparError) -> int:
    """Print the error, line by line, and return its exit code."""
    for line in str(error).splitlines():
        print(f"error: {line}", file=sys.stderr)
    return error.exit_code


class Session:
    """One multirun: every batch that Hydra's sweeper launches becomes a part of the same sweep."""

    def __init__(
        self, hydra_context: HydraContext, config: DictConfig, *, detach: bool, poll_seconds: float, plan: bool
    ) -> None:
        self._loader = hydra_context.config_loader
        self._config = config
        self._detach = detach
        self._poll_seconds = poll_seconds
        self._plan = plan
        self._home: Home = home()
        self._sweep_id: str | None = None
        self._temporal: Any = None
        self.failed = False
        """A run of any batch did not complete."""
        _sessions.append(self)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Check, submit and follow one batch; leaves the process with a message where it cannot."""
        # As Hydra's own launchers do: some sweepers write their results there.
        Path(self._config.hydra.sweep.dir).mkdir(parents=True, exist_ok=True)
        try:
            return asyncio.run(self._launch(job_overrides, initial_job_idx))
        except BertparError as error:
            raise SystemExit(_complain(error)) from None
        except KeyboardInterrupt:
            self._say_goodbye()
            raise SystemExit(INTERRUPTED) from None

    def close(self, *, follow: bool) -> None:
        """Tell the coordinator that no batch follows; `follow` the sweep to its end, to show the ranking."""
        if self._sweep_id is None or _one_batch(self._config):
            return
        try:
            asyncio.run(self._close(follow and not self._detach))
        except KeyboardInterrupt:
            self._say_goodbye()
            raise

    async def _close(self, follow_to_end: bool) -> None:
        from bertpar import follow
        from bertpar.client import connect
        from bertpar.patience import PatientClient
        from bertpar.workflows.coordinator import CoordinatorWorkflow

        sweep_id = self._sweep_id
        assert sweep_id is not None
        client = PatientClient(await connect(self._temporal, self._home), self._temporal, self._home)
        await client.ask(lambda c: c.get_workflow_handle(sweep_id).signal(CoordinatorWorkflow.close))
        if follow_to_end:
            await follow.follow_ending(client, sweep_id, self._poll_seconds, self._home)

    async def _launch(self, job_overrides: Sequence[Sequence[str]], first_index: int) -> list[JobReturn]:
        from bertpar import follow
        from bertpar.composing import compose_batch
        from bertpar.patience import PatientClient
        from bertpar.submit import submit

        if not self._poll_seconds > 0:
            raise ConfigError(f"hydra.launcher.poll_seconds={self._poll_seconds:g} must be a number > 0, in seconds")
        batch = compose_batch(self._loader, self._config, job_overrides, first_index, self._home)
        if self._plan:
            return await self._show_plan(batch)
        self._temporal = batch.sweep.temporal
        final = _one_batch(self._config)
        submitted = await submit(batch, self._home, sweep_id=self._sweep_id, final=final, say=_say)
        sweep_id, num_runs = submitted.sweep_id, len(batch.runs)
        if self._sweep_id is None:
            follow.announce(sweep_id, num_runs if final else None, submitted.options)
        self._sweep_id = sweep_id
        if self._detach:
            return [self._job_return(config, None) for config in batch.configs]
        patient = PatientClient(submitted.client, self._temporal, self._home)
        indices = set(range(first_index, first_index + num_runs))
        followed = None if final else indices  # a final batch is followed until the sweep itself has ended
        view = await follow.follow_runs(patient, sweep_id, followed, self._poll_seconds, self._home)
        return self._job_returns(view, indices, batch.configs)

    async def _show_plan(self, batch: Batch) -> list[JobReturn]:
        from bertpar.composing import is_basic
        from bertpar.follow import make_console
        from bertpar.plans import make_plan, show_plan

        if not is_basic(self._config):
            raise ConfigError("--plan: this sweeper chooses runs by the results of others, which a plan has not")
        make_console().print(show_plan(await make_plan(batch, self._home, _say)), highlight=False)
        return [self._job_return(config, None) for config in batch.configs]

    def _job_returns(self, view: SweepView, indices: set[int], configs: Sequence[DictConfig]) -> list[JobReturn]:
        states = [run.state for run in view.runs if run.state.run.index in indices]
        self.failed |= view.sweep.status == "cancelled"
        self.failed |= any(state.status != "completed" and not state.cancelled_by_user for state in states)
        return [self._job_return(config, state) for config, state in zip(configs, states, strict=True)]

    def _job_return(self, config: DictConfig, state: RunState | None) -> JobReturn:
        from bertpar.composing import is_basic, without_hydra

        objective = state.metrics.get(state.run.objective) if state and state.status == "completed" else None
        result = JobReturn(
            overrides=list(config.hydra.overrides.task),
            cfg=without_hydra(config),
            hydra_cfg=OmegaConf.masked_copy(config, "hydra"),
            working_dir=str(Path.cwd()),
            task_name=config.hydra.job.name,
            status=JobStatus.COMPLETED,
        )
        result.return_value = float("nan") if objective is None else objective
        # BasicSweeper would raise at once and lose the later batches; others have a policy of their own for failures.
        if state is not None and objective is None and not is_basic(self._config):
            result.status = JobStatus.FAILED
            cause = state.failure.message if state.failure else state.status
            result.return_value = BertparError(f"{state.run.run_id} did not complete: {cause}")
        return result

    def _say_goodbye(self) -> None:
        if self._sweep_id is None:
            print("interrupted: nothing was submitted", file=sys.stderr)
        else:
            from bertpar import follow

            follow.say_goodbye(self._sweep_id)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _one_batch(config: DictConfig) -> bool:
    """Say whether Hydra's sweeper launches exactly one batch, so that the sweep can end without this client."""
    from bertpar.composing import is_basic

    return is_basic(config) and config.hydra.sweeper.get("max_batch_size") is None
