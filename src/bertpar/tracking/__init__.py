"""Everything that bertpar says to MLflow. MLflow is imported by the calls that need it, not here.

No global state of MLflow is used or changed: every call names its tracking URI.
"""

from bertpar.tracking.address import check_reachable, resolve_uri
from bertpar.tracking.connection import (
    ensure_experiment,
    initialise_database,
    initialise_local_database,
)
from bertpar.tracking.links import compare_url, experiment_url, run_url, sweep_url
from bertpar.tracking.rows import EXAMPLES_PER_SECOND, RowLog, log_artifacts, log_missing_rows, log_page, log_rows
from bertpar.tracking.runs import close_run, find_opened, open_run

__all__ = [
    "EXAMPLES_PER_SECOND",
    "RowLog",
    "check_reachable",
    "close_run",
    "compare_url",
    "ensure_experiment",
    "experiment_url",
    "find_opened",
    "initialise_database",
    "initialise_local_database",
    "log_artifacts",
    "log_missing_rows",
    "log_page",
    "log_rows",
    "open_run",
    "resolve_uri",
    "run_url",
    "sweep_url",
]
