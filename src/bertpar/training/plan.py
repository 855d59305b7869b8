"""What happens at which optimizer step, as pure functions of the step.

Exact resumption rests on this module: the examples of a step, its learning rate, its random seed, and whether it
is followed by a validation or a checkpoint depend on the specification and the step's number alone, never on how
often the process was killed on the way. Steps are counted by how many are done: step 1 is the first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from bertpar.spec import CheckpointSpec, OptimSpec, TrainerSpec

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Share:
    """What one rank of a training over several devices computes of each step: every `num_ranks`-th example."""

    rank: int = 0
    num_ranks: int = 1


WHOLE = Share()


@dataclass(frozen=True)
class BatchPlan:
    """Which training examples each optimizer step sees: a fresh permutation for each epoch, cut into steps.

    An epoch's last step is smaller where the numbers do not divide; no step straddles two epochs.
    """

    num_examples: int
    seed: int
    batch_size: int
    accumulate: int
    max_epochs: int
    max_steps: int | None
    batch_divisor: int = 1
    """Into how many parts each micro-batch, and each of a validation's batches, is cut; a step's examples stay."""

    @property
    def examples_per_step(self) -> int:
        return self.batch_size * self.accumulate

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.num_examples / self.examples_per_step)

    @property
    def total_steps(self) -> int:
        all_epochs = self.steps_per_epoch * self.max_epochs
        return all_epochs if self.max_steps is None else min(all_epochs, self.max_steps)

    def cut(self, batch_size: int) -> int:
        """Return the size of the parts into which a batch is cut."""
        return math.ceil(batch_size / self.batch_divisor)

    def micro_batch_size(self, num_ranks: int = 1) -> int:
        """Return how many examples one of the ranks computes at once, at most."""
        return self.cut(min(self.batch_size, math.ceil(self.examples_per_step / num_ranks)))

    def permutation(self, epoch: int) -> Indices:
        """Return the order of the examples in `epoch` (counted from 0)."""
        return _permutation(self.num_examples, self.seed, epoch)

    def micro_batches(self, step: int, share: Share = WHOLE) -> list[Indices]:
        """Return a share of the examples of optimizer step `step` (from 1), a list of micro-batches, possibly empty."""
        assert 1 <= step <= self.total_steps
        epoch, position = divmod(step - 1, self.steps_per_epoch)
        start = position * self.examples_per_step
        chosen = self.permutation(epoch)[start : start + self.examples_per_step]
        chosen = chosen[share.rank :: share.num_ranks]
        size = self.micro_batch_size(share.num_ranks)
        return [chosen[i : i + size] for i in range(0, len(chosen), size)]


@lru_cache(maxsize=1)
def _permutation(num_examples: int, seed: int, epoch: int) -> Indices:
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(num_examples)


def plan_batches(num_examples: int, seed: int, trainer: TrainerSpec, batch_divisor: int = 1) -> BatchPlan:
    """Return the plan of a run over `num_examples` training examples."""
    return BatchPlan(
        num_examples=num_examples,
        seed=seed,
        batch_size=trainer.batch_size,
        accumulate=trainer.accumulate,
        max_epochs=trainer.max_epochs,
        max_steps=trainer.max_steps,
        batch_divisor=batch_divisor,
    )


def learning_rate_at(step: int, total_steps: int, optim: OptimSpec) -> float:
    """Return the learning rate of optimizer step `step` (from 1): linear warmup, then the schedule down to 0.

    The first step already learns (1/warmup of the peak), and the last of a decaying schedule is not yet 0.
    """
    num_warmup = math.ceil(optim.warmup_ratio * total_steps)
    if step <= num_warmup:
        return optim.lr * step / num_warmup
    if optim.schedule == "constant":
        return optim.lr
    left = (total_steps - step + 1) / (total_steps - num_warmup + 1)
    if optim.schedule == "linear":
        return optim.lr * left
    return optim.lr * 0.5 * (1.0 - math.cos(math.pi * left))


def seed_at(step: int, seed: int, rank: int = 0) -> int:
    """Return the 63-bit seed of everything random in optimizer step `step` (dropout), another one for each rank."""
    entropy = [seed, step, rank] if rank else [seed, step]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


def validation_steps(plan: BatchPlan, trainer: TrainerSpec) -> list[int]:
    """Return the steps after which validation runs: the ends of epochs, every so many steps, and the last step."""
    ends = set(range(plan.steps_per_epoch, plan.total_steps + 1, plan.steps_per_epoch))
    if trainer.validate_every_n_steps:
        ends |= set(range(trainer.validate_every_n_steps, plan.total_steps + 1, trainer.validate_every_n_steps))
    return sorted(ends | {plan.total_steps})


def is_checkpoint_step(step: int, checkpoint: CheckpointSpec) -> bool:
    """Say whether `step` is one of the regular checkpoints between validations."""
    return checkpoint.every_n_steps is not None and step % checkpoint.every_n_steps == 0
