"""What steering rests on: who leaves does so in order, nothing is forgotten, and nobody is overtaken."""

from __future__ import annotations

from tests.mutations.protection import Protection, tests_of

_LEAVING = "unit/test_leaving.py"
_DECISIONS = "unit/test_steering.py"
_STEERING = "workflows/test_steering.py"
_PAUSING = "workflows/test_pausing.py"
_CANCELLING = "workflows/test_cancelling.py"
_PRIORITIES = "workflows/test_priorities.py"

STEERING = (
    Protection(
        name="a cancelled training is asked to leave",
        protects="It makes a checkpoint first: no step is lost.",
        file="activities/_job.py",
        code="    leaving.set()\n",
        instead="",
        tests=tests_of(_LEAVING, "it_says_how_far_it_came"),
    ),
    Protection(
        name="a training that does not leave is stopped",
        protects="A slot that is to be free does become free.",
        file="activities/_job.py",
        code="return await asyncio.wait_for(running, _LONGEST_LEAVING_SECONDS)",
        instead="return await running",
        tests=tests_of(_LEAVING, "a_process_that_does_not_leave_is_stopped"),
    ),
    Protection(
        name="numbers of attempts are known when they begin",
        protects="A run that goes on in another execution uses no number, and so no checkpoint's key, twice.",
        file="workflows/coordinator.py",
        code="self._table.change(started.run, attempt=started.attempt)",
        instead="pass",
        tests=tests_of(_PAUSING, "a_paused_sweep_starts_nothing_and_goes_on_when_resumed"),
    ),
    Protection(
        name="who has left is a step in history",
        protects="The next command meets the run as it is, at every replay.",
        file="workflows/table.py",
        code='        workflow.upsert_memo({"settled": f"{index} {self[index].status}"})\n',
        instead="",
        tests=tests_of(_PAUSING, "a_paused_sweep_starts_nothing_and_goes_on_when_resumed"),
    ),
    Protection(
        name="a pause changes nothing about a training",
        protects="Micro-batches that were halved stay halved, and the learning rate what it was.",
        file="workflows/one_run.py",
        code="adjustments=before.adjustments,",
        instead="",
        tests=tests_of(_PAUSING, "what_failures_have_changed_about_a_training_stays_changed_after_a_pause"),
    ),
    Protection(
        name="a cancelled run is not evaluated",
        protects="A training that ends before it could leave does not bring its run back.",
        file="workflows/one_run.py",
        code='if cancel_requested() or self.table[self.run.index].order == "cancel":',
        instead="if False:",
        tests=tests_of(_CANCELLING, "a_training_that_ends_well_while_its_run_is_cancelled_is_not_evaluated"),
    ),
    Protection(
        name="a command that comes with the end of preparations is heard",
        protects="A run that is to pause or to be cancelled does not begin its training.",
        file="workflows/one_run.py",
        code="        self._stop_if_cancelled()\n        if self.claimed",
        instead="        if self.claimed",
        tests=tests_of(
            _STEERING, "a_command_that_a_new_worker_hears_together_with_the_end_of_preparations_is_carried_out"
        ),
    ),
    Protection(
        name="what waits for a slot gives way to an urgent run",
        protects="The next free slot of the workers is the urgent run's.",
        file="workflows/coordinator.py",
        code="return [] if self._paused is not None else waiting_to_displace(self._table)",
        instead="return []",
        tests=tests_of(_PRIORITIES, "an_urgent_run_takes_the_next_free_slot_of_the_workers"),
    ),
    Protection(
        name="nobody is started before an urgent run",
        protects="Workers do not serve their queue in order: another that waits there might be first.",
        file="workflows/planning.py",
        code='(r.priority == "high" or not only_urgent)',
        instead="True",
        tests=tests_of(_DECISIONS, "an_urgent_run_starts_first_and_no_other_before_it_has_a_slot"),
    ),
    Protection(
        name="a run on its way takes no contradicting command",
        protects="Of two who steer at once, one is told about the other.",
        file="workflows/steering.py",
        code='if state.order in ("pause", "cancel") and state.order != kind:',
        instead="if False:",
        tests=tests_of(_DECISIONS, "a_run_on_its_way_to_a_pause_takes_no_other_command"),
    ),
    Protection(
        name="a paused run that is cancelled is closed in MLflow",
        protects="No MLflow run says for ever that it is running.",
        file="workflows/coordinator.py",
        code="                self._runs.let_go(index)\n",
        instead="                pass\n",
        tests=tests_of(_CANCELLING, "a_paused_run_that_is_cancelled_is_closed_in_mlflow"),
    ),
)
