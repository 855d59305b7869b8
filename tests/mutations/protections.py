"""The protections that durability rests on, and how to remove each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Protection:
    """A piece of code that must be noticed when it is gone."""

    name: str
    file: str
    """Below src/bertpar/."""
    code: str
    """Occurs there exactly once."""
    instead: str
    tests: tuple[str, ...]
    """Node ids below tests/, of which one at least must fail."""


_RESUME = ("training/test_resume.py",)
_OUTAGES = ("training/test_outages.py",)
_FENCE = ("training/test_fence.py",)
_CONTINUITY = ("training/test_continuity.py",)
_FILES = ("faults/test_corruption.py", "unit/test_store.py")
_TRACKING = ("training/test_tracking.py",)
_WORKFLOWS = ("workflows/test_training.py", "workflows/test_outages.py", "workflows/test_coordinator.py")

PROTECTIONS = (
    # --- exact resumption ---------------------------------------------------------------------------------
    Protection(
        name="dropout is seeded by the step",
        file="training/module.py",
        code="torch.manual_seed(seed_at(step, self.spec.seed))",
        instead="pass",
        tests=_RESUME,
    ),
    Protection(
        name="the examples follow from the step",
        file="training/batches.py",
        code="        self._done = done\n",
        instead="        self._done = 0\n",
        tests=_RESUME,
    ),
    Protection(
        name="the step is restored",
        file="training/run.py",
        code="self.started_at = module.step = state.step",
        instead="self.started_at = state.step",
        tests=_RESUME,
    ),
    Protection(
        name="the optimizer's state is restored",
        file="training/callbacks.py",
        code="trainer.optimizers[0].load_state_dict(self._optimizer_state)",
        instead="pass",
        tests=_RESUME,
    ),
    Protection(
        name="losses not yet logged are restored",
        file="training/state.py",
        code='window=plain["window"]',
        instead="window=[]",
        tests=_RESUME,
    ),
    Protection(
        name="a checkpoint follows a whole step",
        file="training/callbacks.py",
        code="        state.step = step\n",
        instead="        state.step = step - 1\n",
        tests=_RESUME,
    ),
    Protection(
        name="a validation that was left undone is done",
        file="training/callbacks.py",
        code="return self.state.step in self._validation_steps and not validated",
        instead="return False",
        tests=_RESUME,
    ),
    Protection(
        name="another run's checkpoint is refused",
        file="training/continuity.py",
        code="if found := differences(theirs, self._run):",
        instead="if found := []:",
        tests=_CONTINUITY,
    ),
    Protection(
        name="another kind of machine is refused",
        file="training/continuity.py",
        code="        if not found:\n            return\n",
        instead="        return\n",
        tests=_CONTINUITY,
    ),
    # --- trusted files ------------------------------------------------------------------------------------
    Protection(
        name="a manifest commits to the byte",
        file="store/bundle.py",
        code="return bundle if bundle.manifest() == raw else None",
        instead="return bundle",
        tests=_FILES,
    ),
    Protection(
        name="files are checked against their digest",
        file="store/bundle.py",
        code="if sha256_of(path) != sha256:",
        instead="if False:",
        tests=_FILES,
    ),
    Protection(
        name="what lies at a key is moved before it is looked at",
        file="store/local.py",
        code="if _committed(aside, key) is None or not _move(aside, self.path(key)):",
        instead="if True:",
        tests=("unit/test_store.py", "faults/test_publish_points.py"),
    ),
    Protection(
        name="a best checkpoint is checked at the end",
        file="training/run.py",
        code="damaged = [c.step for c in (best, last) if not is_intact(store, c, attempt.note)]",
        instead="damaged: list[int] = []",
        tests=("training/test_damaged_checkpoints.py",),
    ),
    # --- signals and attempts -----------------------------------------------------------------------------
    Protection(
        name="checkpoints that were never signalled are found",
        file="checkpoints.py",
        code="for key in store.list(checkpoints_folder(run_id)):",
        instead="for key in list[str]():",
        tests=_RESUME,
    ),
    Protection(
        name="checkpoints that were never signalled are signalled",
        file="training/callbacks.py",
        code="                self._say_saved(checkpoint, gone)\n",
        instead="                pass\n",
        tests=_RESUME,
    ),
    Protection(
        name="a superseded attempt's signal is ignored",
        file="workflows/training.py",
        code="if saved.attempt < len(self._attempts):",
        instead="if False:",
        tests=_WORKFLOWS[:1],
    ),
    Protection(
        name="resume points are sorted by number",
        file="workflows/training.py",
        code="newest_first = sorted(existing, key=lambda c: (c.step, c.attempt), reverse=True)",
        instead="newest_first = sorted(existing, key=lambda c: c.key, reverse=True)",
        tests=_WORKFLOWS[:1],
    ),
    Protection(
        name="a lost worker is not the run's fault",
        file="errors.py",
        code='the network is gone."""\n\n    action = Action.AGAIN',
        instead='the network is gone."""\n\n    action = Action.RETRY',
        tests=("unit/test_failures.py", *_WORKFLOWS[:1]),
    ),
    Protection(
        name="no workflow is kept between its tasks",
        file="worker.py",
        code="max_cached_workflows=0",
        instead="max_cached_workflows=500 if workflows else 0",
        tests=("workflows/test_lost_worker.py",),
    ),
    # --- fencing ------------------------------------------------------------------------------------------
    Protection(
        name="an older attempt on this host is killed",
        file="training/fence.py",
        code="                _kill(holder)\n",
        instead="                pass\n",
        tests=_FENCE,
    ),
    Protection(
        name="an attempt looks for newer marks before it writes",
        file="training/fence.py",
        code="        _refuse_if_newer(newest, self._attempt)\n",
        instead="        pass\n",
        tests=_FENCE,
    ),
    Protection(
        name="a late older attempt gives way",
        file="training/fence.py",
        code="            _refuse_if_newer(holder.attempt, attempt)\n",
        instead="            pass\n",
        tests=_FENCE,
    ),
    Protection(
        name="a job dies with its worker",
        file="jobs.py",
        code="ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)",
        instead="pass",
        tests=("faults/test_job_processes.py",),
    ),
    Protection(
        name="a silent job has no heartbeats",
        file="activities/_job.py",
        code="        if pulse.is_alive():\n",
        instead="        if True:\n",
        tests=("faults/test_job_processes.py",),
    ),
    # --- MLflow -------------------------------------------------------------------------------------------
    Protection(
        name="rows that MLflow may not have are kept in checkpoints",
        file="training/callbacks.py",
        code="state.rows = [*self._outbox.undelivered(), *new_rows]",
        instead="state.rows = new_rows",
        tests=_OUTAGES,
    ),
    Protection(
        name="what waits in the last checkpoint is delivered at the end",
        file="tracking/runs.py",
        code="    log_missing_rows(uri, run.run_id, waiting_rows(store, job.opening.identity))\n",
        instead="",
        tests=_OUTAGES,
    ),
    Protection(
        name="a step made again is no second row",
        file="tracking/rows.py",
        code="log_rows(uri, run_id, [row for row in rows if (row.key, row.step) not in there])",
        instead="log_rows(uri, run_id, rows)",
        tests=_OUTAGES,
    ),
    Protection(
        name="other bits for the same step are an alarm",
        file="tracking/rows.py",
        code="    if contradictions:\n",
        instead="    if False:\n",
        tests=_OUTAGES,
    ),
    Protection(
        name="one MLflow run stays of two",
        file="tracking/runs.py",
        code="client.delete_run(other.info.run_id)",
        instead="pass",
        tests=_TRACKING,
    ),
    Protection(
        name="no run waits for MLflow",
        file="workflows/training.py",
        code="        opening = asyncio.ensure_future(self._open_run())\n",
        instead="        opening = asyncio.ensure_future(self._open_run())\n        await opening\n",
        tests=_WORKFLOWS[1:2],
    ),
    # --- outages and damage -------------------------------------------------------------------------------
    Protection(
        name="a training waits for space in place",
        file="training/callbacks.py",
        code="            except StoreError as error:\n",
        instead="            except ZeroDivisionError as error:\n",
        tests=_OUTAGES,
    ),
    Protection(
        name="a damaged snapshot is made again",
        file="workflows/calls.py",
        code="if not is_damage or num_rebuilds == _MAX_REBUILDS:",
        instead="if True:",
        tests=_WORKFLOWS[1:2],
    ),
    Protection(
        name="a snapshot whose source has changed is not taken for it",
        file="workflows/calls.py",
        code="        if made != snapshot:\n",
        instead="        if False:\n",
        tests=_WORKFLOWS[1:2],
    ),
    Protection(
        name="a sweep whose first runs fail alike pauses",
        file="workflows/coordinator.py",
        code="return [] if self._paused is not None else",
        instead="return",
        tests=_WORKFLOWS[1:2],
    ),
    Protection(
        name="the order to stop is known to whoever heals",
        file="stack/control.py",
        code="    wanted_file(home).unlink(missing_ok=True)  # first",
        instead="    pass  # first",
        tests=("stack/test_healing.py",),
    ),
)
