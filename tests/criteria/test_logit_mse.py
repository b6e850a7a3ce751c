import torch
from torch import nn
from torch.testing import assert_close

from lightning_distill.criteria import logit_mse, LogitMSE


def test_it_is_squared_error(logits):
    assert_close(LogitMSE()(*logits), nn.MSELoss()(*logits))


def test_one_value_per_sample(logits):
    student, teacher = logits
    assert_close(logit_mse(student, teacher)[3], ((student[3] - teacher[3]) ** 2).sum() / 10)


def test_it_sees_a_shift_that_divergences_do_not(logits):
    student, _ = logits
    assert_close(LogitMSE()(student + 2, student), torch.tensor(4.0, dtype=student.dtype))
