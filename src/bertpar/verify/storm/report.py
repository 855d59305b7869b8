"""What a storm came to: a line for each sweep, a table of totals in Markdown, and JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from bertpar.verify.storm.outcome import UnderFire
from bertpar.verify.storm.watch import Recovery
from bertpar.verify.sweeps import RunComparison


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One sweep under fire and how its results compare with the undisturbed sweep's."""

    fire: UnderFire
    problems: tuple[str, ...]
    num_rows: int

    @classmethod
    def of(cls, fire: UnderFire, undisturbed: UnderFire, compared: Sequence[RunComparison]) -> Judged:
        """Collect what is wrong; `compared` are the runs of both sweeps, none if `fire` did not complete."""
        problems = [*fire.failures, *(f"{run.name}: {problem}" for run in compared for problem in run.problems)]
        if not fire.failures and fire.prediction != undisturbed.prediction:
            problems.append(f"bertpar predict: {undisturbed.prediction} against {fire.prediction}")
        return cls(fire=fire, problems=tuple(problems), num_rows=sum(run.num_rows for run in compared))

    def line(self) -> str:
        """Return the sweep in one line, and each problem in one more."""
        fire = self.fire
        verdict = "IDENTICAL" if not self.problems else "DIFFERENT"
        kinds = ", ".join(f"{count} {name}" for name, count in fire.blows.items())
        facts = (
            f"{fire.num_blows} kills in {fire.seconds:.0f} s",
            f"{fire.attempts} attempts",
            f"{sum(fire.lost_steps)} steps lost",
            f"recovery {_recovery(fire.recoveries)}",
            verdict,
        )
        return "\n".join([f"{fire.sweep_id}: {'; '.join(facts)} ({kinds})", *(f"  {p}" for p in self.problems)])

    def as_json(self) -> dict[str, Any]:
        """Return everything known about the sweep."""
        fire = asdict(self.fire)
        del fire["place"]
        return {**fire, "problems": self.problems, "num_rows": self.num_rows}


def totals(judged: Sequence[Judged]) -> str:
    """Return the Markdown table of a whole storm."""
    fires = [one.fire for one in judged]
    blows = Counter(name for fire in fires for _, name in fire.log)
    recoveries = [recovery for fire in fires for recovery in fire.recoveries]
    lost = [steps for fire in fires for steps in fire.lost_steps]
    rows = [
        ("sweeps", f"{len(judged)}, {sum(fire.status == 'completed' for fire in fires)} completed unattended"),
        ("kills", f"{blows.total()}, one every {sum(f.seconds for f in fires) / max(1, blows.total()):.1f} s"),
        ("attempts at training", str(sum(fire.attempts for fire in fires))),
        ("differing sweeps", str(sum(bool(one.problems) for one in judged))),
        ("metric rows compared", str(sum(one.num_rows for one in judged))),
        ("steps seen lost per ended attempt", f"mean {sum(lost) / max(1, len(lost)):.1f}, most {max(lost, default=0)}"),
        ("kill to next training step", _recovery(recoveries)),
    ]
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    lines += ["", "| blow | times | to the next training step |", "|---|--:|---|"]
    for name, count in sorted(blows.items()):
        own = [recovery for recovery in recoveries if recovery.blow == name]
        lines.append(f"| {name} | {count} | {_spread([one.seconds for one in own]) if own else ''} |")
    return "\n".join(lines)


def _recovery(recoveries: Sequence[Recovery]) -> str:
    """Return how long runs stood still after kills. SIGSTOP is not among them: it holds a run on purpose."""
    killed = [recovery.seconds for recovery in recoveries if recovery.blow.startswith("kill")]
    return _spread(killed) if killed else "not measured"


def _spread(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    p95 = ordered[math.ceil(0.95 * len(ordered)) - 1]
    return f"median {median(ordered):.1f} s, 95 % within {p95:.1f} s (of {len(ordered)})"
