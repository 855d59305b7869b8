from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification, DistilBertConfig
from transformers import DistilBertForSequenceClassification as DistilBert

from bertpar.batching import collate
from bertpar.evaluation.inference import predict_logits

SHORT = {"input_ids": [2, 7, 3], "token_type_ids": None, "label": 1}
LONG = {"input_ids": [2, 7, 8, 9, 3], "token_type_ids": None, "label": 0}
PAIR = {"input_ids": [2, 7, 3, 8, 3], "token_type_ids": [0, 0, 0, 1, 1], "label": 0}


class Examples:
    """As many random examples as `lengths` says, behind the contract of a split."""

    def __init__(self, lengths: list[int]) -> None:
        rng = np.random.default_rng(0)
        self._ids = [rng.integers(5, 40, size=length).tolist() for length in lengths]
        self.lengths = np.array(lengths)

    def __len__(self) -> int:
        return len(self._ids)

    def example(self, i: int, /) -> Mapping[str, Any]:
        return {"input_ids": self._ids[i], "token_type_ids": None, "label": 0}


def tiny_bert(num_labels: int = 3) -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        num_labels=num_labels,
        initializer_range=0.5,
    )
    return BertForSequenceClassification(config)


def test_a_batch_is_padded_to_its_longest_example_and_masked_there() -> None:
    batch = collate([SHORT, LONG], 39, "classification")
    assert batch["input_ids"].tolist() == [[2, 7, 3, 39, 39], [2, 7, 8, 9, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["labels"].tolist() == [1, 0]


def test_pairs_keep_their_token_types_and_single_texts_beside_them_get_zeros() -> None:
    batch = collate([PAIR, SHORT], 0, "classification")
    assert batch["token_type_ids"].tolist() == [[0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]


def test_labels_are_class_ids_or_numbers() -> None:
    assert collate([SHORT], 0, "classification")["labels"].dtype == torch.int64
    assert collate([SHORT | {"label": 2.5}], 0, "regression")["labels"].tolist() == [2.5]
    assert collate([SHORT], 0, "regression")["labels"].dtype == torch.float32


def test_examples_without_labels_make_a_batch_without_labels() -> None:
    assert "labels" not in collate([{"input_ids": [2, 3], "token_type_ids": None}], 0, "classification")


def test_a_model_that_knows_no_token_types_takes_single_texts() -> None:
    config = DistilBertConfig(vocab_size=40, dim=32, n_layers=1, n_heads=2, hidden_dim=32)
    assert DistilBert(config)(**collate([SHORT, LONG], 0, "classification")).logits.shape == (2, 2)


def test_missing_token_types_mean_the_same_to_bert_as_zeros() -> None:
    model, batch = tiny_bert().eval(), collate([SHORT, LONG], 0, "classification")
    zeros = torch.zeros_like(batch["input_ids"])
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, model(**batch, token_type_ids=zeros).logits)


def test_outputs_come_in_the_examples_order_whatever_their_lengths() -> None:
    model, examples = tiny_bert(), Examples([3, 30, 7, 15, 4, 22, 9])
    together = predict_logits(model, examples, batch_size=3, pad_token_id=0, task="classification")
    with torch.no_grad():
        alone = [
            model(input_ids=torch.tensor([examples.example(i)["input_ids"]])).logits[0].numpy()
            for i in range(len(examples))
        ]
    assert together.dtype == np.float32
    assert np.ptp(together[:, 0]) > 0.01  # the examples differ, so that a wrong order would show
    np.testing.assert_allclose(together, np.stack(alone), atol=1e-5)


def test_dropout_is_off_and_progress_counts_examples() -> None:
    model, examples, seen = tiny_bert(1).train(), Examples([5, 6, 7, 8, 9]), []
    options = {"batch_size": 2, "pad_token_id": 0, "task": "regression"}
    first = predict_logits(model, examples, **options, on_progress=lambda *done: seen.append(done))  # type: ignore[arg-type]
    assert seen == [(2, 5), (4, 5), (5, 5)]
    assert np.array_equal(first, predict_logits(model, examples, **options))  # type: ignore[arg-type]
    assert first.shape == (5, 1)


def test_bf16_is_near_fp32_but_not_the_same() -> None:
    model, examples = tiny_bert(), Examples([5, 6, 7, 8])
    fp32 = predict_logits(model, examples, batch_size=4, pad_token_id=0, task="classification")
    bf16 = predict_logits(model, examples, batch_size=4, pad_token_id=0, task="classification", precision="bf16")
    assert not np.array_equal(fp32, bf16)
    np.testing.assert_allclose(fp32, bf16, atol=0.5)
