"""scripts/setup: an interrupted run spoils no later one. Nothing is installed here: a script stands in for Python."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PYTHON = """#!/bin/sh
cd "$(dirname "$0")"
case "$*" in
  "-m venv "*)
    mkdir -p ../checkout/.venv/bin
    cp python ../checkout/.venv/bin/python
    echo made >>environments
    printf '#!/bin/sh\\n' >../checkout/.venv/bin/pip
    chmod +x ../checkout/.venv/bin/pip ;;
  "-m pip "*) test -x pip ;;
esac
"""
"""Makes environments of itself; as in a real one, pip comes last and does nothing before it is there."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    checkout, interpreter = tmp_path / "checkout", tmp_path / "interpreter"
    (checkout / "scripts").mkdir(parents=True)
    for name in ("pyproject.toml", "scripts/setup"):
        shutil.copy(ROOT / name, checkout / name)
    interpreter.mkdir()
    (interpreter / "python").write_text(PYTHON, encoding="utf-8")
    (interpreter / "python").chmod(0o755)
    return checkout


def set_up(checkout: Path) -> int:
    """Run scripts/setup, and return how many environments have been made up to now."""
    interpreter = checkout.parent / "interpreter"
    env = {**os.environ, "PYTHON": str(interpreter / "python")}
    done = subprocess.run([checkout / "scripts" / "setup"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return len((interpreter / "environments").read_text(encoding="utf-8").splitlines())


def test_an_environment_that_was_interrupted_before_it_had_pip_is_made_anew(checkout: Path) -> None:
    (checkout / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(checkout.parent / "interpreter" / "python", checkout / ".venv" / "bin" / "python")
    assert set_up(checkout) == 1
    assert (checkout / ".venv" / ".bertpar-setup").exists()


def test_a_whole_environment_is_kept_when_the_requirements_change(checkout: Path) -> None:
    assert set_up(checkout) == 1
    with (checkout / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    assert set_up(checkout) == 1
