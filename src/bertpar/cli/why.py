"""The command that tells why a run went as it did."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from bertpar import paths
from bertpar.cli.asking import json_option, print_json, run_argument, temporal_options, with_run

if TYPE_CHECKING:
    from rich.table import Table

    from bertpar.tries import EvaluationTries
    from bertpar.why import RunRecord


@click.command(short_help="Tell what happened to RUN (SWEEP/INDEX).")
@run_argument()
@json_option
@temporal_options
def why(run: str, as_json: bool, **where: str | None) -> None:
    """Tell what happened to RUN (SWEEP/INDEX): its attempts, what ended each, and the steps that were done again."""
    from bertpar.follow import make_console
    from bertpar.why import explain_run

    record = with_run(where, run, lambda client, run_id: explain_run(client, run_id, paths.home().cache))
    if as_json:
        print_json(record.as_json())
        return
    console = make_console()
    console.print(headline(record), highlight=False, markup=False, soft_wrap=True)
    if record.attempts:
        console.print(attempts_table(record), highlight=False)
    if record.evaluation is not None:
        console.print(evaluation_line(record.evaluation), highlight=False, markup=False, soft_wrap=True)
    for line in key_lines(record):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def headline(record: RunRecord) -> str:
    """Return what happened in one sentence."""
    start = f"run {record.run_id}: {record.status}"
    if not record.attempts:
        return f"{start}, {record.failure}" if record.failure else f"{start}; its training has not begun"
    causes = [attempt.cause for attempt in record.attempts if attempt.cause is not None]
    if not causes and not (record.evaluation and record.evaluation.last_failure):
        return f"{start}; no attempt failed"
    num = len(record.attempts)
    from bertpar.render import duration

    at_least = "at least " if any(a.lost_steps is not None and not a.is_exact for a in record.attempts) else ""
    again = f"; {at_least}{_counted(record.lost_steps, 'step')} done again" if num > 1 else ""
    return f"{start} after {_counted(num, 'attempt')} at training, {duration(record.train_seconds)}{again}"


def attempts_table(record: RunRecord) -> Table:
    """Return one row an attempt."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("attempt", "began", "took", "from step", "to step", "done again", "end"):
        table.add_column(
            title, justify="left" if title in ("began", "end") else "right", no_wrap=title != "end", overflow="fold"
        )
    for attempt in record.attempts:
        bound = "" if attempt.is_exact else "≥ "
        table.add_row(
            str(attempt.number),
            _moment(attempt.started_at),
            _took(attempt.started_at, attempt.ended_at),
            str(attempt.resumed_from_step),
            f"{bound}{attempt.reached_step}",
            "" if attempt.lost_steps is None else f"{bound}{attempt.lost_steps}",
            Text(str(attempt.cause or attempt.outcome)),
        )
    return table


def key_lines(record: RunRecord) -> list[str]:
    """Return the run's key and its parts: two runs that agree in all of them are computed once."""
    identity = record.identity
    if identity is None or record.run_key is None:
        return []
    lines = [f"key {record.run_key}"]
    if record.origin is not None:
        lines = [f"{'reused from' if record.reused else 'went on from a checkpoint of'} {record.origin}", *lines]
    parts = {
        "config": " ".join(f"{key}={value}" for key, value in sorted(identity.config.items())),
        "code": identity.code,
        "data": identity.data,
        "model": identity.model,
        "versions": " ".join(f"{name}={version}" for name, version in sorted(identity.versions.items())),
    }
    return [*lines, *(f"  {part:<9} {value}" for part, value in parts.items())]


def evaluation_line(evaluation: EvaluationTries) -> str:
    """Return how the evaluation went."""
    tries = "at the first try" if evaluation.num_tries == 1 else f"tries so far or in all: {evaluation.num_tries}"
    took = _took(evaluation.started_at, evaluation.ended_at)
    last = f"; last failure: {evaluation.last_failure}" if evaluation.last_failure else ""
    return f"evaluation: {evaluation.outcome}, {tries}{f', {took}' if took else ''}{last}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _took(start: datetime | None, end: datetime | None) -> str:
    from bertpar.render import duration

    return "" if start is None or end is None else duration((end - start).total_seconds())
