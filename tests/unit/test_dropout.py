from __future__ import annotations

import pytest
import torch
from torch import nn

from bertpar.dropout import FastDropout, use_fast_dropout


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


def test_every_dropout_of_a_model_is_replaced() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(0.2), nn.Linear(2, 2)), nn.Dropout(0.0))
    keys = model.state_dict().keys()
    use_fast_dropout(model)
    assert [type(m) for m in model.modules() if isinstance(m, nn.Dropout)] == [FastDropout, FastDropout]
    assert model.state_dict().keys() == keys
