import pytest
import torch
from torch.testing import assert_close

from lightning_distill.criteria import MLKD, mlkd, soft_target


def test_agrees_with_the_definition(logits):
    student, teacher = logits
    expected = 0.0
    for temperature in (2, 5):
        q, p = (student / temperature).softmax(-1), (teacher / temperature).softmax(-1)
        samples = temperature**2 * (p * (p / q).log()).sum() / 16
        batch = sum((p[i] @ p[j] - q[i] @ q[j]) ** 2 for i in range(16) for j in range(16))
        classes = sum(
            (p[:, i] @ p[:, j] - q[:, i] @ q[:, j]) ** 2 for i in range(10) for j in range(10)
        )
        expected += (samples + batch / 16 + classes / 10) / 2
    assert_close(mlkd(student, teacher, (2.0, 5.0)), expected)


def test_one_sample_has_no_relations_but_with_itself(logits):
    student, teacher = logits[:, :1]
    assert mlkd(student, teacher, (3.0,)) > soft_target(student, teacher, 3.0).mean()


def test_is_zero_when_the_student_equals_the_teacher(logits):
    assert_close(MLKD()(logits[0], logits[0]), torch.zeros((), dtype=torch.float64))


def test_temperatures_are_checked():
    with pytest.raises(ValueError, match="`temperatures` is empty"):
        MLKD([])
    with pytest.raises(ValueError, match="`temperatures` must be positive, got 0"):
        MLKD([1.0, 0.0])
