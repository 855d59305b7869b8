"""`python -m bertpar.verify.storm`: what scripts/kill_storm runs."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, get_args

import click
from temporalio.runtime import Runtime, TelemetryConfig

from bertpar import faults, stack
from bertpar.cli import leave, run
from bertpar.composing import compose_run
from bertpar.errors import BertparError, ConfigError
from bertpar.machine import visible_gpus
from bertpar.paths import HOME_VARIABLE, Home
from bertpar.stack.settings import SLOTS_VARIABLE
from bertpar.verify.exactness import Device, exactness_problems
from bertpar.verify.storm.fire import Fire
from bertpar.verify.storm.outcome import UnderFire
from bertpar.verify.storm.plan import plan_sweep
from bertpar.verify.storm.report import Judged, totals
from bertpar.verify.storm.sweeps import Configuration, Sweeps, write_configurations
from bertpar.verify.storm.tracking import MlflowServer
from bertpar.verify.sweeps import SweepOutcome, compare_sweeps, read_sweep

_FOREIGN = ("TEMPORAL_", "BERTPAR_", "MLFLOW_")
"""Variables of the caller's environment that would have the storm work elsewhere."""


@click.command()
@click.argument("overrides", nargs=-1)
@click.option("--seed", type=click.IntRange(min=0), required=True, help="Decides which kills come when.")
@click.option("--kills", type=click.IntRange(min=1), required=True, help="In total, spread over the sweeps.")
@click.option("--sweeps", "num_sweeps", type=click.IntRange(min=1), help="At least so many. Default: one for 20 kills.")
@click.option("--first", type=click.IntRange(min=1), default=1, help="Number of the first sweep: to repeat one.")
@click.option("--configuration", type=click.Choice(get_args(Configuration)), default="tiny", show_default=True)
@click.option("--home", "folder", type=click.Path(path_type=Path), help="Work here and leave it. Default: temporary.")
@click.option("--deadline", type=float, default=300.0, show_default=True, help="Seconds from a sweep's last kill.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all numbers here.")
def storm(
    overrides: tuple[str, ...],
    seed: int,
    kills: int,
    num_sweeps: int | None,
    first: int,
    configuration: Configuration,
    folder: Path | None,
    deadline: float,
    json_file: Path | None,
) -> int:
    """Kill every process of the whole stack over and over, and show that nothing is lost or changed.

    One sweep of four runs is left in peace; then others of the same runs come under fire, each in a store of its own:
    kill -9 of jobs, templates, workers, client, Temporal, supervisor, MLflow server, everything at once, and of whoever
    reaches a named point of the code; SIGSTOP beyond the timeouts; SIGTERM. After a sweep's last kill nothing helps it
    but what any bertpar command does. Its results are then compared with the undisturbed ones, bit for bit.

    OVERRIDES are those of train.py, for all runs. The exit code is 0 only if every sweep completed with identical
    results.
    """
    for name in [name for name in os.environ if name.startswith(_FOREIGN)]:
        del os.environ[name]
    home = Home((folder or Path(tempfile.mkdtemp(prefix="bertpar-storm-"))).resolve())
    try:
        return asyncio.run(
            _storm(
                home,
                configuration,
                overrides,
                seed,
                kills,
                num_sweeps or math.ceil(kills / 20),
                first,
                deadline,
                json_file,
            )
        )
    except asyncio.CancelledError:  # SIGTERM
        raise click.Abort from None
    finally:
        stack.down(home, timeout_seconds=20)
        if folder is None:
            shutil.rmtree(home.root, ignore_errors=True)


async def _storm(
    home: Home,
    configuration: Configuration,
    overrides: tuple[str, ...],
    seed: int,
    num_kills: int,
    num_sweeps: int,
    first: int,
    deadline_seconds: float,
    json_file: Path | None,
) -> int:
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=None)))  # it tells of every call that fails
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)  # so that all is stopped
    sweeps = write_configurations(home, configuration, overrides)
    _refuse_inexact(sweeps, home)
    (home.root / "orders").mkdir(parents=True, exist_ok=True)
    home.logs.mkdir(exist_ok=True)
    os.environ |= {
        HOME_VARIABLE: str(home.root),
        faults.VARIABLE: str(home.root / "orders"),
        SLOTS_VARIABLE: "2",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
    }
    server = MlflowServer(home)
    judged: list[Judged] = []
    try:
        undisturbed = await Fire(home, sweeps, plan_sweep(seed, 0), None, 0).run(deadline_seconds)
        click.echo(f"{undisturbed.sweep_id}: undisturbed, {undisturbed.status} in {undisturbed.seconds:.0f} s")
        if undisturbed.failures:
            raise BertparError(
                f"the undisturbed sweep is no measure: {'; '.join(undisturbed.failures)}; see {home.logs}"
            )
        reference = await asyncio.to_thread(read_sweep, undisturbed.place, undisturbed.sweep_id)
        for number in itertools.count(first):
            num_left = max(0, num_kills - sum(one.fire.num_blows for one in judged))
            num_sweeps_left = num_sweeps - len(judged)
            if not num_left and num_sweeps_left <= 0:
                break
            share = math.ceil(num_left / max(1, num_sweeps_left))  # a sweep may end before its share has hit
            fire = Fire(home, sweeps, plan_sweep(seed, number), server, share)
            one = await asyncio.to_thread(_judge, await fire.run(deadline_seconds), undisturbed, reference)
            judged.append(one)
            click.echo(one.line())
            if json_file is not None:
                sweeps_so_far = [each.as_json() for each in judged]
                _write(json_file, {"seed": seed, "configuration": configuration, "sweeps": sweeps_so_far})
            if not one.problems:
                fire.forget()
    finally:
        server.stop()
    click.echo(f"\n{totals(judged)}")
    return int(any(one.problems for one in judged))


def _refuse_inexact(sweeps: Sweeps, home: Home) -> None:
    device: Device = "gpu" if visible_gpus() else "cpu"
    for experiment in sweeps.experiments:
        spec = compose_run([f"experiment={experiment}", *sweeps.overrides], sweeps.config_dir, home)
        if problems := exactness_problems(spec, device):
            raise ConfigError("\n".join(f"{experiment} cannot be exact: {problem}" for problem in problems))


def _judge(fire: UnderFire, undisturbed: UnderFire, reference: SweepOutcome) -> Judged:
    completed = fire.status == "completed"
    compared = compare_sweeps(reference, read_sweep(fire.place, fire.sweep_id)) if completed else []
    return Judged.of(fire, undisturbed, compared)


def _write(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    leave(run(sys.argv[1:], storm))
