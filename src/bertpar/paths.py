"""Where configuration and state live."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parents[1]

HOME_VARIABLE = "BERTPAR_HOME"


def conf_dir() -> Path:
    """Return the folder of Hydra's configuration: the checkout's conf/, else the copy inside the wheel."""
    checkout = _CHECKOUT / "conf"
    # An editable install also copies conf/ into the package, and that copy goes stale: the checkout wins.
    return checkout if (checkout / "config.yaml").is_file() else _PACKAGE / "conf"


@dataclass(frozen=True)
class Home:
    """The folder that holds all local state: the stack's files, the default store and the MLflow database."""

    root: Path

    @property
    def stack_file(self) -> Path:
        """The public record of the local stack: addresses and pids by role."""
        return self.root / "stack.json"

    @property
    def lock_file(self) -> Path:
        """Held by the supervisor of the local stack for as long as it lives."""
        return self.root / "stack.lock"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def temporal_db(self) -> Path:
        return self.root / "temporal.db"

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def cache(self) -> Path:
        """Verified local copies of what a remote store holds."""
        return self.root / "cache"

    @property
    def mlflow_db(self) -> Path:
        return self.root / "mlflow.db"

    @property
    def mlflow_uri(self) -> str:
        return f"sqlite:///{self.mlflow_db}"

    @property
    def mlflow_artifacts(self) -> Path:
        return self.root / "mlartifacts"


def home() -> Home:
    """Return `$BERTPAR_HOME`, or `.bertpar/` beside the checkout's conf/, or `~/.bertpar` for an installed wheel."""
    if named := os.environ.get(HOME_VARIABLE):
        return Home(Path(named).expanduser().resolve())
    if conf_dir().parent == _CHECKOUT:
        return Home(_CHECKOUT / ".bertpar")
    return Home(Path.home() / ".bertpar")
