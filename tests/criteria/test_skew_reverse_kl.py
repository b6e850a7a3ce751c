import math

import pytest
import torch
from torch.testing import assert_close

from lightning_distill.criteria import reverse_kl, skew_reverse_kl, SkewReverseKL


@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_agrees_with_the_definition(logits, alpha):
    student, teacher = logits
    q, p = student.softmax(-1), teacher.softmax(-1)
    expected = (q * (q / ((1 - alpha) * p + alpha * q)).log()).sum(-1)
    assert_close(skew_reverse_kl(student, teacher, alpha), expected)


def test_without_skew_it_is_reverse_kl(logits):
    assert_close(skew_reverse_kl(*logits, 0.0, 2.0), reverse_kl(*logits, 2.0))


def test_it_is_bounded_where_reverse_kl_is_not():
    student, teacher = torch.tensor([[1e4, 0.0]]), torch.tensor([[0.0, 1e4]])
    assert_close(skew_reverse_kl(student, teacher, 0.1), torch.tensor([-math.log(0.1)]))


def test_a_share_outside_of_its_range_is_refused():
    with pytest.raises(ValueError, match="`alpha` must lie between 0 and 1, got -1"):
        SkewReverseKL(alpha=-1.0)
