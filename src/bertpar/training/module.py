"""The Lightning module: one Lightning batch is one optimizer step, made of one or more micro-batches.

Shapes: B batch, N all examples, C classes (1 for regression).
"""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from bertpar.batching import Batch
from bertpar.evaluation.metrics import classification_metrics, regression_metrics
from bertpar.layout import logits
from bertpar.spec import RunSpec
from bertpar.torch_setup import compute_precision
from bertpar.training.collective import Alone
from bertpar.training.plan import learning_rate_at, seed_at


class Classifier(pl.LightningModule):
    """A sequence classifier (or, with one output, a regressor) under AdamW.

    Optimization is manual, so that accumulation lies inside a step: a checkpoint can then never fall into the
    middle of one. `step` counts the optimizer steps done since the run began, over all attempts. Of a training over
    several devices, each of the `ranks` has a module and computes its share of every step.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        spec: RunSpec,
        total_steps: int,
        lr_scale: float = 1.0,
        ranks: Alone | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.spec = spec
        self.total_steps = total_steps
        self._lr_scale = lr_scale
        self._precision = compute_precision(spec.trainer.precision)
        self._ranks = ranks or Alone()
        self.step = 0
        self.is_validating = False
        self._outputs: list[Tensor] = []
        self._labels: list[Tensor] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW, without decay on biases and normalisation weights (parameters of one dimension)."""
        optim = self.spec.optim
        trained = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": optim.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=optim.lr, betas=(optim.beta1, optim.beta2), eps=optim.eps, fused=True)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of optimizer step `step` (from 1)."""
        return self._lr_scale * learning_rate_at(step, self.total_steps, self.spec.optim)

    def training_step(self, micro_batches: list[Batch], batch_idx: int) -> Tensor:
        """Do one optimizer step, and return its mean loss over all examples (float32 scalar).

        On one device nothing here waits for it: that the loss is a number is checked where it is read (callbacks.py).
        """
        step = self.step + 1
        # dropout: a function of the step, not of what came before
        torch.manual_seed(seed_at(step, self.spec.seed, self._ranks.share.rank))
        optimizer = self.optimizers()
        assert isinstance(optimizer, pl.core.optimizer.LightningOptimizer)
        learning_rate = self.learning_rate(step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        num_examples = sum(len(batch.positions_B) for batch in micro_batches)
        total = torch.zeros((), device=self.device)
        for batch in micro_batches:
            # each micro-batch counts by its size: the gradient is that of the mean over the whole step
            loss = self._loss(batch) * (len(batch.positions_B) / num_examples)
            self.manual_backward(loss)
            total += loss.detach()
        total = self._ranks.average([p for p in self.model.parameters() if p.requires_grad], total, num_examples)
        if self.spec.optim.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.spec.optim.clip)
        optimizer.step()
        optimizer.zero_grad()
        self.step = step
        return total

    def on_validation_epoch_start(self) -> None:
        self._outputs, self._labels = [], []
        self.is_validating = True

    def on_validation_epoch_end(self) -> None:
        self.is_validating = False

    def validation_step(self, batches: list[Batch], batch_idx: int) -> None:
        for batch in batches:
            assert batch.labels_B is not None
            self._outputs.append(self._logits(batch))
            self._labels.append(batch.labels_B)

    def validation_metrics(self) -> dict[str, float]:
        """Return the metrics of the validation that just ran, as `val/<name>`."""
        outputs_NC, labels_N = (torch.cat(parts).cpu().numpy() for parts in (self._outputs, self._labels))
        if self.spec.data.task == "classification":
            metrics = classification_metrics(outputs_NC, labels_N)
        else:
            metrics = regression_metrics(outputs_NC[:, 0], labels_N)
        return {f"val/{name}": value for name, value in metrics.items()}

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return [micro_batch.to(device) for micro_batch in batch]

    def _loss(self, batch: Batch) -> Tensor:
        """Return the mean cross-entropy in nats, or the mean squared error, over the batch (float32 scalar)."""
        logits_BC = self._logits(batch)
        assert batch.labels_B is not None
        if self.spec.data.task == "classification":
            return functional.cross_entropy(logits_BC, batch.labels_B)
        return functional.mse_loss(logits_BC[:, 0], batch.labels_B)

    def _logits(self, batch: Batch) -> Tensor:
        return logits(self.model, batch, self._precision)
