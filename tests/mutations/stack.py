"""What brings the local stack back, and keeps it down where that was asked."""

from __future__ import annotations

from tests.mutations.protection import Protection, tests_of

_FULL_HOME = "faults/test_full_home.py"
_HEALING = "stack/test_healing.py"
_STACK = "stack/test_stack.py"

STACK = (
    Protection(
        name="a killed service is started again",
        protects="Workers and server come back while the supervisor lives.",
        file="stack/child.py",
        code="        self._start_at = time.monotonic() + delay_seconds\n",
        instead='        self._start_at = float("inf")\n',
        tests=tests_of(_STACK, "a_killed_service_is_started_again[training_worker]"),
    ),
    Protection(
        name="services die with their supervisor",
        protects="No half of a stack is left that a new one would meet.",
        file="stack/child.py",
        code="        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)\n",
        instead="",
        tests=tests_of(_STACK, "a_killed_supervisor_takes_all_with_it_and_the_next_command_starts_anew"),
    ),
    Protection(
        name="a stack that died is started again",
        protects="Whoever looks at a stack that was killed whole brings it back, and its sweeps go on.",
        file="stack/control.py",
        code="    return _bring_up(home, Settings(), timeout_seconds, on_wait, while_wanted=True)\n",
        instead="    return None\n",
        tests=tests_of(_HEALING, "two_who_heal_at_once_share_one_stack"),
    ),
    Protection(
        name="the order to stop is known to whoever heals",
        protects="What was stopped stays down.",
        file="stack/control.py",
        code="    wanted_file(home).unlink(missing_ok=True)  # first",
        instead="    pass  # first",
        tests=tests_of(_HEALING, "what_was_stopped_stays_down"),
    ),
    Protection(
        name="an order to stop wins over healing at the same moment",
        protects="`bertpar down` is an order, also to who is just about to start the stack again.",
        file="stack/control.py",
        code="            if while_wanted and not wanted_file(home).exists():\n",
        instead="            if False:\n",
        tests=tests_of(_HEALING, "a_stop_at_the_same_moment_wins[before]"),
    ),
    Protection(
        name="a full disk does not end the supervisor",
        protects="What waits for space with its state in memory is not killed for want of it.",
        file="stack/supervisor.py",
        code="        with suppress(OSError):\n            if self._stack.state",
        instead="        if True:\n            if self._stack.state",
        tests=tests_of(
            _FULL_HOME, "a_supervisor_goes_on_with_a_full_disk_and_its_record_is_true_again_with_free_space"
        ),
    ),
    Protection(
        name="a message that cannot be printed is dropped",
        protects="Nor does a full disk end the supervisor by way of its log.",
        file="stack/child.py",
        code="    with contextlib.suppress(OSError):\n        print",
        instead="    if True:\n        print",
        tests=tests_of(
            _FULL_HOME, "a_supervisor_goes_on_with_a_full_disk_and_its_record_is_true_again_with_free_space"
        ),
    ),
)
