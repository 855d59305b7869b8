"""What keeps a result that was computed otherwise from being taken for this one, and work from being done twice."""

from __future__ import annotations

from tests.mutations.protection import Protection, tests_of

_IDENTITY = "unit/test_identity.py"
_RESULTS = "unit/test_results.py"
_EQUAL = "training/test_equal_runs.py"
_REUSE = "workflows/test_reuse.py"

REUSE = (
    Protection(
        name="the versions of libraries are in the key",
        protects="A result that another torch computed is not taken for this one's.",
        file="results.py",
        code="        versions=code.versions,\n",
        instead="        versions={},\n",
        tests=tests_of(_IDENTITY, "data_model_code_and_versions_are_parts_of_the_key_and_are_named"),
    ),
    Protection(
        name="the weights are in the key",
        protects="A result of a model whose weights were replaced is not taken for the new one's.",
        file="results.py",
        code="        model=snapshot.model_digest,\n",
        instead='        model="",\n',
        tests=tests_of(_IDENTITY, "data_model_code_and_versions_are_parts_of_the_key_and_are_named"),
    ),
    Protection(
        name="a job for other code is refused",
        protects="A retry never mixes new code into a run that old code began.",
        file="jobs.py",
        code='    check_code(getattr(job, "code", None))\n',
        instead="",
        tests=tests_of(_EQUAL, "a_job_for_other_code_is_refused_before_it_begins"),
    ),
    Protection(
        name="changed weights are refused",
        protects="A model that was changed in place does not get into a run that began with the old one.",
        file="training/run.py",
        code="        _check_model(resolve_model(spec.model), job)\n",
        instead="",
        tests=tests_of(_EQUAL, "a_model_that_was_changed_in_place_is_refused"),
    ),
    Protection(
        name="another kind of machine's checkpoint is passed over",
        protects="Going on from an equal run never mixes the arithmetic of two kinds of machines.",
        file="training/continuity.py",
        code='return bundle is not None and bundle.meta["machine"] == self._machine',
        instead="return bundle is not None",
        tests=tests_of(_EQUAL, "an_equal_runs_checkpoint_of_another_kind_of_machine_is_passed_over"),
    ),
    Protection(
        name="a disturbed run's result is not kept",
        protects="What a NaN retry or another machine has bent is not handed on to other sweeps.",
        file="results.py",
        code="    if not result.training.inexact:\n",
        instead="    if True:\n",
        tests=tests_of(_RESULTS, "the_result_of_a_run_that_was_not_undisturbed_is_not_kept"),
    ),
    Protection(
        name="inexact checkpoints are not gone on with",
        protects="A new run does not inherit what bent another one.",
        file="results.py",
        code='if store_meta(store, c.key).get("exact", True)]',
        instead="]",
        tests=tests_of(_RESULTS, "checkpoints_of_equal_runs_come_newest_first_without_inexact_ones"),
    ),
    Protection(
        name="a result whose files are gone is none",
        protects="Nobody is shown a result whose checkpoint or predictions no longer exist.",
        file="results.py",
        code="    return result if whole else None\n",
        instead="    return result\n",
        tests=tests_of(_RESULTS, "a_result_whose_files_are_gone_is_forgotten_and_can_be_kept_anew"),
    ),
    Protection(
        name="an equal run in flight is waited for",
        protects="Two equal runs in flight train once.",
        file="activities/reuse.py",
        code="        if holder is not None and await _in_flight_among(client, {holder}):\n",
        instead="        if False:\n",
        tests=tests_of(_REUSE, "two_equal_runs_in_flight_train_once"),
    ),
    Protection(
        name="a damaged reused result is looked at anew",
        protects="A result that is found damaged while it is reused is computed again, not reused again.",
        file="workflows/one_run.py",
        code="verify=self.num_rebuilds > 0,",
        instead="verify=False,",
        tests=tests_of(_REUSE, "a_reused_result_that_is_found_damaged_is_computed_again"),
    ),
    Protection(
        name="cache=off offers nothing",
        protects="A run that was told to stand alone leaves no result for others.",
        file="workflows/evaluation.py",
        code='kept_with=job.training if options.cache == "on" else None,',
        instead="kept_with=job.training,",
        tests=tests_of(_REUSE, "a_sweep_that_may_not_offer_its_results_leaves_none"),
    ),
)
