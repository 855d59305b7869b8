"""Modules that do on a CPU what torch's own do, for less. On other devices they are torch's own.

Shapes: V rows of a table, H hidden units, T tokens.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_LEVELS = 1 << 16


class FastDropout(nn.Dropout):
    """Dropout that draws its mask sixteen bits at a time, from the same generator.

    Which units are dropped is independent for each, as it should be; the share differs from p by less than 1/65536,
    and what is kept is scaled by the share that is really kept.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0.0 or input.device.type != "cpu":
            return super().forward(input)
        num_dropped = round(self.p * _LEVELS)
        if not 0 < num_dropped < _LEVELS:
            return super().forward(input)
        bits = torch.empty(-(-input.numel() // 4), dtype=torch.int64)
        bits.random_(-(1 << 63), None)  # all 64 bits: without bounds the highest is always 0
        drawn = bits.view(torch.int16)[: input.numel()].view(input.shape)
        # compared right into the input's type: by way of booleans it takes as long as drawing
        scale = torch.ge(drawn, num_dropped - _LEVELS // 2, out=torch.empty_like(input))
        return input * scale.mul_(_LEVELS / (_LEVELS - num_dropped))


class FastEmbedding(nn.Embedding):
    """An embedding whose gradient costs what a step's tokens cost, not what the vocabulary does.

    Its values are those of nn.Embedding, which makes a new tensor of the table's size for every step (47 MB for
    MiniLM) and fills it with zeros. Here one tensor serves all steps, and only the rows of the step before are emptied,
    at the first backward pass after `weight.grad` was set to None. Nothing else may add to it.
    """

    _gradient: Tensor | None = None
    """[V, H]: zeros, but for the rows `_filled`."""
    _filled: tuple[Tensor, ...] = ()

    @classmethod
    def like(cls, module: nn.Embedding) -> FastEmbedding:
        """Return one with the same weight."""
        with torch.device("meta"):
            embedding = cls(module.num_embeddings, module.embedding_dim, module.padding_idx)
        embedding.weight = module.weight
        return embedding.train(module.training)

    def forward(self, input: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and self.weight.requires_grad) or input.device.type != "cpu":
            return super().forward(input)
        rows: Tensor = _Rows.apply(self.weight, input, self)  # type: ignore[no-untyped-call]
        return rows

    def add_gradient(self, ids_T: Tensor, gradient_TH: Tensor) -> None:
        """Add the gradients of rows, in the order given."""
        if self._gradient is None:
            self._gradient = torch.zeros_like(self.weight)
        if self.weight.grad is None:
            for ids in self._filled:
                self._gradient[ids] = 0
            self._filled = ()
            self.weight.grad = self._gradient
        if self.padding_idx is not None:
            is_trained = ids_T != self.padding_idx
            ids_T, gradient_TH = ids_T[is_trained], gradient_TH[is_trained]
        self.weight.grad.index_add_(0, ids_T, gradient_TH)
        self._filled += (ids_T,)


class _Rows(torch.autograd.Function):
    """The rows of a FastEmbedding, which gets their gradient directly: autograd hears of none for the weight."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, module: FastEmbedding) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.module = module
        return functional.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        (ids,), (gradient,) = ctx.saved_tensors, gradients
        ctx.module.add_gradient(ids.flatten(), gradient.flatten(0, -2))
        return None, None, None


def use_cpu_modules(model: nn.Module) -> None:
    """Put these modules in the place of torch's, weights kept; an embedding whose weight is used elsewhere stays."""
    num_uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, FastDropout(child.p).train(child.training))
            elif type(child) is nn.Embedding and _is_plain(child) and num_uses[id(child.weight)] == 1:
                setattr(module, name, FastEmbedding.like(child))


def _is_plain(embedding: nn.Embedding) -> bool:
    return embedding.max_norm is None and not embedding.scale_grad_by_freq and not embedding.sparse
