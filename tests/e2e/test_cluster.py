"""A cluster of the user's own: a bare Temporal server, workers by hand, and nothing started behind their back."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.e2e.conftest import BIN, User, until


class Cluster:
    """A Temporal server, a shared folder and a shared MLflow database; workers are started by the test."""

    def __init__(self, folder: Path, start: Callable[..., None], user: User) -> None:
        self.user = user
        self._start = start
        port, ui_port = free_port(), free_port()
        self.address = f"127.0.0.1:{port}"
        start(str(BIN / "temporal"), "server", "start-dev", "--port", str(port), "--ui-port", str(ui_port))
        until(lambda: answers(port), 20)
        self._shared = (
            f"temporal.address={self.address}",
            f"store.root={folder / 'store'}",
            f"tracking.uri=sqlite:///{folder / 'mlflow.db'}",
        )

    def work(self, kind: str, *options: str) -> None:
        """Start a worker as on a machine of its own."""
        self._start(str(BIN / "bertpar"), "worker", kind, "--address", self.address, *options)

    def train(self, *overrides: str) -> None:
        self.user.train(*self._shared, "experiment=smoke", *overrides)

    def newest_status(self) -> dict[str, object]:
        sweep = self.user.json("ls", "--address", self.address)[0]["sweep_id"]
        return dict(self.user.json("status", sweep, "--address", self.address))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    user = User(folder / "home")
    with ExitStack() as processes:

        def start(*command: str) -> None:
            log = processes.enter_context((folder / "log").open("ab"))
            process = subprocess.Popen(command, env=user.environment, cwd=folder, stdout=log, stderr=log)
            processes.callback(process.wait, 30)
            processes.callback(process.terminate)

        yield Cluster(folder, start, user)


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_sweep_runs_on_the_users_own_workers_and_queues(cluster: Cluster) -> None:
    cluster.work("eval", "--queue", "my-eval")
    cluster.work("training", "--queue", "my-gpus", "--slots", "1")
    cluster.train("lr=1e-3,3e-3", "temporal.training_queue=my-gpus", "temporal.eval_queue=my-eval")
    status = cluster.newest_status()
    assert status["status"] == "completed"
    assert not (cluster.user.home / "stack.json").exists()
    assert not (cluster.user.home / "temporal.db").exists()
    listed = cluster.user.run(
        str(BIN / "temporal"), "workflow", "list", "--address", cluster.address, "--query", "TaskQueue='my-eval'"
    )
    assert listed.stdout.count("Completed") == 5
