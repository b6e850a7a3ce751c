import numpy as np
import torch
from torch.testing import assert_close

from lightning_distill.criteria import DIST, dist


def test_agrees_with_the_definition(logits):
    student, teacher = logits
    q, p = ((x / 4).softmax(-1).numpy() for x in (student, teacher))
    rows = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(q, p, strict=True)])
    columns = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(q.T, p.T, strict=True)])
    expected = 16 * (3 * (1 - rows) + 0.5 * (1 - columns))
    assert_close(
        dist(student, teacher, 3.0, 0.5, 4.0), torch.tensor(expected), rtol=1e-6, atol=1e-8
    )


def test_any_increasing_line_of_the_probabilities_is_perfect():
    p = torch.rand(6, 4, dtype=torch.float64).softmax(-1)
    # Half of it, and the rest spread evenly.
    q = 0.5 * p + 0.5 / 4
    assert_close(dist(q.log(), p.log()), torch.zeros((), dtype=torch.float64), atol=1e-6, rtol=0.0)


def test_one_row_has_no_correlation_over_the_batch():
    student = torch.randn(1, 5, requires_grad=True)
    DIST()(student, torch.randn(1, 5)).backward()
    assert student.grad.isfinite().all() and student.grad.abs().sum() > 0


def test_leading_dimensions_are_samples(logits):
    student, teacher = logits
    assert_close(DIST()(student.view(4, 4, 10), teacher.view(4, 4, 10)), DIST()(student, teacher))
