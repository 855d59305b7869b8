"""Commands that prove what is promised: that interruptions change nothing."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bertpar import paths
from bertpar.cli.asking import config_dir_option, json_option, print_json, say, sweep_argument
from bertpar.cli.completion import complete_sweep
from bertpar.errors import ConfigError
from bertpar.paths import Home

if TYPE_CHECKING:
    from bertpar.verify.resume import Verdict
    from bertpar.verify.sweeps import RunComparison

_MAX_LINES = 12
"""Differences shown of one run: after the first ones the others say nothing new."""


@click.command(short_help="Compare two sweeps' results, bit for bit.")
@sweep_argument()
@click.argument("other", shell_complete=complete_sweep)
@click.option(
    "--other-home",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The BERTPAR_HOME that OTHER was run in. Default: the same as SWEEP's.",
)
@click.option("--store", "store_root", help="SWEEP's store.root, where it was not the home's own.")
@click.option("--tracking", help="SWEEP's tracking.uri, where it was not the home's own.")
@click.option("--other-store", help="OTHER's. Default: its home's own, or SWEEP's if that is the same home.")
@click.option("--other-tracking", help="Likewise.")
@json_option
def diff(
    sweep: str,
    other: str,
    other_home: Path | None,
    store_root: str | None,
    tracking: str | None,
    other_store: str | None,
    other_tracking: str | None,
    as_json: bool,
) -> int:
    """Compare the results of SWEEP and OTHER run by run, bit for bit.

    Compared are the weights of every checkpoint that both have, every metric row in MLflow (values, not when they were
    logged; not the measured speed), the best step, the test metrics and the test predictions, and that both have the
    best and the last checkpoint, and MLflow one run of each and no row twice. Runs are matched by what was swept. The
    exit code is 0 only if all is identical. Neither Temporal nor a running stack is needed.
    """
    from bertpar.verify import Place, compare_sweeps, read_sweep

    place = Place.of(paths.home(), store_root, tracking)
    if other_home is None:
        other_place = Place.of(paths.home(), other_store or store_root, other_tracking or tracking)
    else:
        other_place = Place.of(Home(other_home.resolve()), other_store, other_tracking)
    one, two = read_sweep(place, sweep), read_sweep(other_place, other)
    compared = compare_sweeps(one, two)
    identical = not any(run.problems for run in compared)
    if as_json:
        runs = [asdict(run) for run in compared]
        print_json({"identical": identical, "sweep": one.sweep_id, "other": two.sweep_id, "runs": runs})
    else:
        for run in compared:
            _print_comparison(run)
        verdict = f"DIFFERENT: the first value is {one.sweep_id}'s, the second {two.sweep_id}'s"
        click.echo("IDENTICAL" if identical else verdict)
    return 0 if identical else 1


def _print_comparison(run: RunComparison) -> None:
    if run.problems:
        click.echo(f"{run.name}: different")
        shown = run.problems[:_MAX_LINES]
        for problem in shown:
            click.echo(f"  {problem}")
        if len(run.problems) > len(shown):
            click.echo(f"  and {len(run.problems) - len(shown)} more differences (all of them: --json)")
        for explanation in run.explanations:
            click.echo(f"  configured differently: {explanation}")
    elif run.digest is not None:
        click.echo(f"{run.name}: identical  sha256:{run.digest}  {run.num_rows} metric rows")
    for missing in run.not_compared:
        click.echo(f"  not compared: {missing}")


@click.command("verify-resume")
@click.argument("overrides", nargs=-1)
@click.option("--kills", type=click.IntRange(min=1), default=5, show_default=True, help="How often to kill -9.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Decides when to kill.")
@config_dir_option
@json_option
def verify_resume(overrides: tuple[str, ...], kills: int, seed: int, config_dir: Path | None, as_json: bool) -> int:
    """Prove on your own configuration that kills change nothing.

    OVERRIDES are those of train.py (experiment=smoke lr=1e-3 ...). The configuration is trained twice, side by side
    where the cores allow it: once undisturbed, and once killed with SIGKILL at seeded random steps and in the midst of
    commits, each time resumed from what was signalled. Then the weights of every checkpoint, every metric row, the best
    step, the test metrics and the test predictions are compared, bit for bit. It works in a temporary folder (TMPDIR)
    with a store and an MLflow database of its own, and needs no Temporal.

    Prints IDENTICAL with the digests and ends with 0, or prints the first step and tensor that differ and ends with 1.
    A configuration that cannot be repeated exactly is refused with the reason (2).
    """
    import asyncio
    import shutil
    import tempfile

    from bertpar.composing import compose_run
    from bertpar.machine import visible_gpus
    from bertpar.verify.exactness import exactness_problems
    from bertpar.verify.resume import verify_resume

    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # it would tell of every table of the new database
    home = Home(Path(tempfile.mkdtemp(prefix="bertpar-verify-")))
    try:
        spec = compose_run(overrides, config_dir, home)
        if problems := exactness_problems(spec, "gpu" if visible_gpus() else "cpu"):
            raise ConfigError("\n".join(f"this configuration cannot be exact: {problem}" for problem in problems))
        tell = say if as_json else click.echo
        tell(
            f"training {spec.model.name} on {spec.data.name} ({spec.trainer.precision}, seed {spec.seed}) twice: "
            f"undisturbed, and killed {kills} times"
        )
        verdict = asyncio.run(verify_resume(spec, home, kills, seed, tell))
    finally:
        shutil.rmtree(home.root, ignore_errors=True)
    if as_json:
        print_json(
            {
                "identical": not verdict.problems,
                "kills": [kill.step for kill in verdict.kills],
                "weights": verdict.undisturbed.weights_digest,
                "predictions": verdict.undisturbed.predictions,
                "metric_rows": len(verdict.undisturbed.rows),
                "problems": verdict.problems,
            }
        )
    else:
        _print_verdict(verdict)
    return 1 if verdict.problems else 0


def _print_verdict(verdict: Verdict) -> None:
    for problem in verdict.problems[:_MAX_LINES]:
        click.echo(f"  {problem}")
    if verdict.problems:
        click.echo(f"DIFFERENT after {len(verdict.kills)} kills: the first value is the undisturbed run's")
        return
    one = verdict.undisturbed
    steps = ", ".join(str(kill.step) for kill in verdict.kills)
    click.echo(
        f"IDENTICAL  weights sha256:{one.weights_digest}  {len(one.rows)} metric rows, "
        f"predictions sha256:{one.predictions}  after {len(verdict.kills)} kills at steps {steps}"
    )
