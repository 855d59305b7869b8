"""bertpar: Hydra sweeps of BERT fine-tuning as durable Temporal workflows.

`sweep = bertpar.sweep("lr=1e-4,2e-4")`, `await sweep`, `sweep.results()`: docs/python.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bertpar.api import Run, Sweep, attach, plan, sweep, sweeps
    from bertpar.errors import BertparError, ConfigError, NotFoundError, RefusedError

__all__ = [
    "BertparError",
    "ConfigError",
    "NotFoundError",
    "RefusedError",
    "Run",
    "Sweep",
    "attach",
    "plan",
    "sweep",
    "sweeps",
]

_ERRORS = ("BertparError", "ConfigError", "NotFoundError", "RefusedError")


def __getattr__(name: str) -> Any:
    """Import what is public when it is first used: every process of bertpar imports this module."""
    if name not in __all__:
        raise AttributeError(f"module 'bertpar' has no attribute {name!r}")
    value = getattr(importlib.import_module("bertpar.errors" if name in _ERRORS else "bertpar.api"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
