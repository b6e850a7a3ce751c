import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch.testing import assert_close

from lightning_distill.criteria import FSP, fsp


def layers(batch, widths, sides):
    pairs = zip(widths, sides, strict=True)
    return [torch.randn(batch, c, side, side, dtype=torch.float64) for c, side in pairs]


def flow(first, second):
    channels, height, width = first.shape
    matrix = torch.zeros(channels, len(second), dtype=torch.float64)
    for i in range(channels):
        for j in range(len(second)):
            for y in range(height):
                for x in range(width):
                    matrix[i, j] += first[i, y, x] * second[j, y, x] / (height * width)
    return matrix


@pytest.mark.parametrize("variant", ["paper", "repdistiller", "torchdistill"])
@settings(max_examples=10, deadline=None)
@given(st.integers(1, 2), st.lists(st.integers(1, 3), min_size=2, max_size=3), st.integers(1, 2))
def test_agrees_with_the_definition(variant, batch, widths, side):
    torch.manual_seed(batch)
    student, teacher = (layers(batch, widths, [side] * len(widths)) for _ in range(2))
    expected = torch.zeros(batch, dtype=torch.float64)
    for b in range(batch):
        for i in range(len(widths) - 1):
            difference = flow(student[i][b], student[i + 1][b])
            difference = difference - flow(teacher[i][b], teacher[i + 1][b])
            expected[b] += {
                "paper": (difference**2).sum(),
                "repdistiller": (difference**2).sum() / difference.numel(),
                "torchdistill": sum((column**2).sum().sqrt() for column in difference.T),
            }[variant]
    assert_close(fsp(student, teacher, variant), expected)


@pytest.mark.parametrize(
    ("variant", "pool"), [("paper", F.max_pool2d), ("repdistiller", F.avg_pool2d)]
)
def test_the_larger_map_of_a_pair_is_pooled_down(variant, pool):
    student, teacher = layers(2, [3, 4], [4, 2]), layers(2, [3, 4], [8, 4])
    pooled = [[pool(first, 2), second] for first, second in (student, teacher)]
    assert_close(fsp(student, teacher, variant), fsp(*pooled, variant))


def test_the_order_of_the_places_does_not_matter():
    student, teacher = layers(2, [3, 4], [3, 3]), layers(2, [3, 4], [3, 3])
    turned = [x.rot90(1, (2, 3)) for x in student]
    assert_close(fsp(turned, teacher), fsp(student, teacher))


def test_it_looks_at_the_flow_alone():
    """Twice the first map and half of the second is the same flow."""
    student = layers(2, [3, 4], [3, 3])
    teacher = [2 * student[0], student[1] / 2]
    assert_close(fsp(student, teacher), torch.zeros(2, dtype=torch.float64))
    student[0].requires_grad_()
    fsp(student, teacher, "torchdistill").sum().backward()
    assert student[0].grad.isfinite().all()


def test_lists_that_cannot_be_compared_are_refused():
    x = torch.randn(2, 3, 2, 2)
    with pytest.raises(ValueError, match=r"two at least, got 1 and 1. In a term, .* mapping=tog"):
        FSP()([x], [x])
    with pytest.raises(ValueError, match=r"equally many feature maps, .* got 2 and 3"):
        FSP()([x, x], [x, x, x])
    with pytest.raises(ValueError, match=r"same channels in each layer, got \[3, 3\] and \[3, 2"):
        FSP()([x, x], [x, x[:, :2]])
    with pytest.raises(ValueError, match="Did you mean 'torchdistill'"):
        FSP("torchdistil")
