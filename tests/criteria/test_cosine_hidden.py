import torch
from torch.testing import assert_close

from lightning_distill.criteria import cosine_hidden, CosineHidden


def test_agrees_with_the_definition():
    student, teacher = torch.randn(2, 3, 5, 8, dtype=torch.float64)
    length = [x.square().sum(-1).sqrt() for x in (student, teacher)]
    expected = 1 - (student * teacher).sum(-1) / length[0] / length[1]
    assert_close(cosine_hidden(student, teacher), expected)


def test_only_the_direction_counts():
    x = torch.randn(4, 6, dtype=torch.float64)
    assert_close(CosineHidden()(3 * x, x), torch.zeros((), dtype=torch.float64))
    assert_close(CosineHidden()(-x, x), torch.tensor(2.0, dtype=torch.float64))
