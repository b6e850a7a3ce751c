import torch
from torch.testing import assert_close

from lightning_distill.criteria import cosine_hidden, patient_hidden, PatientHidden


def test_agrees_with_the_definition():
    student, teacher = torch.randn(2, 3, 5, 8, dtype=torch.float64)
    unit = [x / x.square().sum(-1, keepdim=True).sqrt() for x in (student, teacher)]
    assert_close(patient_hidden(student, teacher), (unit[0] - unit[1]).square().sum(-1))


def test_it_is_twice_the_cosine_distance():
    student, teacher = torch.randn(2, 3, 5, 8, dtype=torch.float64)
    assert_close(patient_hidden(student, teacher), 2 * cosine_hidden(student, teacher))
    assert_close(PatientHidden()(7 * teacher, teacher), torch.zeros((), dtype=torch.float64))


def test_the_first_token_alone_whatever_the_mask():
    student, teacher = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    found = PatientHidden(first_token=True)(student, teacher, torch.zeros(3, 4, dtype=torch.bool))
    unit = [x[:, 0] / x[:, 0].norm(dim=-1, keepdim=True) for x in (student, teacher)]
    assert_close(found, (unit[0] - unit[1]).square().sum(-1).mean())
    assert PatientHidden(first_token=True).counted(mask=torch.zeros(3, 4)) is None
