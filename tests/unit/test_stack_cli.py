"""The command line itself: start-up, exit codes, errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from bertpar import cli
from bertpar.errors import ConfigError, StackError

HEAVY = (
    "torch",
    "transformers",
    "pytorch_lightning",
    "datasets",
    "mlflow",
    "temporalio",
    "pandas",
    "sklearn",
)


def bertpar(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "BERTPAR_HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-m", "bertpar.cli", *arguments], env=env, capture_output=True, text=True, timeout=60
    )


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom bertpar import cli\ncli.run(['--help'])\n"
        f"print('LOADED', [m for m in {HEAVY} if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.stdout.splitlines()[-1] == "LOADED []", result.stderr


def test_every_command_has_a_help_text() -> None:
    context = click.Context(cli.cli)
    for name in cli.COMMANDS:
        command = cli.cli.get_command(context, name)
        assert command is not None
        assert command.help, name


def test_an_error_of_ours_is_one_message_and_its_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.group()
    def group() -> None: ...

    @group.command()
    def broken() -> None:
        raise ConfigError("lr=-1 must be > 0.")

    monkeypatch.delenv(cli.DEBUG_VARIABLE, raising=False)
    assert cli.run(["broken"], group) == 2
    assert capsys.readouterr().err == "error: lr=-1 must be > 0.\n"
    monkeypatch.setenv(cli.DEBUG_VARIABLE, "1")
    with pytest.raises(ConfigError):
        cli.run(["broken"], group)


def test_what_a_command_returns_is_the_exit_code() -> None:
    @click.group()
    def group() -> None: ...

    @group.command()
    def some_failed() -> int:
        return 1

    assert cli.run(["some-failed"], group) == 1


def test_an_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["fly"]) == 2
    assert "fly" in capsys.readouterr().err


def test_status_without_a_stack_says_down(tmp_path: Path) -> None:
    result = bertpar("status", "--json", home=tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["state"] == "down"


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = bertpar("up", home=tmp_path / "file" / "home")
    assert result.returncode == StackError.exit_code
    assert f"error: BERTPAR_HOME={tmp_path / 'file' / 'home'} cannot be written" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_worker_without_a_cluster_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEMPORAL_ADDRESS", raising=False)
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(tmp_path / "none.toml"))
    result = bertpar("worker", "eval", home=tmp_path)
    assert result.returncode == 2
    assert "TEMPORAL_ADDRESS" in result.stderr


def test_no_command_is_described_by_half_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    assert "..." not in capsys.readouterr().out.partition("Commands:")[2]
