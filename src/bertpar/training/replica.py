"""What the other ranks of a training over several devices do: a replica's share of every step that rank 0 does too."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from bertpar.codec import fetch_spec
from bertpar.data.snapshot import fetch_tokenizer, open_split
from bertpar.events import TrainJob
from bertpar.layout import layout_for
from bertpar.models import load_tokenizer
from bertpar.ranks import current_team
from bertpar.store import Store
from bertpar.training.batches import PlannedSteps
from bertpar.training.collective import join
from bertpar.training.explaining import explaining_failures
from bertpar.training.module import Classifier
from bertpar.training.plan import plan_batches
from bertpar.training.run import configure_process, load_model, make_trainer


def train_replica(job: TrainJob, store: Store) -> None:
    """Begin with what rank 0 begins with, and take part in all steps up to the last one.

    Should rank 0 end before that one, this process ends with it.
    """
    spec = fetch_spec(store, job.spec_key)
    configure_process(spec)
    ranks = join(current_team())
    data = open_split(store, job.snapshot, "train")
    plan = plan_batches(len(data), spec.seed, spec.trainer, job.batch_divisor)
    model = load_model(spec, job.snapshot)
    tokenizer = load_tokenizer(fetch_tokenizer(store, job.snapshot))
    layout = layout_for(model, spec.trainer.padding, tokenizer, spec.data)
    start = ranks.begin(None)
    model.load_state_dict(start.weights)
    module = Classifier(model, spec, plan.total_steps, job.lr_scale, ranks)
    module.step = start.step
    steps = PlannedSteps(data, plan, (), start.step, layout, ranks.share)
    with explaining_failures(module, plan, data):
        make_trainer([_WithOptimizer(start.optimizer)], num_legs=1).fit(module, steps)


class _WithOptimizer(pl.Callback):
    """Gives the optimizer the state that it is to begin with."""

    def __init__(self, state: dict[str, Any] | None) -> None:
        self._state = state

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._state is not None:
            trainer.optimizers[0].load_state_dict(self._state)
