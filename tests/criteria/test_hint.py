import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_distill.criteria import Hint, hint


@pytest.fixture
def hidden():
    generator = torch.Generator().manual_seed(2)
    return torch.randn(2, 3, 5, 7, generator=generator, dtype=torch.float64)


DEFINITIONS = {
    "mse": lambda s, t: ((s - t) ** 2).sum(-1) / s.shape[-1],
    "l1": lambda s, t: (s - t).abs().sum(-1) / s.shape[-1],
    "cosine": lambda s, t: 1 - (s * t).sum(-1) / (s.norm(dim=-1) * t.norm(dim=-1)),
    "kl": lambda s, t: (t.softmax(-1) * (t.softmax(-1).log() - s.softmax(-1).log())).sum(-1),
}


@pytest.mark.parametrize("kind", DEFINITIONS)
def test_agrees_with_the_definition(hidden, kind):
    student, teacher = hidden
    values = hint(student, teacher, kind)
    assert values.shape == (3, 5)
    assert_close(values, DEFINITIONS[kind](student, teacher))


@pytest.mark.parametrize("kind", DEFINITIONS)
def test_is_zero_when_the_student_equals_the_teacher(hidden, kind):
    student, _ = hidden
    assert_close(Hint(kind)(student, student), torch.zeros((), dtype=student.dtype))


@pytest.mark.parametrize("kind", DEFINITIONS)
def test_gradient(hidden, kind):
    student, teacher = hidden[:, :1, :2].requires_grad_()
    assert torch.autograd.gradcheck(lambda s, t: hint(s, t, kind), (student, teacher))


@pytest.mark.parametrize("kind", DEFINITIONS)
def test_the_features_of_a_map_are_its_channels(hidden, kind):
    student, teacher = hidden.movedim(-1, 2)
    values = hint(student, teacher, kind, dim=1)
    assert_close(values, DEFINITIONS[kind](*hidden))


def test_mse_over_everything_is_torchs(hidden):
    assert_close(Hint()(*hidden), nn.MSELoss()(*hidden))
    assert_close(Hint("l1")(*hidden), nn.L1Loss()(*hidden))


def test_cosine_ignores_the_length(hidden):
    student, teacher = hidden
    assert_close(Hint("cosine")(3 * student, teacher), Hint("cosine")(student, teacher))


def test_padding_does_not_count(hidden):
    student, teacher = hidden
    mask = torch.ones(3, 5, dtype=torch.long)
    mask[0, 3:] = 0
    kept = [student[0, :3], student[1], student[2]]
    theirs = [teacher[0, :3], teacher[1], teacher[2]]
    expected = ((torch.cat(kept) - torch.cat(theirs)) ** 2).mean()
    assert_close(Hint()(student, teacher, mask), expected)


def test_an_unknown_kind_is_refused_with_the_nearest():
    with pytest.raises(
        ValueError, match=r"`kind` must be one of .* got 'cosin'. Did you mean 'cosine'"
    ):
        Hint("cosin")


def test_a_mask_of_other_tokens_is_refused(hidden):
    with pytest.raises(ValueError, match="as many tokens as the mask"):
        Hint()(*hidden, torch.ones(3, 4, dtype=torch.long))
