"""BERT over examples that lie one after another, without padding: the layers of transformers' own model, called anew.

Embeddings, linear layers, GELU, dropout and norms see the tokens of all examples as rows [T, H]; attention alone looks
at examples, in a few groups of like length. Of the last layer only the first token of each example is wanted, so
that nothing else is computed there. Outputs and gradients are those of the padded computation, to rounding.

Shapes: T tokens of all examples, B examples, G examples of a group, L tokens of its longest, H hidden units, A heads,
D units of a head, C classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import BertForSequenceClassification, PreTrainedModel

from bertpar.batching import Group, PackedBatch


def can_pack(model: PreTrainedModel) -> bool:
    """Say whether `packed_logits` computes what the model does."""
    return type(model) is BertForSequenceClassification and not model.config.is_decoder


def packed_logits(model: Any, batch: PackedBatch) -> Tensor:
    """Return the model's outputs [B, C], in the batch's order."""
    bert = model.bert
    types = None if batch.token_type_ids_T is None else batch.token_type_ids_T[None]
    embedded = bert.embeddings(
        input_ids=batch.input_ids_T[None], token_type_ids=types, position_ids=batch.position_ids_T[None]
    )
    hidden_TH = embedded[0]
    *layers, last = bert.encoder.layer
    for layer in layers:
        hidden_TH = _all_tokens(layer, hidden_TH, batch)
    first_BH = _first_tokens(last, hidden_TH, batch)
    pooled_BH = bert.pooler(first_BH[:, None])  # takes the first token of each row
    logits_BC: Tensor = model.classifier(model.dropout(pooled_BH))
    return logits_BC


def _all_tokens(layer: Any, hidden_TH: Tensor, batch: PackedBatch) -> Tensor:
    """Return what the layer makes of every token, [T, H]."""
    attention = layer.attention.self
    # one product instead of three; scaled here, not in every score
    weight = torch.cat([attention.query.weight * attention.scaling, attention.key.weight, attention.value.weight])
    bias = torch.cat([attention.query.bias * attention.scaling, attention.key.bias, attention.value.bias])
    projected = functional.linear(hidden_TH, weight, bias)
    contexts = []
    for group, tokens in zip(batch.groups, _by_group(projected, batch), strict=True):
        padded = _padded(tokens, group)
        query, key, value = padded.view(*padded.shape[:2], 3, -1, attention.attention_head_size).permute(2, 0, 3, 1, 4)
        context = _attend(attention, query, key, value, group)
        contexts.append(context if group.slots is None else context.index_select(0, group.slots))
    contexts.append(contexts[0].new_zeros(batch.num_fillers, attention.all_head_size))
    attended = layer.attention.output(torch.cat(contexts), hidden_TH)
    output: Tensor = layer.feed_forward_chunk(attended)
    return output


def _first_tokens(layer: Any, hidden_TH: Tensor, batch: PackedBatch) -> Tensor:
    """Return what the layer makes of each example's first token, [B, H]."""
    attention = layer.attention.self
    first_BH = hidden_TH[batch.starts_B]
    queries_BH = attention.query(first_BH) * attention.scaling
    weight = torch.cat([attention.key.weight, attention.value.weight])
    bias = torch.cat([attention.key.bias, attention.value.bias])
    projected = functional.linear(hidden_TH, weight, bias)
    contexts, num_done = [], 0
    for group, tokens in zip(batch.groups, _by_group(projected, batch), strict=True):
        padded = _padded(tokens, group)
        key, value = padded.view(*padded.shape[:2], 2, -1, attention.attention_head_size).permute(2, 0, 3, 1, 4)
        rows = queries_BH[num_done : num_done + group.num_examples]
        query = rows.view(group.num_examples, -1, 1, attention.attention_head_size)
        contexts.append(_attend(attention, query, key, value, group))
        num_done += group.num_examples
    attended = layer.attention.output(torch.cat(contexts), first_BH)
    output: Tensor = layer.feed_forward_chunk(attended)
    return output


def _by_group(projected: Tensor, batch: PackedBatch) -> list[Tensor]:
    """Return the tokens of each group; in one split, so that their gradients are put together at once."""
    *groups, _ = torch.split(projected, [*(group.num_tokens for group in batch.groups), batch.num_fillers])
    return groups


def _padded(tokens: Tensor, group: Group) -> Tensor:
    """Return the group's tokens as [G, L, ...], zeros for padding."""
    if group.slots is not None:
        empty = tokens.new_zeros(group.num_examples * group.length, tokens.shape[1])
        tokens = empty.index_copy(0, group.slots, tokens)
    return tokens.view(group.num_examples, group.length, -1)


def _attend(attention: Any, query: Tensor, key: Tensor, value: Tensor, group: Group) -> Tensor:
    """Return the context of `query` [G, A, tokens, D], as rows [G * tokens, H]."""
    if query.device.type == "cpu":
        # faster at these lengths than the fused kernel, which is written for long ones
        scores = query @ key.transpose(-1, -2)
        if group.bias is not None:
            scores = scores + group.bias
        context = attention.dropout(scores.softmax(-1).to(value.dtype)) @ value
    else:
        dropout = attention.dropout.p if attention.training else 0.0
        context = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=group.bias, dropout_p=dropout, scale=1.0
        )
    rows: Tensor = context.transpose(1, 2).reshape(-1, attention.all_head_size)
    return rows
