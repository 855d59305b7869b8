"""Compares outcomes: what is wrong with one by itself, and where two of them part. Pure functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator

from bertpar.verify.outcome import Row, RunOutcome

_PLACES = ("tracking", "store", "temporal", "sweep")
"""Sections of the configuration that say where a run is done, not what it computes."""


def faults(run: RunOutcome) -> list[str]:
    """Return what no honest run has: two MLflow runs, a repeated row, a lost checkpoint, contradicting attempts."""
    found = []
    if len(run.statuses) != 1:
        found.append(f"{len(run.statuses)} MLflow runs instead of one")
    if run.contradiction is not None:
        found.append(f"a step was made twice, differently: {run.contradiction}")
    if run.num_evaluations > 1 or (run.num_evaluations == 0 and "FINISHED" in run.statuses):
        found.append(f"{run.num_evaluations} evaluations instead of one")
    found += [f"step {step}: two attempts made checkpoints with different weights" for step in run.torn_steps]
    if run.best_step is not None and run.best_step not in run.weights:
        found.append(f"the best checkpoint, of step {run.best_step}, is not in the store")
    newest_row = max((row.step for row in run.rows), default=0)
    if newest_row > (run.last_step or 0):  # a row is logged once a checkpoint holds it, and the last step has rows
        found.append(f"step {newest_row} has metric rows, but the store's last checkpoint is of step {run.last_step}")
    for (step, key), values in _by_step_and_key(run.rows).items():
        if len(values) > 1:
            found.append(f"step {step}: metric {key} is logged {len(values)} times ({', '.join(map(_shown, values))})")
    return found


def differences(one: RunOutcome, other: RunOutcome) -> list[str]:
    """Return where the results part, the earliest step first; nothing where every bit is the same."""
    found = [*_by_step(one, other)]
    for name, a, b in (
        ("last checkpoint: step", one.last_step, other.last_step),
        ("best checkpoint: step", one.best_step, other.best_step),
        ("status in MLflow:", " ".join(one.statuses), " ".join(other.statuses)),
        ("test predictions: sha256", one.predictions, other.predictions),
    ):
        if a != b:
            found.append(f"{name} {a} against {b}")
    for key in sorted(one.test_metrics.keys() | other.test_metrics.keys()):
        values = (one.test_metrics.get(key), other.test_metrics.get(key))
        if _bits(values[0]) != _bits(values[1]):
            found.append(f"{key}: {_value(values[0])} against {_value(values[1])}")
    return found


def unplanned_checkpoints(run: RunOutcome, planned_steps: Collection[int]) -> list[str]:
    """Return the steps up to the run's last at which it lacks a planned checkpoint, or has one that was not planned.

    Only a run whose checkpoints are all kept, and that nobody asked to leave (SIGTERM), has exactly the planned ones.
    """
    due = {step for step in planned_steps if step <= (run.last_step or 0)}
    return [
        f"step {step} has {'no checkpoint' if step in due else 'a checkpoint that was not planned'}"
        for step in sorted(due ^ run.weights.keys())
    ]


def differing_configuration(one: RunOutcome, other: RunOutcome) -> list[str]:
    """Return the settings that could explain why two runs differ."""
    found = []
    for key in sorted(one.configuration.keys() | other.configuration.keys()):
        a, b = one.configuration.get(key, "(not there)"), other.configuration.get(key, "(not there)")
        if a != b and key.partition(".")[0] not in _PLACES:
            found.append(f"{key}: {a} against {b}")
    return found


def not_compared(one: RunOutcome, other: RunOutcome) -> list[str]:
    """Return whose weights of which steps cannot be compared, because gc has deleted them."""
    collected = {run.run_id: run.collected_steps for run in (one, other) if run.collected_steps}
    return [
        f"{run_id}: weights of step {', '.join(map(str, steps))}: deleted by bertpar gc"
        for run_id, steps in collected.items()
    ]


def _by_step(one: RunOutcome, other: RunOutcome) -> Iterator[str]:
    rows = _by_step_and_key(one.rows), _by_step_and_key(other.rows)
    common = one.weights.keys() & other.weights.keys()
    for step in sorted({step for side in rows for step, _ in side} | common):
        if step in common and (tensor := one.weights[step].first_difference(other.weights[step])):
            yield f"step {step}: weights differ, first in tensor {tensor}"
        for key in sorted({key for side in rows for s, key in side if s == step}):
            a, b = rows[0].get((step, key), []), rows[1].get((step, key), [])
            if a != b:
                yield f"step {step}: metric {key} is {_values(a)} against {_values(b)}"


def _by_step_and_key(rows: tuple[Row, ...]) -> dict[tuple[int, str], list[str]]:
    found: dict[tuple[int, str], list[str]] = defaultdict(list)
    for row in rows:
        found[row.step, row.key].append(row.bits)
    return found


def _bits(value: float | None) -> str | None:
    return None if value is None else value.hex()


def _values(bits: list[str]) -> str:
    return ", ".join(map(_shown, bits)) if bits else "missing"


def _shown(bits: str) -> str:
    return _value(float.fromhex(bits))


def _value(value: float | None) -> str:
    return "missing" if value is None else f"{value!r} ({value.hex()})"
