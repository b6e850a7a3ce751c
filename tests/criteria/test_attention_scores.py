"""Scores of a model are those of which its own attention is the softmax; padding does not count."""

import pytest
import torch
from tiny import bert
from torch.testing import assert_close

from lightning_distill.criteria import attention_scores, AttentionScores


def test_the_softmax_of_the_scores_is_the_attention_of_the_model():
    model = bert(2, 16).eval()
    model.set_attn_implementation("eager")
    seen = {}
    own = model.bert.encoder.layer[1].attention.self
    for name in ("query", "key"):
        getattr(own, name).register_forward_hook(lambda m, i, out, n=name: seen.update({n: out}))
    ids = torch.randint(5, 40, (3, 7))
    attention = model(input_ids=ids, output_attentions=True).attentions[1]
    heads = model.config.num_attention_heads
    assert_close(attention_scores(seen["query"], seen["key"], heads).softmax(-1), attention)


def test_padding_does_not_count_whatever_it_is():
    generator = torch.Generator().manual_seed(0)
    four = [torch.randn(2, 5, 8, generator=generator, dtype=torch.float64) for _ in range(4)]
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    loss = AttentionScores(2)(*four, mask)
    short = AttentionScores(2)(*(x[:1, :3] for x in four))
    whole = AttentionScores(2)(*(x[1:] for x in four))
    assert_close(loss, (9 * short + 25 * whole) / 34)
    for x in four:
        x[0, 3:] = float("nan")
    assert_close(AttentionScores(2)(*four, mask), loss)


def test_widths_may_differ_and_heads_must_divide_them():
    wide, narrow = torch.randn(2, 3, 12), torch.randn(2, 3, 8)
    assert AttentionScores(4)(narrow, wide, narrow, wide).isfinite()
    with pytest.raises(ValueError, match="width 8 of queries is no multiple of heads=3"):
        AttentionScores(3)(narrow, wide, narrow, wide)
    with pytest.raises(ValueError, match="`heads` must be positive, got 0"):
        AttentionScores(0)
