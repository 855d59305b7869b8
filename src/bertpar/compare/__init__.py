"""Which configuration of one or more sweeps is better, and whether the difference can be told from chance."""

from bertpar.compare.comparison import Comparison, MeanSpread, Row, compare
from bertpar.compare.configurations import Configuration
from bertpar.compare.results import RunResult, SweepResults, read_sweep_results
from bertpar.compare.sweeps import compare_sweeps, read_sweeps
from bertpar.compare.words import conclusion, limits

__all__ = [
    "Comparison",
    "Configuration",
    "MeanSpread",
    "Row",
    "RunResult",
    "SweepResults",
    "compare",
    "compare_sweeps",
    "conclusion",
    "limits",
    "read_sweep_results",
    "read_sweeps",
]
