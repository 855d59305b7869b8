"""Runs that differ in their seed alone are one configuration: groups, names, and what must agree among them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bertpar.compare.results import RunResult, SweepResults, TestSet
from bertpar.errors import NotComparableError
from bertpar.spec import digest_json, flatten

_SEED = "seed"
_NUM_EXAMPLES_SHOWN = 3
_MANY_KEYS = 4


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """The runs that differ in their seed alone, by seed."""

    name: str
    """What tells it from the others, `lr=0.001,data.max_length=64`; unique within a comparison."""
    runs: tuple[RunResult, ...]
    swept: dict[str, str]
    """The swept keys of all sweeps that are compared, but the seed, with its own values."""

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.seed for run in self.runs)


def group_runs(sweeps: Sequence[SweepResults]) -> tuple[list[Configuration], list[str]]:
    """Return the configurations in the order of their first runs, and what the reader should know of the grouping.

    A seed that occurs twice in a configuration counts once: by its first run.
    """
    runs = [run for sweep in sweeps for run in sweep.runs]
    groups: dict[str, dict[int, RunResult]] = {}
    notes: list[str] = []
    for run in runs:
        group = groups.setdefault(digest_json(run.configuration), {})
        first = group.setdefault(run.seed, run)
        if first is not run:
            same = (first.outputs_N == run.outputs_N).all()
            notes.append(
                f"{run.name} repeats {first.run.run_id}, {'with the same' if same else 'but with OTHER'} predictions: "
                "it is counted once, by the latter"
            )
    found = [tuple(group[seed] for seed in sorted(group)) for group in groups.values()]
    keys = [key for key in dict.fromkeys(key for run in runs for key in run.run.swept) if key != _SEED]
    names = _names(found, keys)
    for name, group_found in zip(names, found, strict=True):
        if len(codes := {run.code_digest for run in group_found}) > 1:
            notes.append(f"{name} has runs of {len(codes)} versions of bertpar's code; their spread may be the code's")
    return [
        Configuration(name=name, runs=group_found, swept={key: _value(group_found[0], key) for key in keys})
        for name, group_found in zip(names, found, strict=True)
    ], notes


def _names(groups: Sequence[tuple[RunResult, ...]], keys: Sequence[str]) -> list[str]:
    """Return a distinct name for each group: by the swept keys that differ, and by others where those do not tell."""
    values = [{key: _value(group[0], key) for key in keys} for group in groups]
    telling = [key for key in keys if len({value[key] for value in values}) > 1] or list(keys)
    names = [",".join(f"{key}={value[key]}" for key in telling) for value in values]
    for name in {name for name in names if names.count(name) > 1}:
        alike = [i for i, other in enumerate(names) if other == name]
        more = differing_keys([groups[i][0].configuration for i in alike])
        for i in alike:
            configuration = groups[i][0].configuration
            names[i] = ",".join([name] * bool(name) + [f"{key}={configuration.get(key)}" for key in more[:_MANY_KEYS]])
    return [name or "the only configuration" for name in names]


def _value(run: RunResult, key: str) -> str:
    """Return a swept key's value in a run of a sweep that may not have swept it."""
    if key in run.run.swept:
        return run.run.swept[key]
    value = run.config.get(key, flatten(run.config).get(key))
    return str(value.get("name", "?") if isinstance(value, dict) else value)


def differing_keys(configurations: Sequence[dict[str, Any]]) -> list[str]:
    """Return the keys whose values are not the same in all of them."""
    keys = dict.fromkeys(key for configuration in configurations for key in configuration)
    return [key for key in keys if len({repr(configuration.get(key)) for configuration in configurations}) > 1]


# --- what must agree --------------------------------------------------------------------------------------


def check_comparable(runs: Iterable[RunResult]) -> None:
    """Refuse runs with other test examples, tasks or objectives.

    Raises:
        NotComparableError: says which differ and how.
    """
    runs = list(runs)
    first = runs[0]
    for run in runs[1:]:
        if run.test_set.digest != first.test_set.digest:
            raise NotComparableError(
                f"{run.run.run_id} and {first.run.run_id} have different test sets: "
                f"{_difference(run, first)}. Compare runs that were scored on the same test examples: same data files, "
                "same data.split_seed, data.test_fraction and data.test_size"
            )
        if run.task != first.task:
            raise NotComparableError(f"{run.run.run_id} is a {run.task}, {first.run.run_id} a {first.task}")
        if (run.run.objective, run.run.mode) != (first.run.objective, first.run.mode):
            raise NotComparableError(
                f"{run.run.run_id} was selected by checkpoint.monitor={run.run.objective} ({run.run.mode}), "
                f"{first.run.run_id} by {first.run.objective} ({first.run.mode}): no common measure ranks them"
            )


def _difference(run: RunResult, first: RunResult) -> str:
    one, other = _rows(run.test_set), _rows(first.test_set)
    counts = f"{len(one)} against {len(other)} examples"
    if run.sweep_id != first.sweep_id:
        counts += f" (sweeps {run.sweep_id} and {first.sweep_id})"
    common = one.keys() & other.keys()
    parts = [
        _told(one.keys() - other.keys(), f"only in {run.run.run_id}"),
        _told(other.keys() - one.keys(), f"only in {first.run.run_id}"),
        _told({row for row in common if one[row][0] != other[row][0]}, "with another text"),
        _told({row for row in common if one[row][1] != other[row][1]}, "with another label"),
    ]
    return "; ".join([counts, f"{len(common)} ids in common", *(part for part in parts if part)])


def _rows(test_set: TestSet) -> dict[str, tuple[str, str | float]]:
    rows = zip(test_set.row_ids, test_set.texts, test_set.labels, strict=True)
    return {row_id: (text, label) for row_id, text, label in rows}


def _told(row_ids: set[str], what: str) -> str:
    if not row_ids:
        return ""
    shown = ", ".join(sorted(row_ids)[:_NUM_EXAMPLES_SHOWN])
    return f"{len(row_ids)} {what} (ids {shown}{', ...' if len(row_ids) > _NUM_EXAMPLES_SHOWN else ''})"
