import pytest
import torch
from torch.testing import assert_close

from lightning_distill.criteria import class_subset, ClassSubset, DIST, DKD, JSD, SoftTarget


def test_a_subset_is_the_distribution_over_the_classes_kept(logits):
    student, teacher = logits
    kept = [7, 0, 3]
    q, p = (x.softmax(-1)[:, kept] for x in (student, teacher))
    q, p = q / q.sum(-1, keepdim=True), p / p.sum(-1, keepdim=True)
    expected = (p * (p / q).log()).sum(-1).mean()
    assert_close(ClassSubset(SoftTarget(1.0), kept)(student, teacher), expected)


def test_student_and_teacher_may_number_the_classes_differently(logits):
    student, teacher = logits
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    classes = [2, 5, 9]
    places = [int((order == c).nonzero()) for c in classes]
    found = ClassSubset(SoftTarget(), classes, places)(student, teacher[:, order])
    assert_close(found, ClassSubset(SoftTarget(), classes)(student, teacher))


@pytest.mark.parametrize("criterion", [SoftTarget(), JSD(), DIST(), DKD()])
def test_maps_of_logits_are_a_batch_of_their_places(criterion):
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 3, 5, 4, 2, generator=generator, dtype=torch.float64)
    mask = torch.rand(3, 4, 2, generator=generator) > 0.4
    labels = torch.randint(0, 5, (3, 4, 2), generator=generator)
    rows = [x.permute(0, 2, 3, 1)[mask] for x in (student, teacher)]
    named = {"labels": labels} if isinstance(criterion, DKD) else {}
    expected = criterion(*rows, **{name: x[mask] for name, x in named.items()})
    found = ClassSubset(criterion, dim=1)(student, teacher, **named, mask=mask)
    assert_close(found, expected)


def test_samples_of_other_classes_count_as_unlabelled(logits):
    student, teacher = logits
    labels = torch.arange(16) % 10
    kept = [4, 1, 8]
    rows = torch.tensor([i for i in range(16) if i % 10 in kept])
    numbers = torch.tensor([kept.index(i % 10) for i in rows.tolist()])
    expected = DKD()(student[rows][:, kept], teacher[rows][:, kept], numbers)
    assert_close(ClassSubset(DKD(), kept)(student, teacher, labels=labels), expected)


def test_gradient_reaches_only_the_classes_kept(logits):
    student = logits[0].clone().requires_grad_()
    ClassSubset(SoftTarget(), [1, 2])(student, logits[1]).backward()
    assert student.grad[:, 1:3].count_nonzero() == 32
    assert student.grad.count_nonzero() == 32


@pytest.mark.parametrize("classes", [[1], [1, 1], [-1, 2]])
def test_a_list_that_is_no_subset_is_refused(classes):
    with pytest.raises(ValueError, match=r"`classes` must list two or more different classes"):
        ClassSubset(classes=classes)


def test_lists_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="must name equally many, got 2 and 3"):
        ClassSubset(classes=[0, 1], teacher_classes=[0, 1, 2])
    with pytest.raises(ValueError, match="`teacher_classes` says which of the teacher's classes"):
        ClassSubset(teacher_classes=[0, 1, 2])


def test_classes_and_dimensions_that_do_not_exist_are_refused(logits):
    with pytest.raises(ValueError, match="names class 10, but there are 10, numbered from 0"):
        class_subset(logits[0], [3, 10])
    with pytest.raises(ValueError, match=r"`dim` is 2, but the logits have shape \(16, 10\)"):
        class_subset(logits[0], dim=2)
