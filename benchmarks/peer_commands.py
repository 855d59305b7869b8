"""What people use today: how each peer is started for a task, and what it then says of its runs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from environments import PEERS, environment_of
from preparation import Task


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a peer is given beside the task's swept values."""

    model: Path
    data: Path
    epochs: int
    batch_size: int
    precision: str = "fp32"
    matmul: str = "highest"
    """torch.set_float32_matmul_precision"""
    attention: str = "sdpa"
    """transformers' attn_implementation; sdpa is what it takes by itself"""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A tool, the environment that it needs, and its command line."""

    environment: str
    """`peers/NAME.txt`"""
    arguments: Callable[[Task, Inputs, Path], list[str]]
    """Behind `python`, with the folder for its output."""

    def command(self, task: Task, inputs: Inputs, output: Path) -> list[str]:
        """Return the command line; makes the environment if need be."""
        return [str(environment_of(self.environment)), *self.arguments(task, inputs, output)]


def _hydra(*overrides: str) -> Callable[[Task, Inputs, Path], list[str]]:
    def arguments(task: Task, inputs: Inputs, output: Path) -> list[str]:
        settings = {name: str(value) for name, value in vars(inputs).items()}
        settings |= {"mlflow": f"sqlite:///{output}/mlflow.db", "hydra.sweep.dir": str(output / "multirun")}
        given = [f"{name}={value}" for name, value in settings.items()]
        return [str(PEERS / "hydra_train.py"), "-m", *task.swept, *given, *overrides]

    return arguments


def _script(name: str) -> Callable[[Task, Inputs, Path], list[str]]:
    def arguments(task: Task, inputs: Inputs, output: Path) -> list[str]:
        given = [f"--{name}={value}" for name, value in vars(inputs).items()]
        swept = ["--lr", *map(str, task.learning_rates), "--seed", *map(str, task.seeds)]
        return [str(PEERS / name), *given, f"--output={output}", *swept]

    return arguments


PEERS_BY_NAME = {
    "hydra_basic": Peer(environment="hydra", arguments=_hydra()),
    "hydra_joblib": Peer(
        environment="joblib",
        arguments=_hydra("hydra/launcher=joblib", f"hydra.launcher.n_jobs={os.cpu_count()}"),
    ),
    "ray_tune": Peer(environment="ray", arguments=_script("ray_train.py")),
    "hf_trainer": Peer(environment="trainer", arguments=_script("trainer_loop.py")),
}


def results_below(output: Path) -> list[dict[str, float]]:
    """Return what the peer's runs left behind: `test/accuracy` and `steps` of each."""
    return [json.loads(file.read_text()) for file in sorted(output.rglob("*metrics.json"))]


def make_mlflow_database(output: Path) -> None:
    """Make the peer's MLflow database beforehand: two processes that do so at once crash each other."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    output.mkdir(parents=True, exist_ok=True)
    SqlAlchemyStore(f"sqlite:///{output}/mlflow.db", (output / "mlartifacts").as_uri()).get_experiment("0")
