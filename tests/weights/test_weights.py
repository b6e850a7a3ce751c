"""Weights of samples, each against its formula and at the ends of its range."""

import math

import pytest
import torch
from torch.testing import assert_close

from lightning_distill import weights
from lightning_distill.criteria import ClassSubset, SampleWeighted, SoftTarget
from lightning_distill.weights import Focal, TeacherConfidence

BOTH = pytest.mark.parametrize("build", [Focal, TeacherConfidence])


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 16, 10, generator=generator, dtype=torch.float64)


def test_every_weight_is_tested():
    assert set(weights.__all__) == {"Focal", "TeacherConfidence"}


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_focal_agrees_with_the_definition(gamma, logits):
    student, teacher = logits
    each = [(1 - s @ t / (s.norm() * t.norm())) ** gamma for s, t in zip(*logits, strict=True)]
    expected = torch.stack(each)
    assert_close(Focal(gamma)(student, teacher).double(), expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0.1


def test_focal_is_zero_where_the_models_agree_and_largest_where_they_oppose(logits):
    student, _ = logits
    assert_close(Focal()(student, 3 * student), torch.zeros(16), atol=1e-6, rtol=0.0)
    assert_close(Focal(3.0)(student, -student), torch.full((16,), 8.0))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_teacher_confidence_agrees_with_the_definition(temperature, logits):
    expected = []
    for row in logits[1].tolist():
        odds = [math.exp(z / temperature) for z in row]
        p = [o / sum(odds) for o in odds]
        expected.append(1 + sum(x * math.log(x) for x in p) / math.log(10))
    found = TeacherConfidence(temperature)(*logits)
    assert_close(found.double(), torch.tensor(expected).double(), rtol=1e-5, atol=1e-5)


def test_teacher_confidence_is_from_zero_to_one():
    rows = [[0.0, 0.0, 0.0], [5.0, 5.0, 5.0], [1e6, 0.0, 0.0], [0.0, -math.inf, -math.inf]]
    found = TeacherConfidence()(None, torch.tensor(rows))
    assert_close(found, torch.tensor([0.0, 0.0, 1.0, 1.0]))
    near = 1e-4 * torch.randn(2000, 7)
    assert TeacherConfidence()(None, near).min() >= 0


def test_teacher_confidence_falls_with_the_temperature(logits):
    found = [TeacherConfidence(t)(*logits) for t in (0.5, 1.0, 2.0)]
    assert (found[0] > found[1]).all() and (found[1] > found[2]).all()


@BOTH
def test_a_weight_has_no_gradient(build, logits):
    assert not build()(*logits.requires_grad_()).requires_grad


@BOTH
def test_tokens_have_weights_of_their_own(build, logits):
    tokens = build()(*(x.view(2, 8, 10) for x in logits))
    assert_close(tokens, build()(*logits).view(2, 8))


@BOTH
def test_what_is_masked_does_not_count(build, logits):
    student, teacher = (x.clone() for x in logits)
    mask = torch.arange(16) % 3 != 0
    criterion = SampleWeighted(SoftTarget(), build())
    expected = criterion(student[mask], teacher[mask])
    teacher[~mask] = torch.nan
    student.requires_grad_()
    loss = criterion(student, teacher, mask=mask)
    assert_close(loss, expected)
    loss.backward()
    assert student.grad[mask].isfinite().all() and student.grad[mask].any()


@BOTH
def test_nan_that_counts_is_refused(build, logits):
    logits[1, 3, 2] = torch.nan
    with pytest.raises(ValueError, match="must be finite and not negative, got nan"):
        SampleWeighted(SoftTarget(), build())(*logits)


@BOTH
def test_maps_are_weighed_within_a_class_subset(build):
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 3, 5, 4, 2, generator=generator)
    rows = [x.permute(0, 2, 3, 1).reshape(-1, 5) for x in maps]
    criterion = SampleWeighted(SoftTarget(), build())
    assert_close(ClassSubset(criterion, dim=1)(*maps), criterion(*rows))


def test_logits_that_are_missing_or_do_not_fit_are_refused(logits):
    student, teacher = logits
    for build in (Focal, TeacherConfidence):
        words = f"{build.__name__} looks at the teacher's logits; add weight_teacher=teacher.log"
        with pytest.raises(ValueError, match=words):
            build()(student, None)
        words = rf"{build.__name__} needs logits of two classes or more, got .* \(16, 1\)"
        with pytest.raises(ValueError, match=words):
            build()(student[:, :1], teacher[:, :1])
    with pytest.raises(ValueError, match="Focal looks at the student's logits; add weight_student"):
        Focal()(None, teacher)
    with pytest.raises(ValueError, match=r"same classes, got shapes \(16, 10\) and \(16, 9\)"):
        Focal()(student, teacher[:, :9])


def test_settings_that_cannot_be_are_refused():
    for gamma in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="`gamma` must be positive, got"):
            Focal(gamma)
    for temperature in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="`temperature` must be positive and finite, got"):
            TeacherConfidence(temperature)


def test_they_say_how_they_are_set():
    assert "gamma=3.0" in str(Focal(3.0)) and "temperature=2.0" in str(TeacherConfidence(2.0))
