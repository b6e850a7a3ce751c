"""Floating-point operations beside those of a formula on paper."""

import pytest
import torch
from students.families import batch_for, FAMILIES
from tiny import bert, text_batches
from torch import nn

from lightning_distill.models.inputs import call_model
from lightning_distill.models.operations import counting_operations

ROWS, TOKENS, WIDTH, LAYERS = 4, 7, 8, 2


def products(rows: int, inputs: int, outputs: int) -> int:
    """Of a matrix product: a multiplication and an addition for each pair."""
    return 2 * rows * inputs * outputs


def of_bert() -> tuple[int, int]:
    """Of the linear layers, and of the attention between tokens."""
    each = ROWS * TOKENS
    # Query, key, value and output; and the two layers that are twice as wide within.
    linear = 4 * products(each, WIDTH, WIDTH) + 2 * products(each, WIDTH, 2 * WIDTH)
    # Scores, and sums of values; all heads together are as wide as a token.
    attention = 2 * ROWS * products(TOKENS, WIDTH, TOKENS)
    head = products(ROWS, WIDTH, WIDTH) + products(ROWS, WIDTH, 3)
    return LAYERS * linear + head, LAYERS * attention


def counted(model: nn.Module, gradient: bool = False, inference: bool = False) -> int:
    batch = text_batches(1, ROWS, TOKENS)[0]
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    if inference:
        with torch.inference_mode(), counting_operations() as counter:
            model(**inputs)
        return counter.get_total_flops()
    with torch.set_grad_enabled(gradient), counting_operations() as counter:
        logits = model(**inputs).logits
        if gradient:
            logits.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_those_of_bert_are_those_of_the_formula(attention):
    model = bert(LAYERS, WIDTH, attn_implementation=attention).eval()
    assert model.config._attn_implementation == attention
    assert counted(model) == sum(of_bert())
    assert counted(model, inference=True) == sum(of_bert())


def test_a_step_has_three_times_as_many_and_the_scores_once_more():
    """Each product has two gradients; attention in one operation makes its scores again."""
    linear, attention = of_bert()
    eager = bert(LAYERS, WIDTH, attn_implementation="eager").eval()
    fused = bert(LAYERS, WIDTH, attn_implementation="sdpa").eval()
    assert counted(eager, gradient=True) == 3 * (linear + attention)
    assert counted(fused, gradient=True) == 3 * (linear + attention) + attention // 2


class Sliced(nn.Module):
    """Gives a layer a slice of a weight, as DeBERTa does with its distances."""

    def __init__(self):
        super().__init__()
        self.places, self.layer = nn.Parameter(torch.zeros(6, 4)), nn.Linear(4, 5)

    def forward(self) -> torch.Tensor:
        return self.layer(self.places[:3].unsqueeze(0))


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_a_slice_of_a_weight_is_counted_like_any_input(mode, trained):
    model = Sliced().requires_grad_(trained)
    with mode(), counting_operations() as counter:
        model()
    assert counter.get_total_flops() == products(3, 4, 5)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_is_counted_whether_it_is_trained_or_not(family):
    model, batch = family.build(), batch_for(family, 0)
    counts = []
    for trained in (False, True):
        model.requires_grad_(trained)
        with torch.no_grad(), counting_operations() as counter:
            call_model(model, batch, {})
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_a_convolution():
    with torch.no_grad(), counting_operations() as counter:
        nn.Conv2d(3, 5, 3, padding=1)(torch.zeros(2, 3, 8, 8))
    assert counter.get_total_flops() == 2 * 2 * 8 * 8 * 5 * 3 * 3 * 3
