"""The limit: bertpar's own model, batches and step in a bare PyTorch loop, with nothing around it.

No Lightning loop, no checkpoints, no metrics, no orchestration. `python bare.py JOB RESULT` trains all runs of a task,
as many at once as there are cores, and writes what that took.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from preparation import Prepared, Task, prepare, specs_of

from bertpar.data.reading import SplitData, fetch_tokenizer, open_split
from bertpar.evaluation.inference import predict_logits
from bertpar.layout import Layout, layout_for
from bertpar.models import load_tokenizer
from bertpar.paths import Home
from bertpar.spec import SPLITS, RunSpec
from bertpar.torch_setup import compute_precision, set_up_torch
from bertpar.training.batches import EvaluationBatches, PlannedSteps
from bertpar.training.module import Classifier
from bertpar.training.plan import plan_batches, validation_steps
from bertpar.training.run import load_model

T = TypeVar("T")


class BareOptimizer(pl.core.optimizer.LightningOptimizer):
    """An optimizer that steps without a Trainer."""

    def step(self, closure: Any = None, **kwargs: Any) -> Any:
        return self.optimizer.step()


class BareClassifier(Classifier):
    """bertpar's module, whose training step runs without a Trainer."""

    def optimizers(self, use_pl_optimizer: bool = True) -> Any:
        return self._bare_optimizer

    def manual_backward(self, loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        loss.backward()

    def be_ready(self) -> None:
        """Make the optimizer."""
        self._bare_optimizer = BareOptimizer(self.configure_optimizers())
        self.train()


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a training of bertpar is made of, at its beginning."""

    module: Classifier
    legs: list[int]
    """The steps after which it validates."""
    layout: Layout
    steps: PlannedSteps
    validation: EvaluationBatches
    test: SplitData


def parts_of(prepared: Prepared, spec: RunSpec, module_class: type[Classifier] = Classifier) -> Parts:
    """Return the parts of the run's training, as a training process puts them together."""
    store, snapshot, trainer = prepared.store, prepared.snapshot, spec.trainer
    set_up_torch(trainer.num_threads)
    train, validation, test = (open_split(store, snapshot, name) for name in SPLITS)
    plan = plan_batches(len(train), spec.seed, trainer)
    legs = validation_steps(plan, trainer)
    model = load_model(spec, snapshot)
    tokenizer = load_tokenizer(fetch_tokenizer(store, snapshot))
    layout = layout_for(model, trainer.padding, tokenizer, spec.data)
    return Parts(
        module=module_class(model, spec, plan.total_steps),
        legs=legs,
        layout=layout,
        steps=PlannedSteps(train, plan, legs, 0, layout),
        validation=EvaluationBatches(validation, trainer.eval_batch_size, layout),
        test=test,
    )


class BareTraining:
    """One run on the CPU, from its first step on."""

    def __init__(self, prepared: Prepared, spec: RunSpec) -> None:
        self._parts = parts_of(prepared, spec, BareClassifier)
        self._trainer = spec.trainer
        self.legs = self._parts.legs
        self.module = self._parts.module
        self.module.be_ready()

    def steps(self) -> Iterator[int]:
        """Do the steps until the next validation, and yield the number of each."""
        self.module.train()
        for index, batch in enumerate(self._parts.steps):
            self.module.training_step(batch, index)
            yield self.module.step

    def validate(self) -> float:
        """Return the accuracy on the validation split."""
        self.module.eval()
        self.module.on_validation_epoch_start()
        with torch.inference_mode():
            for index, batch in enumerate(self._parts.validation):
                self.module.validation_step(batch, index)
        return self.module.validation_metrics()["val/accuracy"]

    def test(self) -> float:
        """Return the accuracy on the test split."""
        test, layout = self._parts.test, self._parts.layout
        logits_NC = predict_logits(
            self.module.model,
            test,
            batch_size=self._trainer.eval_batch_size,
            layout=layout,
            precision=compute_precision(self._trainer.eval_precision),
        )
        labels_N = [test.example(i)["label"] for i in range(len(test))]
        return float((logits_NC.argmax(axis=1) == labels_N).mean())


def train_barely(prepared: Prepared, spec: RunSpec) -> dict[str, float]:
    """Do all steps and validations of a run; return `steps`, and the best validated weights' `test/accuracy`."""
    training = BareTraining(prepared, spec)
    weights = training.module.model.state_dict()
    best, best_weights = -1.0, weights
    for _ in training.legs:
        for _ in training.steps():
            pass
        if (accuracy := training.validate()) > best:
            best, best_weights = accuracy, {name: tensor.clone() for name, tensor in weights.items()}
    training.module.model.load_state_dict(best_weights)
    return {"steps": training.module.step, "test/accuracy": training.test()}


def in_forks(function: Callable[..., T], arguments: Sequence[tuple[Any, ...]], num_processes: int) -> list[T]:
    """Return `function(*a)` for each of the arguments, from forks of this process, so that no import is paid again."""
    torch.set_num_threads(1)  # with more, threads of a forked child can hang
    with multiprocessing.get_context("fork").Pool(num_processes) as pool:
        results = pool.starmap(function, arguments, chunksize=1)
        pool.close()
        pool.join()
    return results


def main() -> None:
    job_file, result_file = map(Path, sys.argv[1:])
    job = json.loads(job_file.read_text(encoding="utf-8"))
    task = Task(**job["task"])
    prepared = prepare(task.overrides, Home(Path(job["home"])))
    work = [(prepared, spec) for spec in specs_of(prepared, task)]
    began = time.perf_counter()
    results = in_forks(train_barely, work, os.cpu_count() or 1)
    wall_seconds = time.perf_counter() - began
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = {"wall_seconds": wall_seconds, "cpu_seconds": usage.ru_utime + usage.ru_stime, "results": results}
    result_file.write_text(json.dumps(said), encoding="utf-8")


if __name__ == "__main__":
    main()
