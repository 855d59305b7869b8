"""The command line `bertpar`: a table of commands, each imported only when it is used."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from typing import Any, NoReturn

import click

from bertpar.errors import BertparError

COMMANDS: dict[str, str] = {
    "up": "bertpar.cli.stack:up",
    "down": "bertpar.cli.stack:down",
    "ui": "bertpar.cli.pages:ui",
    "worker": "bertpar.cli.stack:worker",
    "plan": "bertpar.cli.plan:plan",
    "status": "bertpar.cli.sweeps:status",
    "attach": "bertpar.cli.sweeps:attach",
    "pause": "bertpar.cli.steering:pause",
    "resume": "bertpar.cli.steering:resume",
    "cancel": "bertpar.cli.steering:cancel",
    "add": "bertpar.cli.steering:add",
    "fork": "bertpar.cli.fork:fork",
    "drop": "bertpar.cli.steering:drop",
    "retry": "bertpar.cli.steering:retry",
    "priority": "bertpar.cli.steering:priority",
    "set": "bertpar.cli.steering:set_option",
    "compare": "bertpar.cli.compare:compare",
    "report": "bertpar.cli.compare:report",
    "why": "bertpar.cli.why:why",
    "reproduce": "bertpar.cli.reproduce:reproduce",
    "checkpoints": "bertpar.cli.catalogue:checkpoints",
    "pin": "bertpar.cli.catalogue:pin",
    "unpin": "bertpar.cli.catalogue:unpin",
    "gc": "bertpar.cli.catalogue:gc",
    "predict": "bertpar.cli.sweeps:predict",
    "ls": "bertpar.cli.sweeps:ls",
    "diff": "bertpar.cli.verify:diff",
    "verify-resume": "bertpar.cli.verify:verify_resume",
    "completion": "bertpar.cli.completion:completion",
}
"""Where each command lives, in the order in which `--help` lists them."""

DEBUG_VARIABLE = "BERTPAR_DEBUG"


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is looked up."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bertpar")
def cli() -> None:
    """Durable, parallel BERT fine-tuning sweeps. A sweep itself is started with train.py."""


def main() -> NoReturn:
    """Run the command line and leave with its exit code."""
    leave(run(sys.argv[1:]))


def run(arguments: list[str], group: click.Command = cli, **options: Any) -> int:
    """Run one command and return its exit code; a user's error becomes one message on stderr."""
    try:
        result = group.main(arguments, prog_name="bertpar", standalone_mode=False, **options)
        return result if isinstance(result, int) else 0
    except BertparError as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except SystemExit as error:  # click's own, where the reader of our output has gone
        return error.code if isinstance(error.code, int) else 1


def leave(exit_code: int) -> NoReturn:
    """End the process with this very exit code.

    A process that used temporalio may abort in native threads while Python finalises (rc 134): it skips that.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _silence_stdout()
    if "temporalio" in sys.modules:
        os._exit(exit_code)
    sys.exit(exit_code)


def _silence_stdout() -> None:
    # Python flushes stdout once more at exit, and would complain again about the closed pipe.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
