"""From the command line to a followed sweep: Hydra's entry point, and what its launcher plugin does."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from bertpar.cli import DEBUG_VARIABLE, leave
from bertpar.errors import BertparError, ConfigError
from bertpar.paths import HOME_VARIABLE, Home, conf_dir, home

if TYPE_CHECKING:
    from bertpar.observe import SweepView
    from bertpar.states import RunState

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

_HYDRA_FULL_ERROR = "HYDRA_FULL_ERROR"

_sessions: list[Session] = []
"""Those of this process, for the exit code: Hydra hands nothing back from a launcher to its application."""


def main() -> None:
    """Run Hydra's application on sys.argv and leave with 0 only if every run of the sweep completed."""
    os.environ.setdefault(HOME_VARIABLE, str(home().root))
    in_full = bool(os.environ.get(DEBUG_VARIABLE) or os.environ.get(_HYDRA_FULL_ERROR))
    os.environ[_HYDRA_FULL_ERROR] = "1"  # Hydra then raises instead of printing its own message
    code = 0
    try:
        _run_hydra()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except KeyboardInterrupt:
        code = INTERRUPTED
    except CompactHydraException as error:
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
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(_run_here)()
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

    def __init__(self, hydra_context: HydraContext, config: DictConfig, *, detach: bool, poll_seconds: float) -> None:
        self._loader = hydra_context.config_loader
        self._config = config
        self._detach = detach
        self._poll_seconds = poll_seconds
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
        from bertpar import follow, submit, tracking
        from bertpar.client import connect, web_ui
        from bertpar.code import code_digest
        from bertpar.compose import compose_runs
        from bertpar.patience import PatientClient
        from bertpar.store import Store

        if not self._poll_seconds > 0:
            raise ConfigError(f"hydra.launcher.poll_seconds={self._poll_seconds:g} must be a number > 0, in seconds")
        configs = [self._compose(list(o), first_index + i) for i, o in enumerate(job_overrides)]
        tasks = [_without_hydra(config) for config in configs]
        overrides = [list(config.hydra.overrides.task) for config in configs]
        sweep, runs = compose_runs(tasks, [" ".join(o) for o in overrides], self._home)
        store = Store(sweep.store_root, self._home.cache)
        store.check_writable()
        tracking.check_reachable(sweep.tracking)

        self._temporal = sweep.temporal
        client = await connect(sweep.temporal, self._home, on_wait=_say)
        code = code_digest()
        sweep_id = self._sweep_id or submit.new_sweep_id(sweep.name)
        given = _given_values(self._config.hydra.overrides.task)
        refs = submit.run_refs(sweep_id, runs, overrides, first_index, store, code, given)
        options = submit.sweep_options(sweep, web_ui(sweep.temporal, self._home), code)
        final = _one_batch(self._config)
        await submit.submit_batch(client, sweep_id, sweep.name, options, refs, final=final, say=_say)
        if self._sweep_id is None:
            follow.announce(sweep_id, len(refs) if final else None, options)
        self._sweep_id = sweep_id
        indices = {ref.index for ref in refs}
        if self._detach:
            return [self._job_return(i, tasks, configs, None) for i in range(len(refs))]
        patient = PatientClient(client, sweep.temporal, self._home)
        followed = None if final else indices  # a final batch is followed until the sweep itself has ended
        view = await follow.follow_runs(patient, sweep_id, followed, self._poll_seconds, self._home)
        return self._job_returns(view, indices, tasks, configs)

    def _compose(self, overrides: list[str], index: int) -> DictConfig:
        config = self._loader.load_sweep_config(self._config, overrides)
        with open_dict(config):
            config.hydra.job.id = str(index)
            config.hydra.job.num = index
        return config

    def _job_returns(
        self, view: SweepView, indices: set[int], tasks: list[DictConfig], configs: list[DictConfig]
    ) -> list[JobReturn]:
        states = [run.state for run in view.runs if run.state.run.index in indices]
        self.failed |= any(state.status != "completed" for state in states)
        return [self._job_return(i, tasks, configs, state) for i, state in enumerate(states)]

    def _job_return(
        self, position: int, tasks: list[DictConfig], configs: list[DictConfig], state: RunState | None
    ) -> JobReturn:
        objective = state.metrics.get(state.run.objective) if state and state.status == "completed" else None
        result = JobReturn(
            overrides=list(configs[position].hydra.overrides.task),
            cfg=tasks[position],
            hydra_cfg=OmegaConf.masked_copy(configs[position], "hydra"),
            working_dir=str(Path.cwd()),
            task_name=configs[position].hydra.job.name,
            status=JobStatus.COMPLETED,
        )
        result.return_value = float("nan") if objective is None else objective
        # BasicSweeper would raise at once and lose the later batches; others have a policy of their own for failures.
        if state is not None and objective is None and not _is_basic(self._config):
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
    return _is_basic(config) and config.hydra.sweeper.get("max_batch_size") is None


def _is_basic(config: DictConfig) -> bool:
    return str(config.hydra.sweeper.get("_target_", "")).endswith(".BasicSweeper")


def _given_values(overrides: Sequence[str]) -> set[str]:
    """Return the overrides of a command line that give one value, in the form in which a sweeper passes them on."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return {f"{o.get_key_element()}={o.get_value_element_as_str()}" for o in parsed if not o.is_sweep_override()}


def _without_hydra(config: DictConfig) -> DictConfig:
    task = config.copy()
    with open_dict(task):
        del task["hydra"]
    return task
