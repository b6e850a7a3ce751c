import torch
from torch.testing import assert_close

from lightning_distill.criteria import NKD, nkd

LABELS = torch.arange(16) % 10


def test_agrees_with_the_definition(logits):
    student, teacher = logits
    expected = []
    for s, t, y in zip(student, teacher, LABELS.tolist(), strict=True):
        p_s, p_t = s.softmax(-1), t.softmax(-1)
        others = [c for c in range(10) if c != y]
        rest_s, rest_t = (s[others] / 2).softmax(-1), (t[others] / 2).softmax(-1)
        expected.append(-p_t[y] * p_s[y].log() - 1.5 * 4 * (rest_t * rest_s.log()).sum())
    assert_close(nkd(student, teacher, LABELS, 1.5, 2.0), torch.stack(expected))


def test_a_teacher_that_is_sure_of_the_label_gives_cross_entropy():
    student = torch.randn(3, 4, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2])
    teacher = 1e3 * torch.nn.functional.one_hot(labels, 4).double()
    expected = torch.nn.functional.cross_entropy(student, labels, reduction="none")
    assert_close(nkd(student, teacher, labels, gamma=0.0), expected)


def test_unlabelled_rows_do_not_count(logits):
    labels = LABELS.clone()
    labels[3:] = -100
    assert_close(NKD()(*logits, labels), nkd(*logits[:, :3], LABELS[:3]).mean())
