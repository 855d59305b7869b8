"""`python -m tests.training.two_ranks JOB_FILE FOLDER`: two ranks that write what each has got to FOLDER."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from bertpar.codec import fetch_spec, from_json
from bertpar.data.snapshot import fetch_tokenizer, open_split
from bertpar.events import TrainJob
from bertpar.jobs import die_with
from bertpar.layout import layout_for
from bertpar.models import load_tokenizer
from bertpar.ranks import form_team
from bertpar.store import Store
from bertpar.training.batches import PlannedSteps
from bertpar.training.collective import Alone, Beginning, join
from bertpar.training.module import Classifier
from bertpar.training.plan import plan_batches
from bertpar.training.run import configure_process, load_model, make_trainer

INPUTS = torch.arange(8.0).reshape(4, 2)


def averages(ranks: Alone, sizes: list[int]) -> list[Any]:
    """Return loss and gradients that all ranks have in common, where each has so many of the examples."""
    used, unused = torch.tensor([0.5, -2.0], requires_grad=True), torch.zeros(3, requires_grad=True)
    share = INPUTS.split(sizes)[ranks.share.rank]
    loss = torch.zeros(())
    if len(share):
        loss = ((share @ used) ** 2).mean()
        loss.backward()  # type: ignore[no-untyped-call]
    mean = ranks.average([used, unused], loss.detach(), len(share))
    assert used.grad is not None
    return [mean.item(), used.grad.tolist(), unused.grad]


def losses_without_dropout(job: TrainJob, ranks: Alone) -> list[float]:
    """Return the loss of each step of the job's training."""
    store = Store(job.store_root, Path(job.store_root).parent / "cache")
    spec = fetch_spec(store, job.spec_key)
    configure_process(spec)
    data, tokenizer = open_split(store, job.snapshot, "train"), load_tokenizer(fetch_tokenizer(store, job.snapshot))
    plan = plan_batches(len(data), spec.seed, spec.trainer)
    model = load_model(spec, job.snapshot)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    layout = layout_for(model, spec.trainer.padding, tokenizer, spec.data)
    steps = PlannedSteps(data, plan, (), 0, layout, ranks.share)
    seen = _Losses()
    make_trainer([seen], num_legs=1).fit(Classifier(model, spec, plan.total_steps, 1.0, ranks), steps)
    return seen.losses


class _Losses(pl.Callback):
    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.losses.append(float(outputs["loss"]))


def main(job_file: str, folder: str) -> None:
    job = from_json(TrainJob, Path(job_file).read_bytes())
    team = form_team(2, die_with)

    def work() -> None:
        ranks = join(team)
        begun = ranks.begin(Beginning(step=7, weights={"a": INPUTS}, optimizer=None) if team.rank == 0 else None)
        assert begun.step == 7
        assert torch.equal(begun.weights["a"], INPUTS)
        told = {
            "averages": [averages(ranks, sizes) for sizes in ([3, 1], [4, 0])],
            "together": losses_without_dropout(job, ranks),
        }
        Path(folder, f"{team.rank}.json").write_text(json.dumps(told))
        ranks.begin(None if team.rank else begun)  # both have written
        if team.rank == 0:
            Path(folder, "alone.json").write_text(json.dumps(losses_without_dropout(job, Alone())))

    if team.rank:
        team.be_replica(work)
    work()


if __name__ == "__main__":
    main(*sys.argv[1:])
