import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.testing import assert_close

from lightning_distill.criteria import ICKD, ickd


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 8), st.integers(1, 8))
def test_agrees_with_the_definition(batch, channels, places, others):
    """Both ways of computing it: with few places for the channels and with many."""
    torch.manual_seed(channels + places)
    student = torch.randn(batch, channels, places, dtype=torch.float64)
    teacher = 3 * torch.randn(batch, channels, others, dtype=torch.float64)
    expected = torch.zeros(batch, dtype=torch.float64)
    for b, (s, t) in enumerate(zip(student, teacher, strict=True)):
        for i in range(channels):
            rows = [torch.stack([x[i] @ x[j] for j in range(channels)]) for x in (s, t)]
            s_row, t_row = (row / (row**2).sum().sqrt() for row in rows)
            expected[b] += ((s_row - t_row) ** 2).sum() / channels
    assert_close(ickd(student, teacher), expected)


@pytest.mark.parametrize("places", [2, 9])
def test_the_scale_and_the_order_of_the_places_do_not_matter(places):
    student, teacher = torch.randn(2, 4, 5, places).double()
    turned = 7 * student[..., torch.randperm(places)]
    assert_close(ickd(turned, teacher), ickd(student, teacher))
    assert_close(ickd(turned, student), torch.zeros(4).double(), atol=1e-12, rtol=0.0)


@pytest.mark.parametrize("places", [2, 9])
def test_a_channel_without_activity_counts_as_nothing(places):
    student, teacher = torch.randn(2, 4, 5, places).double()
    student[:, 1], teacher[:, 1:3] = 0.0, 0.0
    student.requires_grad_()
    loss = ickd(student, teacher)
    loss.sum().backward()
    assert student.grad.isfinite().all()
    rows = []
    for x in (student, teacher):
        gram = x @ x.transpose(1, 2)
        rows.append(gram / gram.norm(dim=2, keepdim=True).clamp(min=1e-12))
    assert_close(loss, (rows[0] - rows[1]).square().sum((1, 2)) / 5)


def test_few_places_need_no_matrix_of_the_channels():
    shapes = []

    class Watched(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            shapes.extend([tuple(out.shape)] if isinstance(out, torch.Tensor) else [])
            return out

    x = torch.randn(2, 64, 3, 3, requires_grad=True)
    with Watched():
        ickd(x, torch.randn(2, 64, 4, 4)).sum().backward()
    assert shapes and max(torch.Size(s).numel() for s in shapes) <= 2 * 64 * 16


def test_there_is_a_connector_only_where_the_channels_differ():
    student, teacher = torch.randn(4, 3, 2, 2), torch.randn(4, 3, 3, 3)
    criterion = ICKD()
    criterion.prepare(student, teacher)
    assert not list(criterion.parameters())
    assert_close(criterion(student, teacher), ickd(student, teacher).mean())
    criterion = ICKD()
    criterion.prepare(student[:, :2], teacher)
    expected = ickd(criterion.connector(student[:, :2]), teacher).mean()
    assert_close(criterion(student[:, :2], teacher), expected)


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match=r"same channels, got 2 and 3. The module ICKD trains"):
        ickd(torch.randn(1, 2, 4), torch.randn(1, 3, 4))
