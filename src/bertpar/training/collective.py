"""What the ranks of a training exchange: what to begin with, and every step's gradients."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from bertpar.ranks import LOOPBACK, Team
from bertpar.training.plan import WHOLE, Share

_FOR_EVER = timedelta(days=365)
"""Rank 0 validates, and waits for a full store, for as long as that takes; an end of a rank is noticed otherwise."""


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """What all ranks begin with."""

    step: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Any] | None
    """The optimizer's state; None for a new one."""


class Alone:
    """A training in a single process, which has nobody to exchange anything with."""

    share = WHOLE

    def begin(self, beginning: Beginning | None) -> Beginning:
        """Return what rank 0 begins with, which alone has to say it."""
        assert beginning is not None
        return beginning

    def average(self, parameters: Sequence[Tensor], loss: Tensor, num_examples: int) -> Tensor:
        """Give all ranks the same gradients and loss: the mean over all examples of their shares of a step.

        Each comes with the mean over its own `num_examples`, which may be 0.
        """
        return loss


class Together(Alone):
    """A training over several devices: over gloo on CPUs, over nccl on GPUs."""

    def __init__(self, team: Team) -> None:
        self.share = Share(rank=team.rank, num_ranks=team.size)
        self._team = team
        self._device = torch.device("cuda", team.rank) if torch.cuda.is_available() else torch.device("cpu")
        if sys.platform == "linux":
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all are on this host: nothing listens elsewhere
        is_first = team.listener is not None
        store = dist.TCPStore(  # type: ignore[attr-defined]
            LOOPBACK,
            team.port,
            team.size,
            is_first,
            timeout=_FOR_EVER,
            wait_for_workers=False,
            master_listen_fd=team.listener.detach() if team.listener is not None else None,
        )
        backend = "gloo"
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)
            backend = "nccl"
        dist.init_process_group(backend, store=store, rank=team.rank, world_size=team.size, timeout=_FOR_EVER)

    def begin(self, beginning: Beginning | None) -> Beginning:
        told: list[Beginning | None] = [beginning]
        self._exchange(lambda: dist.broadcast_object_list(told, device=self._device))
        assert told[0] is not None
        return told[0]

    def average(self, parameters: Sequence[Tensor], loss: Tensor, num_examples: int) -> Tensor:
        # one tensor: gradients, whether there are any, loss, examples; a rank without examples has no gradients
        has_gradient = loss.new_tensor([float(p.grad is not None) for p in parameters])
        parts = [p.new_zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in parameters]
        flat = torch.cat([*parts, loss.reshape(1)]) * num_examples
        flat = torch.cat([flat, has_gradient, loss.new_tensor([float(num_examples)])])
        self._exchange(lambda: dist.all_reduce(flat))
        num_ranks_with_gradient = flat[-1 - len(parameters) : -1].tolist()
        means = flat[: -1 - len(parameters)] / flat[-1]
        gradients = torch.split(means[:-1], [p.numel() for p in parameters])
        for parameter, gradient, has_some in zip(parameters, gradients, num_ranks_with_gradient, strict=True):
            parameter.grad = gradient.view_as(parameter) if has_some else None
        return means[-1].clone()

    def _exchange(self, exchange: Any) -> None:
        try:
            exchange()
        except RuntimeError:
            self._team.wait_for_news()
            raise


def join(team: Team) -> Alone:
    """Return this process's way to the other ranks of its training, once they are all there."""
    return Alone() if team.size == 1 else Together(team)
