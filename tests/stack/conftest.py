"""A home of its own for each module of tests, and no process left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bertpar import stack
from bertpar.paths import Home
from tests.stack.helpers import processes_of


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home whose MLflow database counts as made: making it takes seconds, and is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE", "TEMPORAL_PROFILE"):
            patch.delenv(variable, raising=False)
        root: Path = tmp_path_factory.mktemp("home")
        patch.setenv("TEMPORAL_CONFIG_FILE", str(root / "none.toml"))
        home = Home(root)
        home.mlflow_db.touch()
        yield home
        stack.down(home)
        assert processes_of(home) == []
