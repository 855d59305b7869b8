"""What makes attempts follow each other: signals, decisions after a failure, and the fence between them."""

from __future__ import annotations

from tests.mutations.protection import Protection, tests_of

_RESUME = "training/test_resume.py"
_FENCE = "training/test_fence.py"
_JOBS = "faults/test_job_processes.py"
_FAILURES = "unit/test_failures.py"
_TRAINING = "workflows/test_training.py"
_OUTAGES = "workflows/test_outages.py"

ATTEMPTS = (
    # --- signals ------------------------------------------------------------------------------------------
    Protection(
        name="checkpoints that were never signalled are found",
        protects="An attempt that was killed between commit and signal has lost nothing.",
        file="checkpoints.py",
        code="for key in store.list(checkpoints_folder(run_id)):",
        instead="for key in list[str]():",
        tests=tests_of(_RESUME, "a_checkpoint_that_was_committed_but_never_signalled_is_found_and_signalled"),
    ),
    Protection(
        name="checkpoints that were never signalled are signalled",
        protects="The workflow comes to know of every committed checkpoint.",
        file="training/callbacks.py",
        code="                self._say_saved(checkpoint, gone)\n",
        instead="                pass\n",
        tests=tests_of(_RESUME, "a_checkpoint_that_was_committed_but_never_signalled_is_found_and_signalled"),
    ),
    Protection(
        name="a superseded attempt's signal is ignored",
        protects="A late signal of an attempt that was given up does not move the point of resumption.",
        file="workflows/training.py",
        code="if saved.attempt < len(self._attempts):",
        instead="if False:",
        tests=tests_of(_TRAINING, "a_signal_said_twice_changes_nothing_and_a_superseded_attempts_is_ignored"),
    ),
    Protection(
        name="resume points are sorted by number",
        protects="Step 112 is newer than step 80, whatever the alphabet says.",
        file="workflows/training.py",
        code="newest_first = sorted(existing, key=lambda c: (c.step, c.attempt), reverse=True)",
        instead="newest_first = sorted(existing, key=lambda c: str(c.step), reverse=True)",
        tests=tests_of(_TRAINING, "a_retry_resumes_from_the_newest_signalled_checkpoint"),
    ),
    Protection(
        name="pruned checkpoints are no resume points",
        protects="A new attempt is not sent to what was deleted.",
        file="workflows/training.py",
        code="        self._pruned.update(saved.pruned)\n",
        instead="",
        tests=tests_of(_TRAINING, "pruned_checkpoints_are_no_resume_points"),
    ),
    # --- decisions ----------------------------------------------------------------------------------------
    Protection(
        name="a lost worker is not the run's fault",
        protects="A run whose workers are killed without end is tried again without end.",
        file="errors.py",
        code='the network is gone."""\n\n    action = Action.AGAIN',
        instead='the network is gone."""\n\n    action = Action.RETRY',
        tests=tests_of(_FAILURES, "a_lost_worker_is_never_the_runs_fault"),
    ),
    Protection(
        name="a NaN loss is final",
        protects="What would fail again in the same bits is not tried again.",
        file="errors.py",
        code='allows one more try at a lower rate."""\n',
        instead='allows one more try at a lower rate."""\n\n    action = Action.RETRY\n',
        tests=tests_of(
            _TRAINING, "a_final_failure_fails_the_run_at_once_and_a_crash_after_the_limit[NotANumberError-1]"
        ),
    ),
    Protection(
        name="a crash is not tried without end",
        protects="A run that crashes again and again without progress comes to an end, and says why.",
        file="workflows/failures.py",
        code="or self._num_failures >= self._max_attempts:",
        instead="or False:",
        tests=tests_of(_FAILURES, "a_crash_is_tried_again_with_growing_delay_up_to_the_limit"),
    ),
    Protection(
        name="progress renews the budget",
        protects="A long run outlives any number of crashes that each come after some progress.",
        file="workflows/failures.py",
        code="        if progressed:\n",
        instead="        if False:\n",
        tests=tests_of(_FAILURES, "progress_between_crashes_renews_the_budget"),
    ),
    Protection(
        name="out of memory halves the micro-batch",
        protects="The next attempt needs less memory than the one that had too little.",
        file="workflows/failures.py",
        code="        self.batch_divisor *= 2\n",
        instead="",
        tests=tests_of(_FAILURES, "out_of_memory_halves_the_micro_batch_and_is_final_the_second_time_at_the_same_step"),
    ),
    Protection(
        name="out of memory at the same step is final",
        protects="Micro-batches are not halved for ever.",
        file="workflows/failures.py",
        code="        if step in self._out_of_memory_at:\n",
        instead="        if False:\n",
        tests=tests_of(_FAILURES, "out_of_memory_halves_the_micro_batch_and_is_final_the_second_time_at_the_same_step"),
    ),
    Protection(
        name="a run that is trained again goes on counting its attempts",
        protects="No number of an attempt, and so no key of a checkpoint, is ever used twice.",
        file="workflows/one_run.py",
        code="attempts=self.trained.attempts if self.trained else ()",
        instead="attempts=()",
        tests=tests_of(_OUTAGES, "a_best_checkpoint_that_is_found_damaged_at_evaluation_is_trained_again"),
    ),
    Protection(
        name="a best checkpoint found damaged at evaluation is trained again",
        protects="Damage after the training costs time and no run.",
        file="workflows/one_run.py",
        code="if not is_damage or num_rebuilds == _MAX_REBUILDS:",
        instead="if True:",
        tests=tests_of(_OUTAGES, "a_best_checkpoint_that_is_found_damaged_at_evaluation_is_trained_again"),
    ),
    Protection(
        name="a damaged snapshot is made again",
        protects="Damage to the data's copy costs time and no run.",
        file="workflows/calls.py",
        code="if not is_damage or num_rebuilds == _MAX_REBUILDS:",
        instead="if True:",
        tests=tests_of(_OUTAGES, "a_damaged_snapshot_is_made_again_and_the_run_goes_on"),
    ),
    Protection(
        name="a snapshot whose source has changed is not taken for it",
        protects="No run goes on with other data than it began with.",
        file="workflows/calls.py",
        code="        if made != snapshot:\n",
        instead="        if False:\n",
        tests=tests_of(_OUTAGES, "a_damaged_snapshot_whose_source_has_changed_fails_with_its_name"),
    ),
    Protection(
        name="a sweep whose first runs fail alike pauses",
        protects="A mistake in the code does not use up a sweep's runs.",
        file="workflows/coordinator.py",
        code="return [] if self._paused is not None else",
        instead="return",
        tests=tests_of(_OUTAGES, "a_sweep_whose_first_runs_fail_alike_pauses_and_goes_on_when_resumed"),
    ),
    Protection(
        name="no workflow is kept between its tasks",
        protects="A query that waited for a killed worker cannot make a sweep's history unrepeatable.",
        file="worker.py",
        code="max_cached_workflows=0",
        instead="max_cached_workflows=500 if workflows else 0",
        tests=("workflows/test_lost_worker.py",),
    ),
    # --- the fence ----------------------------------------------------------------------------------------
    Protection(
        name="an older attempt on this host is killed",
        protects="Two attempts at a run never train side by side, not even where one was only stopped.",
        file="training/fence.py",
        code="                _kill(holder)\n",
        instead="                pass\n",
        tests=tests_of(_FENCE, "a_newer_attempt_kills_the_older_one_that_still_lives_on_this_host"),
    ),
    Protection(
        name="nobody else is killed",
        protects="A process that has the number of an attempt that ended is left alone.",
        file="training/fence.py",
        code="if psutil.Process(holder.pid).create_time() == holder.started:",
        instead="if True:",
        tests=tests_of(_FENCE, "another_process_under_the_holders_id_is_left_alone"),
    ),
    Protection(
        name="a late older attempt gives way",
        protects="An attempt that starts after its successor does not take the lock from it.",
        file="training/fence.py",
        code="            _refuse_if_newer(holder.attempt, attempt)\n",
        instead="            pass\n",
        tests=tests_of(_FENCE, "an_older_attempt_that_comes_late_gives_way"),
    ),
    Protection(
        name="an attempt leaves its mark",
        protects="Older attempts on other hosts, which nobody can kill, learn that they are superseded.",
        file="training/fence.py",
        code="        fence.mark()\n",
        instead="",
        tests=tests_of(_FENCE, "across_hosts_the_older_attempt_gives_way_while_it_runs_and_when_it_comes_late"),
    ),
    Protection(
        name="an attempt looks for newer marks before it begins",
        protects="One that comes late on another host never starts.",
        file="training/fence.py",
        code="        fence.check()\n",
        instead="",
        tests=tests_of(_FENCE, "across_hosts_the_older_attempt_gives_way_while_it_runs_and_when_it_comes_late"),
    ),
    Protection(
        name="an attempt looks for newer marks before it saves",
        protects="A superseded attempt adds no checkpoint.",
        file="training/callbacks.py",
        code="            self._fence.check()\n            try:\n",
        instead="            try:\n",
        tests=tests_of(_FENCE, "a_superseded_training_publishes_prunes_and_says_nothing_more"),
    ),
    Protection(
        name="an attempt looks for newer marks before it prunes",
        protects="One that was superseded while it saved deletes nothing that its successor needs, and says nothing.",
        file="training/callbacks.py",
        code="        self._fence.check()\n        pruned =",
        instead="        pruned =",
        tests=tests_of(_FENCE, "a_training_that_is_superseded_while_it_saves_prunes_and_says_nothing"),
    ),
    Protection(
        name="an attempt looks for newer marks before it logs",
        protects="A superseded attempt adds no row to MLflow.",
        file="training/outbox.py",
        code="            self._fence.check()\n",
        instead="",
        tests=tests_of(_FENCE, "a_superseded_attempt_adds_no_row_to_mlflow"),
    ),
    # --- processes ----------------------------------------------------------------------------------------
    Protection(
        name="a job dies with its worker",
        protects="Nothing trains on after the worker that would tell of it is gone.",
        file="jobs.py",
        code="ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)",
        instead="pass",
        tests=tests_of(_JOBS, "no_job_outlives_its_worker_not_even_a_stopped_one[True]"),
    ),
    Protection(
        name="a template dies with its worker",
        protects="Nor does what jobs are forked from outlive the worker, wherever it was.",
        file="template.py",
        code="    jobs.die_with(parent_pid)\n",
        instead="",
        tests=tests_of(_JOBS, "a_template_that_is_stopped_dies_with_its_worker"),
    ),
    Protection(
        name="a silent job has no heartbeats",
        protects="A job that is stopped or hangs is noticed like one that is gone.",
        file="activities/_job.py",
        code="        if pulse.is_alive():\n",
        instead="        if True:\n",
        tests=tests_of(_JOBS, "a_silent_job_has_no_heartbeats_and_one_whose_events_wait_has"),
    ),
    Protection(
        name="a template that gives no answer is killed",
        protects="One that is stopped or hangs in its imports holds no run for ever.",
        file="process.py",
        code="        limit = loop.call_later(LONGEST_START_SECONDS, self._give_up, connection)\n",
        instead="        limit = loop.call_later(1e6, self._give_up, connection)\n",
        tests=tests_of(_JOBS, "a_template_that_gives_no_answer_is_killed_and_the_next_job_gets_a_new_one[False]"),
    ),
)
