"""The proof that interruptions change nothing: what a run came to, compared bit for bit."""

from bertpar.verify.compare import differences, faults
from bertpar.verify.outcome import Row, RunOutcome, read_outcome
from bertpar.verify.sweeps import Place, SweepOutcome, compare_sweeps, read_sweep
from bertpar.verify.weights import Weights, read_weights

__all__ = [
    "Place",
    "Row",
    "RunOutcome",
    "SweepOutcome",
    "Weights",
    "compare_sweeps",
    "differences",
    "faults",
    "read_outcome",
    "read_sweep",
    "read_weights",
]
