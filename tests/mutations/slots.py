"""What keeps a worker from carrying more than it has, and each run's turn."""

from __future__ import annotations

from tests.mutations.protection import Protection, tests_of

_SLOTS = "unit/test_slots.py"

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
)
