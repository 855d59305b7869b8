from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import BertConfig, BertForSequenceClassification, DistilBertConfig
from transformers import DistilBertForSequenceClassification as DistilBert

from bertpar.batching import cheapest_bounds, pack, pad, pad_in_buckets
from bertpar.cpu_modules import use_cpu_modules
from bertpar.evaluation.inference import predict_logits
from bertpar.layout import Layout, logits
from bertpar.packed_bert import can_pack
from bertpar.spec import ComputePrecision, Padding

SHORT = {"input_ids": [2, 7, 3], "token_type_ids": None, "label": 1}
LONG = {"input_ids": [2, 7, 8, 9, 3], "token_type_ids": None, "label": 0}
PAIR = {"input_ids": [2, 7, 3, 8, 3], "token_type_ids": [0, 0, 0, 1, 1], "label": 0}
DYNAMIC = Layout(padding="dynamic", pad_token_id=0, max_length=64)


class Examples:
    """As many random examples as `lengths` says, behind the contract of a split."""

    def __init__(self, lengths: list[int]) -> None:
        rng = np.random.default_rng(0)
        self._ids = [rng.integers(5, 40, size=length).tolist() for length in lengths]
        self.lengths = np.array(lengths)

    def __len__(self) -> int:
        return len(self._ids)

    def example(self, i: int, /) -> Mapping[str, Any]:
        return {"input_ids": self._ids[i], "token_type_ids": None, "label": i % 3}


def tiny_bert(num_labels: int = 3, dropout: float = 0.1) -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        num_labels=num_labels,
        initializer_range=0.5,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return BertForSequenceClassification(config)


def test_a_batch_is_padded_to_its_longest_example_and_masked_there() -> None:
    batch = pad([SHORT, LONG], 39)
    assert batch.input_ids.tolist() == [[2, 7, 3, 39, 39], [2, 7, 8, 9, 3]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch.labels_B is not None
    assert batch.labels_B.tolist() == [1, 0]
    assert pad([SHORT], 39, length=6).input_ids.tolist() == [[2, 7, 3, 39, 39, 39]]


def test_a_pack_has_the_tokens_of_the_longest_example_first_and_fillers_at_its_end() -> None:
    batch = pack([SHORT, LONG], 39)
    assert batch.num_fillers == 24
    assert batch.input_ids_T.tolist() == [2, 7, 8, 9, 3, 2, 7, 3] + [39] * 24
    assert batch.position_ids_T.tolist() == [0, 1, 2, 3, 4, 0, 1, 2] + [0] * 24
    assert batch.starts_B.tolist() == [0, 5]
    assert batch.positions_B.tolist() == [1, 0]
    assert batch.labels_B is not None
    assert batch.labels_B.tolist() == [0, 1]


def test_packs_of_like_size_have_the_same_shapes() -> None:
    """New shapes cost new kernels, and memory that nothing freed before fits."""

    def shapes(lengths: list[int]) -> tuple[int, list[tuple[int, int]]]:
        examples = Examples(lengths)
        packed = pack([examples.example(i) for i in range(len(lengths))], 0)
        return len(packed.input_ids_T), [(group.num_examples, group.length) for group in packed.groups]

    assert shapes([100, 9, 12, 98]) == shapes([97, 16, 11, 99]) == (224, [(2, 112), (2, 16)])
    assert shapes([16, 16]) == (32, [(2, 16)])


def test_pairs_keep_their_token_types_and_single_texts_beside_them_get_zeros() -> None:
    padded, packed = pad([PAIR, SHORT], 0), pack([PAIR, SHORT], 0)
    assert padded.token_type_ids is not None
    assert padded.token_type_ids.tolist() == [[0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]
    assert packed.token_type_ids_T is not None
    assert packed.token_type_ids_T.tolist() == [0, 0, 0, 1, 1, 0, 0, 0] + [0] * 24


def test_buckets_hold_every_example_once_the_longest_first() -> None:
    examples = Examples([5, 60, 7, 58, 61, 6])
    buckets = pad_in_buckets([examples.example(i) for i in range(6)], 0)
    assert [bucket.positions_B.tolist() for bucket in buckets] == [[4, 1, 3], [2, 5, 0]]
    assert [tuple(bucket.input_ids.shape) for bucket in buckets] == [(3, 61), (3, 7)]


def test_cuts_cost_least() -> None:
    costs = np.array([90, 40, 39, 5, 5, 1])

    def cost(bounds: list[int]) -> float:
        return sum((b - a) * costs[a] + 10.0 for a, b in pairwise(bounds))

    inner = [[i for i in range(1, 6) if chosen >> i & 1] for chosen in range(64)]
    assert cost(cheapest_bounds(costs, 10.0)) == min(cost([0, *cuts, 6]) for cuts in inner)


def test_labels_are_class_ids_or_numbers() -> None:
    for batch, dtype in ((pad([SHORT], 0), torch.int64), (pack([SHORT | {"label": 2.5}], 0), torch.float32)):
        assert batch.labels_B is not None
        assert batch.labels_B.dtype == dtype


def test_examples_without_labels_make_a_batch_without_labels() -> None:
    unlabelled = {"input_ids": [2, 3], "token_type_ids": None}
    assert pad([unlabelled], 0).labels_B is None
    assert pack([unlabelled], 0).labels_B is None


def test_a_model_that_knows_no_token_types_takes_single_texts_and_cannot_be_packed() -> None:
    model = DistilBert(DistilBertConfig(vocab_size=40, dim=32, n_layers=1, n_heads=2, hidden_dim=32))
    assert logits(model, pad([SHORT, LONG], 0), "fp32").shape == (2, 2)
    assert not can_pack(model)


@pytest.mark.parametrize("padding", ["packed", "bucket"])
def test_without_padding_outputs_and_gradients_are_those_of_the_padded_computation(
    padding: Padding,
) -> None:
    use_cpu_modules(model := tiny_bert(dropout=0.0).double().train())
    examples = Examples([9, 3, 30, 7, 15, 4, 22, 9, 30, 2])
    given = [examples.example(i) for i in range(len(examples))]

    def gradients(layout: Layout) -> tuple[torch.Tensor, list[torch.Tensor]]:
        outputs = torch.empty(len(given), 3, dtype=torch.float64)
        model.zero_grad()
        for batch in layout.batches(given):
            assert batch.labels_B is not None
            found = logits(model, batch, "fp32")
            outputs[batch.positions_B] = found.detach()
            functional.cross_entropy(found, batch.labels_B, reduction="sum").backward()  # type: ignore[no-untyped-call]
        return outputs, [p.grad.clone() for p in model.parameters() if p.grad is not None]

    expected, expected_gradients = gradients(DYNAMIC)
    found, found_gradients = gradients(Layout(padding=padding, pad_token_id=0, max_length=64))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert len(found_gradients) == len(list(model.parameters()))
    for one, other in zip(found_gradients, expected_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_a_pack_of_pairs_gives_the_outputs_of_the_padded_computation() -> None:
    model = tiny_bert().eval()
    packed = pack([SHORT, PAIR, LONG], 0)
    with torch.no_grad():
        torch.testing.assert_close(
            logits(model, packed, "fp32"),
            logits(model, pad([SHORT, PAIR, LONG], 0), "fp32")[packed.positions_B],
            rtol=1e-4,
            atol=1e-5,
        )


def test_outputs_come_in_the_examples_order_whatever_their_lengths() -> None:
    model, examples = tiny_bert(), Examples([3, 30, 7, 15, 4, 22, 9])
    with torch.no_grad():
        model.eval()
        alone = [
            model(input_ids=torch.tensor([examples.example(i)["input_ids"]])).logits[0].numpy()
            for i in range(len(examples))
        ]
    for padding in ("packed", "bucket", "dynamic", "max"):
        layout = Layout(padding=padding, pad_token_id=0, max_length=64)
        together = predict_logits(model, examples, batch_size=3, layout=layout, precision="fp32")
        assert together.dtype == np.float32
        assert np.ptp(together[:, 0]) > 0.01  # the examples differ, so that a wrong order would show
        np.testing.assert_allclose(together, np.stack(alone), atol=1e-4)


def test_bf16_outputs_are_float32_and_only_nearly_those_of_fp32() -> None:
    model, examples = tiny_bert(), Examples([3, 30, 7, 15, 4, 22, 9])
    fp32, bf16 = (
        predict_logits(model, examples, batch_size=3, layout=DYNAMIC, precision=precision)
        for precision in get_args(ComputePrecision)
    )
    assert bf16.dtype == np.float32
    assert np.abs(bf16 - fp32).max() > 0
    assert np.corrcoef(bf16.ravel(), fp32.ravel())[0, 1] > 0.99


def test_dropout_is_off_and_progress_counts_examples() -> None:
    model, examples, seen = tiny_bert(1).train(), Examples([5, 6, 7, 8, 9]), []
    options: dict[str, Any] = {"batch_size": 2, "layout": DYNAMIC, "precision": "fp32"}
    first = predict_logits(model, examples, **options, on_progress=lambda *done: seen.append(done))
    assert seen == [(2, 5), (4, 5), (5, 5)]
    assert np.array_equal(first, predict_logits(model, examples, **options))
    assert first.shape == (5, 1)
