"""Each metric alone, against loops in float64."""

import math

import naive
import pytest
import torch
from torch import inf

from lightning_distill.metrics import BitsPerByte, ForwardKL, Perplexity, ReverseKL

SHAPES = [(2, 5), (1, 3), (4, 1)]


def parts(dtype=torch.float32, scale=3.0):
    """Uneven batches, of which the last has no token that counts."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for rows, tokens in [*SHAPES, (2, 2)]:
        student, teacher = scale * torch.randn(2, rows, tokens, 11, generator=generator)
        labels = torch.randint(0, 11, (rows, tokens), generator=generator)
        labels[torch.rand(rows, tokens, generator=generator) < 0.3] = -100
        sizes = torch.randint(0, 6, (rows, tokens), generator=generator)
        found.append((student.to(dtype), teacher.to(dtype), labels, sizes))
    found[-1][2][:] = -100
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_metrics_of_labels_are_those_of_a_plain_loop(dtype):
    perplexity, bits = Perplexity(), BitsPerByte()
    for student, _, labels, sizes in parts(dtype):
        perplexity.update(student, labels)
        bits.update(student, labels, label_bytes=sizes)
    expected = naive.measured(parts(dtype))
    assert float(perplexity.compute()) == pytest.approx(expected["perplexity"], rel=1e-6)
    assert float(bits.compute()) == pytest.approx(expected["bits_per_byte"], rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("metric", [ForwardKL(), ReverseKL()], ids=["forward_kl", "reverse_kl"])
def test_divergences_are_those_of_a_plain_loop(metric, dtype):
    metric.reset()
    for student, teacher, labels, _ in parts(dtype):
        counted = labels != -100
        metric.update(student[counted], teacher[counted])
    name = "forward_kl" if isinstance(metric, ForwardKL) else "reverse_kl"
    expected = naive.measured(parts(dtype))
    assert float(metric.compute()) == pytest.approx(expected[name], rel=1e-6)
    assert expected["forward_kl"] != pytest.approx(expected["reverse_kl"], rel=1e-2)


def test_nothing_is_lost_over_many_tokens():
    """Beside 2**27 one float32 rounds each batch of 5 nats away."""
    metric = Perplexity()
    metric.nats, metric.tokens = torch.tensor(2.0**27), torch.tensor(2**25)
    for _ in range(4000):
        metric.add(torch.full((4,), 1.25))
    expected = (2**27 + 4000 * 5) / (2**25 + 4000 * 4)
    assert float(metric.mean()) == pytest.approx(expected, rel=2e-7)
    assert float(torch.tensor(2.0**27) + 5) == 2**27
    assert pytest.approx(expected, rel=1e-4) != 2**27 / (2**25 + 4000 * 4)


def test_ten_million_tokens_are_one_sum():
    generator = torch.Generator().manual_seed(0)
    metric, exact = ForwardKL(), 0.0
    for _ in range(1000):
        nats = 8 * torch.rand(10_000, generator=generator)
        metric.add(nats)
        exact += float(nats.double().sum())
    assert int(metric.tokens) == 10_000_000
    assert float(metric.compute()) == pytest.approx(exact / 1e7, rel=2e-7)


def test_a_token_that_a_model_finds_all_but_impossible_has_a_finite_perplexity():
    logits = torch.tensor([[0.0, 200.0]])
    metric = Perplexity()
    metric.update(logits, torch.tensor([0]))
    assert float(metric.mean()) == pytest.approx(200)
    metric.update(torch.tensor([[0.0, -inf]]), torch.tensor([1]))
    metric.update(logits, torch.tensor([1]))
    assert float(metric.compute()) == inf


def test_ids_that_are_ruled_out():
    both = torch.tensor([[0.0, 1.0, -inf]])
    for metric in (ForwardKL(), ReverseKL()):
        metric.update(both, both + 1)
        assert float(metric.compute()) == pytest.approx(0, abs=1e-7)
    one, all_three = torch.tensor([[0.0, 0.0, -inf]]), torch.zeros(1, 3)
    for metric, expected in ((ForwardKL(), inf), (ReverseKL(), math.log(1.5))):
        metric.update(one, all_three)
        assert float(metric.compute()) == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("kind", [Perplexity, BitsPerByte, ForwardKL, ReverseKL])
def test_without_a_token_there_is_no_value(kind):
    metric = kind()
    assert metric.compute().isnan()
    assert metric.higher_is_better is False


def test_shapes_that_do_not_fit_are_refused(unchecked_types):
    words = r"one label.*logits of shape \(2, 3, 5\) and labels of shape \(2, 4\)"
    with pytest.raises(ValueError, match=words):
        Perplexity().update(torch.zeros(2, 3, 5), torch.zeros(2, 4, dtype=torch.long))
    with pytest.raises(ValueError, match=words):
        zeros = torch.zeros(2, 4, dtype=torch.long)
        BitsPerByte().update(torch.zeros(2, 3, 5), zeros, zeros)
    for metric in (ForwardKL(), ReverseKL()):
        with pytest.raises(ValueError, match=r"same ids.*\(3, 5\) and \(3, 6\)"):
            metric.update(torch.zeros(3, 5), torch.zeros(3, 6))
