"""The results of a sweep, or what it would do, as a pandas DataFrame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bertpar.observe import RunView, SweepView
from bertpar.plans import PlannedRun

if TYPE_CHECKING:
    from pandas import DataFrame, Series


def results_frame(view: SweepView) -> DataFrame:
    """Return one row a run, labelled by its index; swept values are numbers where all of a key's are."""
    import pandas as pd

    swept = _in_order(run.state.run.swept for run in view.runs)
    metrics = sorted({key for run in view.runs for key in run.state.metrics})
    columns = ["run_id", *swept, "status", "step", "attempt", *metrics]
    index = pd.Index([run.state.run.index for run in view.runs], name="run")
    frame = pd.DataFrame([_row(run) for run in view.runs], index=index, columns=columns)
    for key in swept:
        frame[key] = _as_numbers(frame[key])
    return frame


def plan_frame(planned: Sequence[PlannedRun]) -> DataFrame:
    """Return one row a run, labelled by its index: its swept values, `verdict`, `why`, and estimated `seconds`."""
    import pandas as pd

    swept = _in_order(run.run.swept for run in planned)
    rows = [
        {**p.run.swept, "verdict": p.forecast.verdict, "why": p.why, "seconds": p.forecast.seconds} for p in planned
    ]
    index = pd.Index([p.run.index for p in planned], name="run")
    frame = pd.DataFrame(rows, index=index, columns=[*swept, "verdict", "why", "seconds"])
    for key in swept:
        frame[key] = _as_numbers(frame[key])
    return frame


def _in_order(rows: Any) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _row(run: RunView) -> dict[str, Any]:
    state = run.state
    own = {"run_id": state.run.run_id, "status": run.status, "step": state.step, "attempt": state.attempt}
    return {**state.run.swept, **own, **state.metrics}


def _as_numbers(values: Series[Any]) -> Series[Any]:
    import pandas as pd

    try:
        return pd.to_numeric(values)
    except (ValueError, TypeError):
        return values
