import math

import pytest
import torch
from torch.testing import assert_close

from lightning_distill.criteria import tf_kd, TfKD

LABELS = torch.arange(16) % 10


def virtual(correct=0.99):
    p = torch.full((16, 10), (1 - correct) / 9, dtype=torch.float64)
    p[torch.arange(16), LABELS] = correct
    return p


def test_agrees_with_the_definition(logits):
    p = virtual().log().div(20).softmax(-1)
    q = (logits[0] / 20).softmax(-1)
    expected = 400 * (p * (p / q).log()).sum(-1)
    assert_close(tf_kd(logits[0], LABELS), expected, rtol=1e-6, atol=1e-6)


def test_the_variant_of_the_authors_program(logits):
    p = (virtual() / 20).softmax(-1)
    q = logits[0].softmax(-1)
    expected = (p * (p / q).log()).sum(-1)
    assert_close(tf_kd(logits[0], LABELS, variant="code"), expected, rtol=1e-6, atol=1e-6)


def test_a_student_that_is_the_virtual_teacher_has_no_loss():
    student = virtual().log()
    assert_close(TfKD()(student, LABELS), torch.zeros((), dtype=torch.float64), atol=1e-6, rtol=0.0)


def test_at_temperature_one_it_is_label_smoothing_less_its_entropy(logits):
    smoothing = (1 - 0.9) * 10 / 9
    expected = torch.nn.functional.cross_entropy(
        logits[0], LABELS, label_smoothing=smoothing, reduction="none"
    )
    entropy = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1 / 9))
    found = tf_kd(logits[0], LABELS, correct=0.9, temperature=1.0)
    assert_close(found, expected - entropy, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("correct", [0.05, 1.0])
def test_a_probability_that_teaches_nothing_is_refused(logits, correct):
    with pytest.raises(ValueError, match="more than 1/10, that of chance, and less than 1; got"):
        tf_kd(logits[0], LABELS, correct)
    with pytest.raises(ValueError, match="`variant` must be one of paper, code"):
        TfKD(variant="papr")
