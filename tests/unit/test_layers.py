"""Start-up and orchestration stay light: shown by what a fresh interpreter has imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "pytorch_lightning", "datasets", "mlflow", "sklearn", "matplotlib", "pandas"}


@pytest.mark.parametrize(
    "statement",
    [
        "import bertpar.workflows",
        "import bertpar.launch, bertpar.submit, bertpar.follow, bertpar.compose, bertpar.tracking",
        "import bertpar.cli.sweeps, bertpar.cli.stack, bertpar.predictions",
        "import bertpar.api, bertpar.api.display, bertpar.api.html",
        "import bertpar.cli.steering, bertpar.steer, bertpar.extending",
        "import bertpar.worker, bertpar.activities",
        "import bertpar.cli.verify, bertpar.verify.resume",
        "import bertpar.cli.compare, bertpar.compare, bertpar.report",
        "from hydra.core.plugins import Plugins; Plugins.instance()",
    ],
)
def test_no_machine_learning_is_imported(statement: str) -> None:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(done.stdout.split())


def test_the_check_above_notices_a_heavy_import() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys, sklearn; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    assert not HEAVY.isdisjoint(done.stdout.split())
