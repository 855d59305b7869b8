"""One run of a sweep, for Python's users: looked at, steered, predicted with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertpar import steer
from bertpar.api.cluster import Cluster, as_folder, say
from bertpar.catalogue import read_uses, read_whole_catalogue
from bertpar.errors import ConfigError, DataError
from bertpar.events import CheckpointRef
from bertpar.forking import fork
from bertpar.observe import find_run, observe
from bertpar.predictions import predict
from bertpar.states import Priority, RunRef
from bertpar.store import Store
from bertpar.workflows.records import run_name

if TYPE_CHECKING:
    from temporalio.client import Client


class Run:
    """One configuration of a sweep: trained, evaluated, and there to predict with. Made by `sweep.runs`."""

    def __init__(self, cluster: Cluster, ref: RunRef) -> None:
        self._cluster = cluster
        self._ref = ref

    def __repr__(self) -> str:
        return f"<bertpar.Run {self.run_id}: {self.name}>"

    @property
    def run_id(self) -> str:
        """`SWEEP/INDEX`, as the command line takes it."""
        return self._ref.run_id

    @property
    def index(self) -> int:
        """Its number within the sweep."""
        return self._ref.index

    @property
    def name(self) -> str:
        """What tells it from its siblings: `lr=0.001,seed=2`."""
        return run_name(self._ref.swept, self._ref.index)

    @property
    def swept(self) -> Mapping[str, str]:
        """The values that were chosen for this run, by key."""
        return dict(self._ref.swept)

    @property
    def overrides(self) -> tuple[str, ...]:
        """Everything that was given for it: `train.py` with these overrides trains the same again."""
        return self._ref.overrides

    def status(self) -> str:
        """Return what it does now: `queued`, `waiting` (for a slot), `training`, ..., `completed`, `failed`."""
        sweep_id = self.run_id.rpartition("/")[0]
        view = self._cluster.ask(lambda client: observe(client, sweep_id))
        return next(run.status for run in view.runs if run.state.run.index == self.index)

    def metrics(self) -> dict[str, float]:
        """Return `val/...` of the best checkpoint and `test/...`; nothing before the training has ended."""
        _, state = self._cluster.ask(lambda client: find_run(client, self.run_id))
        return dict(state.metrics)

    def checkpoints(self) -> list[CheckpointRef]:
        """Return its checkpoints, by step: each with `step`, `metrics`, `num_bytes`, `digest`, `key` in the store."""
        sweep, _ = self._cluster.ask(lambda client: find_run(client, self.run_id))
        store = Store(sweep.options.store_root, self._cluster.home.cache)
        return [entry.checkpoint for entry in read_whole_catalogue(store, self.run_id, read_uses(store)).entries]

    def pause(self) -> None:
        """Have it make a checkpoint at its next step and leave its slot.

        Raises (as every command here):
            RefusedError: its state, or that of its sweep, does not allow it; the message names it.
        """
        self._cluster.ask(lambda client: steer.pause(client, self.run_id, say))

    def resume(self) -> None:
        """Let it go on after a pause, from its checkpoint."""
        self._cluster.ask(lambda client: steer.resume(client, self.run_id, say))

    def cancel(self) -> None:
        """Stop it, with a checkpoint; its siblings go on."""
        self._cluster.ask(lambda client: steer.cancel_run(client, self.run_id, say))

    def retry(self) -> None:
        """Queue it again after it has failed or was cancelled; it goes on from its checkpoint."""
        self._cluster.ask(lambda client: steer.retry(client, self.run_id, say))

    def priority(self, priority: Priority, *, preempt: bool = False) -> None:
        """Have it take the next free slot (`high`), or wait its turn (`normal`).

        With `preempt` a slot is freed at once: the least advanced training makes a checkpoint and yields.
        """
        if preempt and priority != "high":
            raise ConfigError("preempt makes room for an urgent run: priority('high', preempt=True)")
        self._cluster.ask(lambda client: steer.prioritize(client, self.run_id, priority, say, preempt=preempt))

    def fork(self, *overrides: str, step: int | None = None, config_dir: str | Path | None = None) -> list[Run]:
        """Begin runs like this one but for `overrides`, with the weights of its best checkpoint or that of `step`.

        They join its sweep while that runs, and are a sweep of their own afterwards.
        """
        cluster, folder = self._cluster, as_folder(config_dir)

        async def begin(client: Client) -> list[RunRef]:
            forks = await fork(client, self.run_id, step, overrides, cluster.home, say, config_dir=folder)
            return [(await find_run(client, run_id))[1].run for run_id in forks.run_ids]

        return [Run(cluster, ref) for ref in cluster.ask(begin)]

    def predict(
        self, texts: Sequence[str], *, text_pairs: Sequence[str] | None = None, step: int | None = None
    ) -> list[dict[str, Any]]:
        """Return for each text a dict with `text`, and `label` and `probabilities`, or `score` for regression.

        By the best checkpoint, or that of `step`. `text_pairs`: the second texts, for models of pairs.

        Raises:
            DataError: a text is empty, or there are more or fewer second texts than first.
            NotFoundError: there is no such checkpoint yet.
        """
        examples = _examples(texts, text_pairs)
        cache = self._cluster.home.cache
        return self._cluster.ask(lambda client: predict(client, self.run_id, examples, cache, step))


def _examples(texts: Sequence[str], text_pairs: Sequence[str] | None) -> list[dict[str, Any]]:
    if isinstance(texts, str):
        raise DataError("predict takes a list of texts, also for one: predict([text])")
    if not texts:
        raise DataError("there is no text to predict: predict([text, ...])")
    if text_pairs is not None and len(text_pairs) != len(texts):
        raise DataError(f"there are {len(texts)} texts, but {len(text_pairs)} text_pairs")
    for name, given in (("texts", texts), ("text_pairs", text_pairs or ())):
        for i, text in enumerate(given):
            if not isinstance(text, str) or not text.strip():
                raise DataError(f"{name}[{i}]={text!r} must be a text that holds something")
    examples: list[dict[str, Any]] = [{"text": text} for text in texts]
    for example, pair in zip(examples, text_pairs or (), strict=False):
        example["text_pair"] = pair
    return examples
