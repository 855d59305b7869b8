"""What keeps a worker from carrying more than it has, and each run's turn."""

from __future__ import annotations

from tests.mutations.protection import Protection, tests_of

_SLOTS = "unit/test_slots.py"
_ACTIVITY = "unit/test_activity_slots.py"
_WORKER = "workflows/test_worker_slots.py"
_DEVICES = "training/test_devices.py"

SLOTS: tuple[Protection, ...] = (
    Protection(
        name="threads are counted",
        protects="Runs of several threads do not compute beside each other on too few CPUs.",
        file="capacity.py",
        code="    if num_threads > capacity.num_threads - sum(other.num_threads for other in others):\n",
        instead="    if False:\n",
        tests=tests_of("unit/test_capacity.py", "two_threads_do_not_begin_beside_one_on_two_cores"),
    ),
    Protection(
        name="first come, first served",
        protects="A large run begins, however many small ones keep coming.",
        file="slots.py",
        code="while self._line[0] is not place or (",
        instead="while (",
        tests=tests_of(_SLOTS, "small_runs_that_keep_coming_do_not_starve_a_large_one"),
    ),
    Protection(
        name="one unknown task at a time",
        protects="A worker takes no run that it cannot begin while another worker is idle.",
        file="slots.py",
        code="while self._poll is not None or self.would_wait(SMALLEST_DEMAND):",
        instead="while self.would_wait(SMALLEST_DEMAND):",
        tests=tests_of(_SLOTS, "the_next_task_is_taken_only_when_the_last_one_has_said_what_it_wants"),
    ),
    Protection(
        name="nothing is taken past who waits",
        protects="A run that waits for its turn on a worker is the last one that was taken there.",
        file="slots.py",
        code="return bool(self._line) or grant(",
        instead="return grant(",
        tests=tests_of(_SLOTS, "no_task_is_taken_while_everything_is_in_use_or_somebody_waits"),
    ),
    Protection(
        name="a slot that is given to whoever has just gone comes back",
        protects="However often runs are cancelled while they wait, a worker keeps all its slots.",
        file="activities/_slot.py",
        code="        turn.add_done_callback(lambda done: _return_unwanted(slots, done))\n",
        instead="",
        tests=tests_of(_ACTIVITY, "a_slot_is_given_back_whenever_its_activity_is_cancelled"),
    ),
    Protection(
        name="waiting for a slot is no compute time",
        protects="A run is charged for what it computes, and not for a worker that is busy with others.",
        file="activities/train.py",
        code="        await tell_start(job, waited_seconds=began - arrived)\n",
        instead="        await tell_start(job)\n",
        tests=tests_of(_WORKER, "a_run_is_charged_for_its_slot_and_not_for_the_time_that_it_waited_for_it"),
    ),
    Protection(
        name="an evaluation computes with what it was granted",
        protects="An evaluation does not take the threads of those beside it.",
        file="activities/evaluate.py",
        code="""        job = replace(job, demand=_of(granted))
        return await run_with_heartbeats("evaluate",""",
        instead="""        return await run_with_heartbeats("evaluate",""",
        tests=tests_of(_ACTIVITY, "an_evaluation_is_to_compute_with_the_threads_that_it_was_granted"),
    ),
    # --- ranks --------------------------------------------------------------------------------------------
    Protection(
        name="gradients are averaged",
        protects="A training over several devices learns from all examples of a step, and all ranks the same.",
        file="training/module.py",
        code="        total = self._ranks.average(",
        instead="        Alone().average(",
        tests=tests_of(_DEVICES, "the_losses_of_a_training_over_two_devices_are_those_of_one_device"),
    ),
    Protection(
        name="a failure of another rank is told",
        protects="What ends a training is known, and decides what is done about it, whichever rank it happens in.",
        file="ranks.py",
        code="                fail(Failure(**json.loads(line)))\n",
        instead="                pass\n",
        tests=tests_of(
            _DEVICES, "a_failure_of_another_rank_keeps_its_class_and_ends_the_training_when_nothing_is_being_written"
        ),
    ),
    Protection(
        name="a checkpoint under way is waited for",
        protects="The failure of one rank does not throw away a checkpoint that was all but written.",
        file="ranks.py",
        code="            self.writing.acquire(timeout=_LONGEST_WRITING_SECONDS)\n",
        instead="",
        tests=tests_of(
            _DEVICES,
            "a_failure_of_another_rank_keeps_its_class_and_ends_the_training_when_nothing_is_being_written",
        ),
    ),
    Protection(
        name="a stopped rank silences the training",
        protects="A training of which one rank hangs is noticed like one that is gone.",
        file="jobs.py",
        code="        if team.is_alive():\n",
        instead="        if True:\n",
        tests=tests_of(_DEVICES, "a_training_of_which_a_rank_is_stopped_gives_no_sign_of_life"),
    ),
)
