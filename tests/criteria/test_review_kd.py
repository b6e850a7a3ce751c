import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from jaxtyping import TypeCheckError
from torch.testing import assert_close

from lightning_distill.criteria import review_kd, ReviewKD


def naive_pool(x, size):
    """Means over size x size windows, which may overlap, as adaptive pooling has them."""
    _, height, width = x.shape

    def bounds(i, length):
        return slice(i * length // size, -(-(i + 1) * length // size))

    rows = [
        [x[:, bounds(i, height), bounds(j, width)].mean((1, 2)) for j in range(size)]
        for i in range(size)
    ]
    return torch.stack([torch.stack(row, 1) for row in rows], 1)


def naive(student, teacher):
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        parts, weights = [((s - t) ** 2).mean()], [1.0]
        for size in (4, 2, 1):
            if size < min(s.shape[1:]):
                parts.append(((naive_pool(s, size) - naive_pool(t, size)) ** 2).mean())
                weights.append(weights[-1] / 2)
        total += sum(w * p for w, p in zip(weights, parts, strict=True)) / sum(weights)
    return total


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.lists(st.integers(1, 7), min_size=1, max_size=3))
def test_agrees_with_the_definition(batch, channels, sizes):
    pairs = [torch.randn(2, batch, channels, n, n + n % 2).double() for n in sizes]
    student, teacher = zip(*pairs, strict=True)
    expected = [naive([s[b] for s in student], [t[b] for t in teacher]) for b in range(batch)]
    assert_close(review_kd(student, teacher), torch.stack(expected))


def test_one_place_is_the_squared_error():
    student, teacher = torch.randn(2, 3, 4, 1, 1)
    assert_close(review_kd([student], [teacher]), (student - teacher).square().mean((1, 2, 3)))


def stages():
    torch.manual_seed(0)
    student = [torch.randn(4, 3, 8, 8), torch.randn(4, 5, 4, 4), torch.randn(4, 6)]
    teacher = [torch.randn(4, 4, 8, 8), torch.randn(4, 7, 5, 5), torch.randn(4, 2)]
    criterion = ReviewKD(width=4)
    student, teacher = [x.double() for x in student], [x.double() for x in teacher]
    criterion.prepare(student, teacher)
    return criterion, student, teacher


def norm(x):
    return F.batch_norm(x, None, None, training=True)


def test_stages_are_fused_from_the_deepest_upwards():
    criterion, student, teacher = stages()
    fused, below = [], None
    for i in (2, 1, 0):
        part = criterion.fusions[i]
        s = student[i] if i < 2 else student[i][:, :, None, None]
        x = norm(torch.einsum("bchw,dc->bdhw", s, part.enter[0].weight[:, :, 0, 0]))
        if below is not None:
            size = x.shape[-1]
            nearest = [j * below.shape[-1] // size for j in range(size)]
            below = below[:, :, nearest][:, :, :, nearest]
            gates = F.conv2d(torch.cat([x, below], 1), part.gates.weight, part.gates.bias)
            gates = 1 / (1 + (-gates).exp())
            x = x * gates[:, 0:1] + below * gates[:, 1:2]
        if i == 1:  # The teacher's map is 5x5.
            nearest = [j * 4 // 5 for j in range(5)]
            x = x[:, :, nearest][:, :, :, nearest]
        fused.insert(0, norm(F.conv2d(x, part.leave[0].weight, padding=1)))
        below = x
    assert criterion.fusions[2].gates is None
    teacher[2] = teacher[2][:, :, None, None]
    expected = [naive([f[b] for f in fused], [t[b] for t in teacher]) for b in range(4)]
    teacher[2] = teacher[2][:, :, 0, 0]
    assert_close(criterion(student, teacher), torch.stack(expected).mean())


def test_a_stage_of_the_teacher_teaches_all_deeper_ones_and_no_shallower():
    criterion, student, teacher = stages()
    student = [x.requires_grad_() for x in student]
    for stage in range(3):
        fused = []
        handle = criterion.fusions[stage].register_forward_hook(lambda *a: fused.append(a[2][0]))  # noqa: B023
        criterion(student, teacher)
        handle.remove()
        gradients = torch.autograd.grad(fused[0].square().sum(), student, allow_unused=True)
        reached = [g is not None and bool(g.abs().max() > 1e-12) for g in gradients]
        assert reached == [i >= stage for i in range(3)]


def test_fused_maps_that_are_the_teachers_are_zero():
    criterion, student, teacher = stages()
    fused = []
    for part in criterion.fusions:
        part.register_forward_hook(lambda *a: fused.insert(0, a[2][0].detach()))
    criterion(student, teacher)
    fused = [fused[0], fused[1], fused[2]]
    assert criterion(student, fused).abs() < 1e-20


def test_a_single_value_per_channel_is_normed_as_in_evaluation():
    criterion, student, teacher = stages()
    one = [x[:1, :, :1, :1] if x.dim() == 4 else x[:1] for x in student]
    other = [x[:1, :, :1, :1] if x.dim() == 4 else x[:1] for x in teacher]
    before = criterion.fusions[0].enter[1].running_mean.clone()
    loss = criterion(one, other)
    assert torch.equal(criterion.fusions[0].enter[1].running_mean, before)
    assert_close(loss, criterion.eval()(one, other))


def test_what_cannot_be_is_refused():
    criterion, student, teacher = stages()
    with pytest.raises(ValueError, match="as many layers of the student .* got 2 and 3, built for"):
        criterion(student[:2], teacher)
    with pytest.raises(ValueError, match="as many layers .* got 2 and 2, built for 3"):
        criterion(student[:2], teacher[:2])
    with pytest.raises((ValueError, TypeCheckError), match="mapping=together|Sequence"):
        criterion(student[0], teacher[0])
    with pytest.raises(ValueError, match="takes lists of layers, got single tensors or none"):
        criterion([], [])
    with pytest.raises(ValueError, match="maps .* or vectors .*, got shape .4, 3, 8"):
        ReviewKD().prepare([student[0][..., 0]], [teacher[0]])
    with pytest.raises(ValueError, match="`width` must be at least 1, got 0"):
        ReviewKD(width=0)
