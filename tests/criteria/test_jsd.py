import math

import pytest
import torch
from torch.testing import assert_close

from lightning_distill.criteria import JSD, jsd, reverse_kl, soft_target


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_agrees_with_the_definition(logits, beta):
    student, teacher = logits
    q, p = (student / 2).softmax(-1), (teacher / 2).softmax(-1)
    m = beta * p + (1 - beta) * q
    expected = beta * (p * (p / m).log()).sum(-1) + (1 - beta) * (q * (q / m).log()).sum(-1)
    assert_close(jsd(student, teacher, beta, 2.0), 4 * expected)


def test_the_ends_are_forward_and_reverse_kl(logits):
    student, teacher = logits
    assert_close(jsd(student, teacher, 0.0, 2.0), soft_target(student, teacher, 2.0))
    assert_close(jsd(student, teacher, 1.0, 2.0), reverse_kl(student, teacher, 2.0))
    # In form near them too, divided by the share that vanishes.
    assert_close(
        jsd(student, teacher, 1e-6) / 1e-6, soft_target(student, teacher, 1.0), rtol=1e-3, atol=0.0
    )
    assert_close(
        jsd(student, teacher, 1 - 1e-6) / 1e-6, reverse_kl(student, teacher), rtol=1e-3, atol=0.0
    )


def test_it_is_symmetric_in_the_middle_and_at_most_log_two(logits):
    student, teacher = logits
    assert_close(jsd(student, teacher), jsd(teacher, student))
    apart = jsd(torch.tensor([1e4, 0.0]), torch.tensor([0.0, 1e4]))
    assert_close(apart, torch.tensor(math.log(2)))


@pytest.mark.parametrize("beta", [-0.1, 1.1])
def test_a_share_outside_of_its_range_is_refused(beta, logits):
    with pytest.raises(ValueError, match="`beta` must lie between 0 and 1, got"):
        JSD(beta)
    with pytest.raises(ValueError, match="`beta` must lie between 0 and 1, got"):
        JSD(lambda: beta)(*logits)


def test_is_zero_when_the_student_equals_the_teacher(logits):
    assert_close(JSD()(logits[0], logits[0]), torch.zeros((), dtype=torch.float64))
