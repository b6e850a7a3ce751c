from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.testing import assert_close

from lightning_distill.criteria import KDSVD, kdsvd
from lightning_distill.criteria.kdsvd import _singular


def layers(batch, widths, sides):
    pairs = zip(widths, sides, strict=True)
    return [torch.randn(batch, c, *side, dtype=torch.float64) for c, side in pairs]


def directions(x, k):
    """Eigenvectors of the Gram matrix of the channels, strongest first, and singular values."""
    rows = x.flatten(1).T
    values, vectors = torch.linalg.eigh(rows.T @ rows)
    rank = min(rows.shape)
    order = values.argsort(descending=True)[: min(k, rank)]
    return vectors[:, order], values[order].clamp(min=0).sqrt()


def aligned(student, teacher, k):
    s, _ = directions(student, k + 1)
    t, values = directions(teacher, k)
    weights = values / (values**2).sum().sqrt()
    columns = []
    for r in range(t.shape[1]):
        wanted = t[:, r] if t[:, r].sum() >= 0 else -t[:, r]
        nearest = max(s.T, key=lambda v, w=wanted: float(abs(v @ w)))
        nearest = nearest if nearest @ wanted >= 0 else -nearest
        columns.append((nearest * weights[r], wanted * weights[r]))
    return columns


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=2, max_size=3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 9),
)
def test_agrees_with_the_definition(widths, height, width, k, seed):
    torch.manual_seed(seed)
    sides = [(height, width)] * len(widths)
    student, teacher = layers(2, widths, sides), layers(2, widths, sides)
    expected = torch.zeros(2, dtype=torch.float64)
    for b in range(2):
        vectors = [aligned(s[b], t[b], k) for s, t in zip(student, teacher, strict=True)]
        for first, second in pairwise(vectors):
            for (s_1, t_1), (s_2, t_2) in zip(first, second, strict=False):
                s = torch.exp(-((s_1[:, None] - s_2[None]) ** 2) / 8)
                t = torch.exp(-((t_1[:, None] - t_2[None]) ** 2) / 8)
                expected[b] += ((s - t) ** 2).sum()
    assert_close(kdsvd(student, teacher, k), expected, atol=1e-8, rtol=1e-6)


def test_scale_places_and_signs_do_not_matter():
    torch.manual_seed(0)
    student, teacher = (layers(2, [3, 4], [(3, 2), (2, 2)]) for _ in range(2))
    turned = [5 * student[0].flip(2), -student[1].flip(3)]
    assert_close(kdsvd(turned, teacher, 2), kdsvd(student, teacher, 2))
    assert_close(kdsvd(student, turned, 2), torch.zeros(2).double(), atol=1e-12, rtol=0.0)


@pytest.mark.parametrize("shape", [(3, 2, 2), (5, 2, 1), (2, 3, 3)])
def test_the_gradient_is_that_of_the_vectors(shape):
    """With fewer places than channels, whose other directions have singular value 0, and more."""
    torch.manual_seed(0)
    student = layers(2, [shape[0], 3], [shape[1:], (2, 2)])
    teacher = layers(2, [shape[0], 3], [shape[1:], (2, 2)])
    inputs = [x.requires_grad_() for x in student]
    assert torch.autograd.gradcheck(lambda *x: kdsvd(x, teacher, 2), inputs, atol=1e-5)


def test_the_gradient_is_that_of_torch_where_that_exists():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, dtype=torch.float64)
    vectors, _ = _singular(x, 2)
    (found,) = torch.autograd.grad((vectors * weight).pow(2).sum(), x)
    _, _, rows = torch.linalg.svd(x.flatten(2).transpose(1, 2), full_matrices=False)
    (expected,) = torch.autograd.grad((rows.mT[..., :2] * weight).pow(2).sum(), x)
    assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_and_zero_singular_values_have_a_finite_gradient(dtype):
    equal = torch.eye(4, dtype=dtype).reshape(1, 4, 2, 2)
    lonely = torch.zeros(1, 4, 2, 2, dtype=dtype)
    lonely[:, 0] = 1.0
    teacher = [torch.randn(1, 4, 2, 2, dtype=dtype) for _ in range(2)]
    for x in (equal, lonely, torch.zeros_like(equal), torch.ones_like(equal)):
        student = [x.clone().requires_grad_(), x.flip(1).clone().requires_grad_()]
        kdsvd(student, teacher, 3).sum().backward()
        assert all(s.grad.isfinite().all() for s in student)


def test_what_cannot_be_compared_is_refused():
    x = torch.randn(2, 3, 2, 2)
    with pytest.raises(ValueError, match="`k` must be 1 or more singular vectors, got 0"):
        KDSVD(0)
    with pytest.raises(ValueError, match=r"same channels in each layer, got \[3, 3\] and \[3, 2"):
        KDSVD()([x, x], [x, x[:, :2]])
    with pytest.raises(ValueError, match=r"one entry per value, shape \(2,\), got \(3,\)"):
        KDSVD()([x, x], [x, x], torch.ones(3, dtype=torch.bool))
