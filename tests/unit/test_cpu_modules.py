from __future__ import annotations

import pytest
import torch
from torch import nn

from bertpar.cpu_modules import FastDropout, FastEmbedding, use_cpu_modules


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_a_share_of_p_is_dropped_and_the_rest_is_scaled_so_that_the_mean_stays(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    dropped = FastDropout(p)(torch.ones(999, 1001, dtype=dtype))
    values = dropped.unique()
    assert values.numel() == 2
    assert values[0] == 0
    torch.testing.assert_close(values[1].item(), 1 / (1 - p), rtol=1e-2, atol=0)
    assert (dropped == 0).float().mean().item() == pytest.approx(p, abs=0.002)  # four standard deviations


def test_neighbours_in_a_word_of_random_bits_are_dropped_independently() -> None:
    torch.manual_seed(0)
    is_dropped = (FastDropout(0.5)(torch.ones(4_000_000)) == 0).view(-1, 4).float()
    assert torch.corrcoef(is_dropped.T).sub(torch.eye(4)).abs().max() < 0.005
    assert is_dropped.mean(0).sub(0.5).abs().max() < 0.0025


def test_the_gradient_goes_through_what_is_kept() -> None:
    torch.manual_seed(0)
    x = torch.randn(50, 3, requires_grad=True)
    dropped = FastDropout(0.25)(x)
    dropped.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    torch.testing.assert_close(dropped.detach(), x.detach() * x.grad)
    assert 0 < (x.grad == 0).sum() < x.numel()


def test_the_seed_decides_and_evaluation_drops_nothing() -> None:
    layer, x = FastDropout(0.3), torch.ones(7, 5)
    masks = []
    for _ in range(2):
        torch.manual_seed(3)
        masks.append(layer(x))
    assert torch.equal(*masks)
    assert torch.equal(layer.eval()(x), x)


def table() -> nn.Embedding:
    torch.manual_seed(0)
    return nn.Embedding(9, 4, padding_idx=0)


def test_an_embedding_gets_the_gradients_of_torchs_own_in_every_step() -> None:
    ours, torchs = FastEmbedding.like(table()), table()
    steps = [[[1, 2, 2, 0, 8]], [[3, 1], [5, 1, 0]], [[2]]]  # of one micro-batch or two, with padding
    for step in steps:
        ours.weight.grad = torchs.weight.grad = None
        for ids in map(torch.tensor, step):
            upstream = torch.randn(1, len(ids), 4)
            for module in (ours, torchs):
                module(ids[None]).backward(upstream)
        assert ours.weight.grad is not None
        assert torchs.weight.grad is not None
        assert torch.equal(ours.weight.grad, torchs.weight.grad)
        ours.weight.grad.mul_(0.5)  # as clipping does


def test_a_gradient_that_was_exchanged_for_another_leaves_nothing_to_the_next_step() -> None:
    embedding = FastEmbedding.like(table())
    embedding(torch.tensor([1, 2])).sum().backward()
    embedding.weight.grad = torch.ones(9, 4)
    embedding.weight.grad = None
    embedding(torch.tensor([3])).sum().backward()
    assert embedding.weight.grad is not None
    assert embedding.weight.grad.sum(1).tolist() == [0, 0, 0, 4, 0, 0, 0, 0, 0]


def test_rows_without_gradients_are_those_of_torchs_own() -> None:
    embedding, ids = FastEmbedding.like(table()), torch.tensor([[1, 0], [8, 8]])
    with torch.no_grad():
        assert torch.equal(embedding(ids), table()(ids))
    embedding.weight.requires_grad_(False)
    assert not embedding(ids).requires_grad


def test_modules_are_replaced_with_their_weights_but_an_embedding_whose_weight_is_used_elsewhere() -> None:
    tied, output = nn.Embedding(3, 2), nn.Linear(2, 3)
    tied.weight = output.weight
    model = nn.Sequential(
        nn.Embedding(5, 2),
        nn.Sequential(nn.Dropout(0.2), tied),
        output,
        nn.Dropout(0.0),
        nn.Embedding(5, 2, max_norm=1.0),
    )
    model.eval()
    weights = model.state_dict()
    use_cpu_modules(model)
    assert not any(module.training for module in model.modules())
    kinds = [type(module) for module in model.modules() if not isinstance(module, nn.Sequential)]
    assert kinds == [FastEmbedding, FastDropout, nn.Embedding, nn.Linear, FastDropout, nn.Embedding]
    assert [(k, w.data_ptr()) for k, w in model.state_dict().items()] == [(k, w.data_ptr()) for k, w in weights.items()]
