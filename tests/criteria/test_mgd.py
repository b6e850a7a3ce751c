import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from torch.testing import assert_close

from lightning_distill.criteria import MGD, mgd


def prepared(student=3, teacher=4, **options):
    criterion = MGD(**options)
    torch.manual_seed(0)
    maps = torch.randn(2, student, 6, 5).double(), torch.randn(2, teacher, 6, 5).double()
    criterion.prepare(*maps)
    return criterion, *maps


def masked_maps(criterion, student, teacher):
    """What the generator is given."""
    seen = []
    handle = criterion.generator.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    criterion(student, teacher)
    handle.remove()
    return seen[0]


@settings(max_examples=50, deadline=None)
@given(*[st.integers(1, 4)] * 4)
def test_agrees_with_the_definition(batch, channels, height, width):
    student, teacher = torch.randn(2, batch, channels, height, width).double()
    expected = []
    for s, t in zip(student, teacher, strict=True):
        places = [(c, i, j) for c in range(channels) for i in range(height) for j in range(width)]
        expected.append(0.5 * sum((t[p] - s[p]) ** 2 for p in places))
    assert_close(mgd(student, teacher, 0.5), torch.stack(expected))


def test_the_generator_is_two_convolutions_behind_an_alignment():
    criterion, student, teacher = prepared(alpha=1.0)
    criterion.eval()
    first, _, second = criterion.generator
    x = torch.einsum("bchw,dc->bdhw", student, criterion.align.weight[:, :, 0, 0])
    x = x + criterion.align.bias[:, None, None]
    x = F.conv2d(F.pad(x, [1] * 4), first.weight, first.bias).clamp(min=0)
    x = F.conv2d(F.pad(x, [1] * 4), second.weight, second.bias)
    assert_close(criterion(student, teacher), ((x - teacher) ** 2).sum() / 2)


def test_the_same_number_of_channels_needs_no_alignment():
    assert prepared(4, 4)[0].align is None
    assert prepared(3, 4)[0].align.weight.shape == (4, 3, 1, 1)


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_places_are_masked_or_in_the_program_for_classification_channels(variant):
    criterion = MGD(ratio=0.3, variant=variant)
    maps = torch.randn(20, 30, 7, 7).abs() + 1
    criterion.prepare(maps, maps)
    hidden = masked_maps(criterion, maps, maps) == 0
    whole = hidden.all(dim=1, keepdim=True) if variant == "paper" else hidden.all((2, 3), True)
    assert torch.equal(hidden, whole.expand_as(hidden))
    assert float(hidden.float().mean()) == pytest.approx(0.3, abs=0.06)
    assert not torch.equal(hidden[0], hidden[1])


def test_masks_follow_the_seed_and_evaluation_has_none():
    criterion, student, teacher = prepared(ratio=0.5)

    def value(seed):
        torch.manual_seed(seed)
        return criterion(student, teacher)

    assert value(0) == value(0) != value(1)
    criterion.eval()
    assert value(0) == value(1)
    assert masked_maps(criterion, student, teacher).all()


def test_with_all_masked_the_student_learns_nothing_and_with_none_it_is_as_in_evaluation():
    criterion, student, teacher = prepared(ratio=1.0)
    (gradient,) = torch.autograd.grad(
        criterion(student.requires_grad_(), teacher), student, allow_unused=True
    )
    assert gradient is None or not gradient.any()
    criterion.ratio = 0.0
    assert criterion(student, teacher) == criterion.eval()(student, teacher)


def test_a_generator_that_succeeds_is_zero():
    criterion, student, _ = prepared(4, 4, ratio=0.0)
    with torch.no_grad():
        for convolution in (criterion.generator[0], criterion.generator[2]):
            torch.nn.init.dirac_(convolution.weight)
            convolution.bias.zero_()
    assert criterion(student.abs(), student.abs()) == 0


def test_the_larger_map_is_averaged_down():
    criterion, student, teacher = prepared(4, 4)
    large = F.interpolate(teacher, scale_factor=2, mode="nearest")
    criterion.eval()
    assert_close(criterion(student, large), criterion(student, teacher))


def test_what_cannot_be_is_refused():
    for options, words in (
        ({"alpha": 0.0}, "`alpha` must be positive, got 0"),
        ({"ratio": 1.5}, "`ratio` must lie between 0 and 1, got 1.5"),
        ({"variant": "papr"}, "`variant` must be one of paper, code, got 'papr'"),
    ):
        with pytest.raises(ValueError, match=words):
            MGD(**options)
