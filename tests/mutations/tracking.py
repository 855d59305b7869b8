"""What makes MLflow show one honest run, with no row twice, missing or contradicted, and lets nobody wait for it."""

from __future__ import annotations

from tests.mutations.protection import Protection, tests_of

_OUTAGES = "training/test_outages.py"
_TRACKING = "training/test_tracking.py"
_REPEATED = tests_of(_OUTAGES, "a_step_that_is_made_again_is_no_second_row_and_other_bits_are_an_alarm")
_AWAY = tests_of(_OUTAGES, "rows_wait_while_the_server_is_away_through_kills_and_arrive_once")

TRACKING = (
    Protection(
        name="rows that MLflow may not have are kept in checkpoints",
        protects="A kill during an outage of MLflow loses no row.",
        file="training/committer.py",
        code="rows=[*self._outbox.undelivered(), *new_rows]",
        instead="rows=new_rows",
        tests=_AWAY,
    ),
    Protection(
        name="rows of a checkpoint are delivered by the next attempt",
        protects="What was made durable and not delivered before a kill is delivered after it.",
        file="training/callbacks.py",
        code="        self._attempt.outbox.post(self.state.rows)\n",
        instead="",
        tests=_AWAY,
    ),
    Protection(
        name="rows are delivered only when a checkpoint holds them",
        protects="MLflow never shows a step that a kill can still undo.",
        file="training/committer.py",
        code="        new_rows, state.rows = state.rows, []\n",
        instead="        new_rows, state.rows = state.rows, []\n        self._outbox.post(new_rows)\n",
        tests=tests_of(_OUTAGES, "rows_are_delivered_only_when_a_checkpoint_holds_them"),
    ),
    Protection(
        name="what waits in the last checkpoint is delivered at the end",
        protects="A run that ended during an outage of MLflow has all its rows when it is closed.",
        file="tracking/runs.py",
        code="        log_missing_rows(uri, run.run_id, waiting_rows(store, job.opening.identity))\n",
        instead="        pass\n",
        tests=_AWAY,
    ),
    Protection(
        name="a step made again is no second row",
        protects="A step that was made again after a fall back has one row, under its first time.",
        file="tracking/rows.py",
        code="log_rows(self._uri, self._run_id, list(new.values()))",
        instead="log_rows(self._uri, self._run_id, rows)",
        tests=_REPEATED,
    ),
    Protection(
        name="what is logged is remembered",
        protects="After a fall back within one attempt too, no row is logged a second time.",
        file="tracking/rows.py",
        code="            self._there[row.key][row.step] = row.value\n",
        instead="            pass\n",
        tests=tests_of(_OUTAGES, "a_first_attempt_that_falls_back_logs_no_row_twice"),
    ),
    Protection(
        name="rows that wait together are told apart",
        protects="Steps that were made twice during an outage have one row each.",
        file="tracking/rows.py",
        code="value = first.value if first is not None else self._there[row.key].get(row.step)",
        instead="value = self._there[row.key].get(row.step)",
        tests=tests_of(_OUTAGES, "rows_of_steps_made_twice_during_an_outage_arrive_once"),
    ),
    Protection(
        name="other bits for the same step are an alarm",
        protects="A contradiction is told, and never overwritten in silence.",
        file="tracking/rows.py",
        code="        if contradictions:\n",
        instead="        if False:\n",
        tests=_REPEATED,
    ),
    Protection(
        name="one MLflow run stays of two",
        protects="A second run, made by a client's own retry of a lost answer, is deleted.",
        file="tracking/runs.py",
        code="client.delete_run(other.info.run_id)",
        instead="pass",
        tests=tests_of(_TRACKING, "of_two_runs_that_a_lost_answer_made_the_earliest_stays"),
    ),
    Protection(
        name="the store knows which MLflow run it is",
        protects="A second run that appears later does not take the place of the one that has the rows.",
        file="tracking/runs.py",
        code="return MlflowRun(**bundle.meta) if bundle is not None else None",
        instead="return None",
        tests=tests_of(_TRACKING, "a_run_that_appears_later_does_not_replace_the_one_in_the_store"),
    ),
    Protection(
        name="one process at a time opens MLflow runs",
        protects="Processes that open a run at once make it once.",
        file="tracking/runs.py",
        code='with store.only_one("mlflow"), mlflow_client',
        instead="with mlflow_client",
        tests=tests_of(_TRACKING, "whoever_opens_a_run_waits_until_nobody_else_opens_one"),
    ),
    Protection(
        name="no run waits for MLflow",
        protects="Runs are trained and scored while MLflow is away.",
        file="workflows/training.py",
        code="        opening = asyncio.ensure_future(self._open_run())\n",
        instead="        opening = asyncio.ensure_future(self._open_run())\n        await opening\n",
        tests=tests_of(
            "workflows/test_outages.py",
            "runs_are_trained_and_scored_while_mlflow_is_away_and_told_when_it_is_back",
        ),
    ),
)
