"""The names of the metrics, cheap to import: what a client checks `checkpoint.monitor` against."""

from __future__ import annotations

from bertpar.spec import Task

METRICS: dict[Task, tuple[str, ...]] = {
    "classification": ("loss", "accuracy", "macro_f1", "mcc"),
    "regression": ("loss", "pearson", "spearman"),
}
"""What every validation and the final test compute, without the split's prefix."""


def main_metric(task: Task) -> str:
    """Return the metric that a model of `task` is judged by: `accuracy`, or `pearson` for regression."""
    return "accuracy" if task == "classification" else "pearson"


def monitored_metrics(task: Task) -> tuple[str, ...]:
    """Return the names that validation logs, such as `val/loss`: what a checkpoint may be chosen by."""
    return tuple(f"val/{name}" for name in METRICS[task])
