"""What every criterion between relations of a batch must do."""

import pytest
import torch
from jaxtyping import TypeCheckError
from torch.testing import assert_close

from lightning_distill.criteria import CorrelationCongruence, PKT, RKD, SimilarityPreserving

RELATIONS = [SimilarityPreserving, PKT, lambda: PKT("code"), RKD, CorrelationCongruence]
RELATIONS_AND_NAMES = pytest.mark.parametrize("build", RELATIONS)


def features(samples=6):
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(samples, 4, generator=generator, dtype=torch.float64)
    return student, torch.randn(samples, 9, generator=generator, dtype=torch.float64)


@RELATIONS_AND_NAMES
def test_gradient(build):
    student, teacher = features()
    assert torch.autograd.gradcheck(lambda s: build()(s, teacher), (student.requires_grad_(),))


@RELATIONS_AND_NAMES
def test_the_order_of_the_batch_does_not_matter(build):
    student, teacher = features()
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    assert_close(build()(student[order], teacher[order]), build()(student, teacher))


@RELATIONS_AND_NAMES
def test_a_mask_is_dropping_the_samples(build):
    student, teacher = features()
    mask = torch.tensor([True, False, True, True, True, False])
    expected = build()(student[mask], teacher[mask])
    student[~mask] = torch.nan
    assert_close(build()(student, teacher, mask), expected)
    assert_close(build()(student, teacher, mask.long()), expected)


@RELATIONS_AND_NAMES
def test_with_a_mask_of_tokens_tokens_are_the_samples(build):
    student, teacher = features(12)
    mask = torch.arange(12) % 4 != 3
    found = build()(student.view(3, 4, 4), teacher.view(3, 4, 9), mask.view(3, 4))
    assert_close(found, build()(student[mask], teacher[mask]))


@RELATIONS_AND_NAMES
@pytest.mark.parametrize("samples", [0, 1])
def test_too_few_samples_are_zero_with_a_gradient(build, samples):
    student = torch.randn(samples, 4, requires_grad=True)
    loss = build()(student, torch.randn(samples, 9))
    loss.backward()
    assert loss == 0 and torch.equal(student.grad, torch.zeros(samples, 4))


@RELATIONS_AND_NAMES
@pytest.mark.parametrize("scale", [0.0, 1e-12, 1e4])
def test_extreme_features_give_finite_gradients(build, scale):
    student = (scale * torch.randn(4, 3)).requires_grad_()
    loss = build()(student, torch.randn(4, 3))
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()


@RELATIONS_AND_NAMES
@pytest.mark.parametrize("case", ["two samples", "one-hot", "equal", "some equal"])
def test_degenerate_features_give_finite_gradients(build, case):
    student, teacher = (x.float() for x in features())
    if case == "two samples":
        student, teacher = student[:2], teacher[:2]
    elif case == "one-hot":
        teacher = torch.eye(6, 9)
    elif case == "equal":
        teacher = student.clone()
    else:
        student[1], teacher[4] = student[0], teacher[2]
    for context in (torch.enable_grad(), torch.autocast("cpu", torch.bfloat16)):
        inputs = student.clone().requires_grad_()
        with context:
            loss = build()(inputs, teacher)
        loss.backward()
        assert loss.isfinite() and inputs.grad.isfinite().all()


@RELATIONS_AND_NAMES
def test_equal_features_are_zero(build):
    student, _ = features()
    found = build()(student.requires_grad_(), student.detach().clone())
    found.backward()
    assert_close(found, torch.zeros((), dtype=torch.float64))
    assert_close(student.grad, torch.zeros_like(student), atol=1e-7, rtol=0.0)


@RELATIONS_AND_NAMES
def test_sixteen_bits_are_computed_in_thirty_two(build):
    student, teacher = (x.to(torch.bfloat16) for x in features())
    expected = build()(student.double(), teacher.double())
    with torch.autocast("cpu", torch.bfloat16):
        loss = build()(student, teacher)
    assert loss.dtype == torch.float32
    assert_close(loss.double(), expected, rtol=1e-4, atol=1e-6)


@RELATIONS_AND_NAMES
def test_another_number_of_samples_is_refused(build):
    with pytest.raises((ValueError, TypeCheckError), match="one entry per value|batch"):
        build()(torch.randn(4, 3), torch.randn(5, 3))
    with pytest.raises(ValueError, match="must have one entry per value"):
        build()(torch.randn(4, 3), torch.randn(4, 3), torch.ones(5, dtype=torch.bool))
