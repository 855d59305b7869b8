"""The embedded local stack: a Temporal server, two workers and MLflow's page, under one supervisor per home.

`record` is what is known about a stack, `control` what commands do with it; the supervisor's side is
`supervisor`, `roles` and `child`.
"""

from bertpar.stack.control import down, ensure_up, heal, read, request_mlflow_ui, runs_other_code
from bertpar.stack.record import Stack
from bertpar.stack.settings import Settings, settings_from_environment

__all__ = [
    "Settings",
    "Stack",
    "down",
    "ensure_up",
    "heal",
    "read",
    "request_mlflow_ui",
    "runs_other_code",
    "settings_from_environment",
]
