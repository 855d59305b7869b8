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


README = (Path(__file__).parents[2] / "README.md").read_text()


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


SILENT = {"worker", "predict", "completion"}
"""Commands without --json: one serves, one prints JSON in any case, one prints a shell's script."""


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_that_answers_does_so_in_json_too_and_its_shape_is_documented(name: str) -> None:
    command = cli.cli.get_command(click.Context(cli.cli), name)
    assert command is not None
    has_json = any("--json" in parameter.opts for parameter in command.params)
    assert has_json is (name not in SILENT)
    documented = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
    assert f"`bertpar {name}`" in documented or name in SILENT


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_is_in_the_readme(name: str) -> None:
    assert f"bertpar {name}" in README or f"`{name}`" in README


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_argument_that_names_a_sweep_or_run_completes_in_the_shell(name: str) -> None:
    command = cli.cli.get_command(click.Context(cli.cli), name)
    assert command is not None
    for argument in command.params:
        if isinstance(argument, click.Argument) and argument.name in ("sweep", "sweeps", "run", "target", "other"):
            assert argument._custom_shell_complete is not None, argument.name


def test_completion_prints_the_script_of_each_shell_and_answers_nothing_where_no_stack_is_up(tmp_path: Path) -> None:
    for shell in ("bash", "zsh", "fish"):
        done = bertpar("completion", shell, home=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"_BERTPAR_COMPLETE={shell}_complete" in done.stdout
    env = {**os.environ, "BERTPAR_HOME": str(tmp_path), "_BERTPAR_COMPLETE": "bash_complete"}
    env |= {"COMP_WORDS": "bertpar status ", "COMP_CWORD": "2"}
    program = [sys.executable, "-m", "bertpar.cli"]
    done = subprocess.run(program, env=env, capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("", "")
    assert not (tmp_path / "stack.json").exists()


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
