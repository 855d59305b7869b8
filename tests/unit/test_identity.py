"""The run key covers what decides a result, by content, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import grimp
import pytest

from bertpar.code import check_code, job_code_files, loaded_code
from bertpar.errors import CodeChangedError
from bertpar.events import Code, SnapshotRef
from bertpar.identity import Identity, differences, settings_of
from bertpar.results import identify
from tests.unit.test_compose import run_spec

SNAPSHOT = SnapshotRef(
    key="snapshots/a",
    digest="data",
    task="classification",
    label_names=("no", "yes"),
    num_examples={"train": 4, "validation": 2, "test": 2},
    tokenizer_key="tokenizers/t",
    model_digest="weights",
)
CODE = Code(digest="code", versions={"torch": "2.13.0"})

_WITHOUT_EFFECT_ON_RESULTS = {
    "capacity",
    "checkpoints",  # where they lie
    "claims",
    "code",
    "codec",
    "errors",
    "event_stream",
    "events",
    "faults",
    "holds",
    "hub",  # how the model is fetched, whose digest is in the key
    "identity",
    "jobs",
    "machine",  # the number of threads that it finds is in the machine's fingerprint
    "mlflow_jobs",
    "paths",
    "ranks",  # which processes compute, not what
    "results",
    "store",
    "tracking",
}


def identity(*overrides: str) -> Identity:
    return identify(run_spec(*overrides), SNAPSHOT, CODE)


@pytest.mark.parametrize("override", ["lr=2e-4", "seed=1", "trainer.accumulate=2", "model.num_layers=2"])
def test_a_setting_that_changes_results_changes_the_key_and_is_named(override: str) -> None:
    other = identity(override)
    assert other.key != identity().key
    (phrase,) = differences(other, identity())["config"]
    key, _, value = override.partition("=")
    assert phrase.startswith(f"{'optim.lr' if key == 'lr' else key}={'0.0002' if key == 'lr' else value} instead of")


@pytest.mark.parametrize(
    "override",
    [
        "sweep.name=other",
        "sweep.max_parallel=3",
        "tracking.experiment=other",
        "cache=off",
        "checkpoint.every_n_steps=7",
        "checkpoint.keep=9",
        "data.name=other",  # the data is what the snapshot says
        "model.name=other",
    ],
)
def test_a_setting_that_changes_no_result_leaves_the_key(override: str) -> None:
    assert identity(override).key == identity().key


def test_data_model_code_and_versions_are_parts_of_the_key_and_are_named() -> None:
    ours = identity()
    newer = identify(run_spec(), SNAPSHOT, replace(CODE, versions={"torch": "2.14.0"}))
    assert differences(newer, ours) == {"versions": ["torch=2.14.0 instead of 2.13.0"]}
    assert set(differences(identify(run_spec(), replace(SNAPSHOT, digest="other"), CODE), ours)) == {"data"}
    assert set(differences(identify(run_spec(), replace(SNAPSHOT, model_digest="other"), CODE), ours)) == {"model"}
    assert set(differences(identify(run_spec(), SNAPSHOT, replace(CODE, digest="other")), ours)) == {"code"}
    assert len({newer.key, ours.key}) == 2


def test_the_number_of_threads_is_a_part_of_the_key_since_bits_depend_on_it() -> None:
    assert settings_of(run_spec("trainer.num_threads=2")) != settings_of(run_spec("trainer.num_threads=1"))


def test_all_that_a_job_imports_is_in_the_digest_or_known_to_change_no_result() -> None:
    imported = grimp.build_graph("bertpar").find_upstream_modules("bertpar.jobs") | {"bertpar.jobs"}
    digested = {path.as_posix().rpartition("/bertpar/")[2].removesuffix(".py") for path in job_code_files()}
    tops = {module.split(".")[1] for module in imported if "." in module}
    assert tops - {path.split("/")[0] for path in digested} == _WITHOUT_EFFECT_ON_RESULTS


def test_a_process_refuses_a_job_for_other_code_and_for_other_libraries() -> None:
    check_code(None)
    check_code(loaded_code())
    with pytest.raises(CodeChangedError, match="bertpar's code .* instead of 0123456789ab as when"):
        check_code(replace(loaded_code(), digest="0123456789abcdef"))
    with pytest.raises(CodeChangedError, match=r"torch=.* instead of 1\.0"):
        check_code(replace(loaded_code(), versions={**loaded_code().versions, "torch": "1.0"}))
