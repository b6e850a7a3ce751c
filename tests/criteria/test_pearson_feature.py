import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch.testing import assert_close

from lightning_distill.criteria import pearson_feature, PearsonFeature


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(2, 3))
def test_agrees_with_the_definition_and_is_one_minus_the_correlation(batch, channels, side):
    torch.manual_seed(batch + channels + side)
    student, teacher = torch.randn(2, batch, channels, side, side, dtype=torch.float64)
    squares, correlations = [], []
    for c in range(channels):
        s, t = student[:, c].flatten(), teacher[:, c].flatten()
        correlations.append(torch.corrcoef(torch.stack([s, t]))[0, 1])
        s, t = ((x - x.mean()) / ((x - x.mean()) ** 2).mean().sqrt() for x in (s, t))
        squares.append(((s - t) ** 2).mean() / 2)
    found = pearson_feature(student, teacher)
    assert_close(found, sum(squares) / channels)
    assert_close(found, 1 - sum(correlations) / channels)


def test_the_scale_and_shift_of_a_channel_do_not_matter():
    student, teacher = torch.randn(2, 4, 3, 2, 2).double()
    scale, shift = torch.tensor([0.1, 3.0, 50.0]), torch.tensor([5.0, -2.0, 0.0])
    moved = student * scale[:, None, None] + shift[:, None, None]
    assert_close(pearson_feature(moved, teacher), pearson_feature(student, teacher))
    assert_close(pearson_feature(moved, student), torch.zeros(()).double(), atol=1e-12, rtol=0.0)
    assert_close(pearson_feature(-moved, student), torch.tensor(2.0).double())


def test_a_channel_without_spread_counts_as_zero_with_a_finite_gradient():
    student, teacher = torch.randn(2, 4, 2, 2, 2).double()
    student[:, 0] = 3.0
    student.requires_grad_()
    loss = pearson_feature(student, teacher)
    loss.backward()
    assert_close(loss, (0.5 + pearson_feature(student[:, 1:], teacher[:, 1:])) / 2)
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("resize", ["student", "teacher"])
def test_one_of_the_maps_is_resized(resize):
    student, teacher = torch.randn(3, 4, 4, 6), torch.randn(3, 4, 8, 5)
    found = PearsonFeature(resize)(student, teacher)
    if resize == "student":
        student = F.interpolate(student, (8, 5), mode="bilinear", align_corners=False)
    else:
        teacher = F.interpolate(teacher, (4, 6), mode="bilinear", align_corners=False)
    assert_close(found, pearson_feature(student, teacher))


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="must have the same shape.*set an adapter"):
        PearsonFeature()(torch.randn(2, 3, 4, 4), torch.randn(2, 2, 4, 4))
    with pytest.raises(ValueError, match="`resize` must be one of student, teacher, got 'studnt'"):
        PearsonFeature("studnt")
