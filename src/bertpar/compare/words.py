"""The comparison in words: its conclusion, and what limits it. Pure."""

from __future__ import annotations

from bertpar.compare.comparison import Comparison, MeanSpread, Row
from bertpar.compare.statistics import CONFIDENCE, PairedDifference

_FEW_SEEDS = 3


def conclusion(comparison: Comparison) -> str:
    """Return, in a few sentences, who won and whether the winner can be told from the runner-up and the others."""
    winner = comparison.winner
    name = winner.configuration.name
    if len(comparison.rows) == 1:
        runs = counted(len(winner.configuration.runs), "seed")
        return f"There is one configuration only ({name}, {runs}): nothing to compare it with."
    second = comparison.rows[1]
    runner_up = second.configuration.name
    verdict = {
        "not separable": "Winner not separable from runner-up",
        "worse": f"{name} is better than the runner-up {runner_up}",
        "better": f"{name} won on validation, but the runner-up {runner_up} is better on the test set",
    }[second.verdict]
    sentences = [
        f"{verdict}: in {comparison.test_metric}, {name} minus {runner_up} is {lead_text(second.lead)} "
        f"(p {p_text(second.p_adjusted, '= ')} after Holm's correction for "
        f"{counted(len(comparison.rows) - 1, 'comparison')}; {comparison.num_examples} test examples)."
    ]
    if second.objective.mean == winner.objective.mean:
        sentences.insert(
            0, f"Both have the same mean {comparison.objective}: {name} is named first by its order alone."
        )
    sentences += _others(comparison.rows[2:], name)
    return " ".join(sentences)


def _others(rows: tuple[Row, ...], winner: str) -> list[str]:
    if not rows:
        return []
    if len(rows) == 1:
        told = {"not separable": "is not separable from it either", "worse": "is worse"}.get(
            rows[0].verdict, "is better on the test set, though not chosen on validation"
        )
        return [f"The third, {rows[0].configuration.name}, {told}."]
    worse = sum(row.verdict == "worse" for row in rows)
    better = [row.configuration.name for row in rows if row.verdict == "better"]
    sentences = [f"Of the {len(rows)} others, {worse} {'is' if worse == 1 else 'are'} worse than {winner}."]
    if better:
        sentences.append(f"Better on the test set, though not chosen on validation: {'; '.join(better)}.")
    return sentences


def limits(comparison: Comparison) -> list[str]:
    """Return what the reader must know to read the numbers: seeds, what was left out, other notes."""
    notes = list(comparison.notes)
    fewest = min(len(row.configuration.runs) for row in comparison.rows)
    if fewest == 1:
        notes.append(
            "A configuration with one seed has no spread: its interval covers the choice of test examples, not the "
            "variation between trainings."
        )
    elif fewest < _FEW_SEEDS:
        notes.append(f"{fewest} seeds tell little of the variation between trainings; 5 or more tell more.")
    if comparison.left_out:
        notes.append(f"Left out, because they did not complete: {', '.join(comparison.left_out)}.")
    return notes


def lead_text(lead: PairedDifference | None) -> str:
    """Return a difference with its interval: `+0.0120 [-0.0031, +0.0270]`."""
    return "" if lead is None else f"{lead.difference:+.4f} [{lead.low:+.4f}, {lead.high:+.4f}]"


def metric_text(value: MeanSpread) -> str:
    """Return `mean ± spread`, the mean alone for one seed."""
    return f"{value.mean:.4f}" + ("" if value.spread is None else f" ± {value.spread:.4f}")


def p_text(p: float | None, equals: str = "") -> str:
    """Return a p-value with three decimals after `equals`, or its upper bound."""
    return "" if p is None else ("< 0.001" if p < 0.001 else f"{equals}{p:.3f}")


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


LEGEND = (
    f"± is the standard deviation over seeds. lead: the winner's test metric minus the configuration's, with the "
    f"{CONFIDENCE:.0%} interval of a paired bootstrap over examples, seeds included; p after Holm's correction."
)
