import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from lightning_distill.criteria import (
    DIST,
    DKD,
    JSD,
    ListwiseKL,
    LogitStandardization,
    OFA,
    one_versus_all,
    OneVersusAll,
    SoftCrossEntropy,
    SoftTarget,
    WSLD,
)
from lightning_distill.temperatures import CTKD, FLSW


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_with_soft_targets_it_is_the_divergence_between_the_sigmoids(logits, temperature):
    q, p = (torch.sigmoid(x / temperature) for x in logits)
    kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    found = OneVersusAll(SoftTarget(temperature))(*logits)
    assert_close(found, temperature**2 * kl.mean())


@pytest.mark.parametrize("temperature", [1.0, 3.0, lambda: 3.0])
def test_soft_targets_of_labels_that_are_ruled_out_are_those_of_two_classes(temperature, logits):
    student, teacher = logits[:, :6].clone()
    teacher[0, 1] = teacher[2, 3] = student[0, 1] = -torch.inf
    student[4], mask = torch.nan, torch.arange(6) != 4
    given = student.requires_grad_(), teacher.requires_grad_()
    pairs = [one_versus_all(x) for x in given]
    wanted = SoftTarget(temperature)(*pairs, mask[:, None].expand(6, 10))
    found = OneVersusAll(SoftTarget(temperature))(*given, mask=mask)
    assert found > 0
    assert_close(found, wanted)
    found, wanted = (torch.autograd.grad(x, given) for x in (found, wanted))
    for one, other in zip(found, wanted, strict=True):
        assert one[mask].isfinite().all()
        assert_close(one[mask], other[mask])
    student = logits[0].clone()
    student[1, 2] = -torch.inf
    assert OneVersusAll(SoftTarget(temperature))(student, logits[1]) == torch.inf


@pytest.mark.parametrize("temperature", [CTKD(), CTKD(per_sample=True), FLSW(2.0)])
def test_a_temperature_that_reads_logits_is_given_those_of_two_classes(temperature, logits):
    wanted = SoftTarget(temperature)(*(one_versus_all(x) for x in logits))
    assert_close(OneVersusAll(SoftTarget(temperature))(*logits), wanted)


def test_with_soft_cross_entropy_it_is_binary_cross_entropy(logits):
    student, teacher = logits
    expected = F.binary_cross_entropy_with_logits(student, teacher.sigmoid())
    assert_close(OneVersusAll(SoftCrossEntropy())(student, teacher), expected)


def test_the_first_of_two_classes_is_that_the_label_does_not_hold():
    found = one_versus_all(torch.tensor([[2.0, -3.0]]))
    assert torch.equal(found, torch.tensor([[[0.0, 2.0], [0.0, -3.0]]]))


@pytest.mark.parametrize("criterion", [DKD(), WSLD(), OFA(), JSD()])
def test_a_mask_of_samples_drops_all_their_labels(criterion, logits):
    student, teacher = logits
    labels = (teacher > 0).long()
    mask = torch.arange(16) % 3 != 0
    wrapped = OneVersusAll(criterion)
    named = {} if isinstance(criterion, JSD) else {"labels": labels}
    kept = {name: value[mask] for name, value in named.items()}
    found = wrapped(student, teacher, **named, mask=mask)
    assert_close(found, wrapped(student[mask], teacher[mask], **kept))
    assert_close(found, wrapped(student, teacher, **named, mask=mask[:, None].expand(16, 10)))


@pytest.mark.parametrize("unknown", [torch.nan, -100.0])
def test_an_unknown_label_is_no_label(unknown, logits):
    student, teacher = logits
    labels = (teacher > 0).double()
    labels[:, 3] = unknown
    rest = torch.arange(10) != 3
    wrapped = OneVersusAll(DKD())
    expected = wrapped(student[:, rest], teacher[:, rest], labels[:, rest])
    assert_close(wrapped(student, teacher, labels), expected)


def test_a_binary_head_has_one_logit_and_a_label_per_sample(logits):
    student, teacher = (x[:, :1] for x in logits)
    labels = torch.arange(16) % 2
    both = [torch.cat([torch.zeros(16, 1, dtype=x.dtype), x], dim=1) for x in (student, teacher)]
    assert_close(OneVersusAll(DKD())(student, teacher, labels), DKD()(*both, labels))
    assert_close(OneVersusAll()(student, teacher), SoftTarget(1.0)(*both))


def test_gradient(logits):
    student, teacher = logits[:, :3].requires_grad_()
    assert torch.autograd.gradcheck(OneVersusAll(), (student, teacher))


def test_huge_logits_give_finite_gradients():
    student = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = OneVersusAll()(student, torch.tensor([[-1e4, 1e4]]))
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()


@pytest.mark.parametrize("criterion", [DIST, LogitStandardization, ListwiseKL])
def test_criteria_between_the_classes_of_a_sample_are_refused(criterion):
    with pytest.raises(ValueError, match=r"compares the classes of a sample .* Take SoftTarget"):
        OneVersusAll(criterion())


def test_labels_and_masks_of_another_shape_are_refused(logits):
    with pytest.raises(ValueError, match=r"`labels` must have one entry per logit, shape \(16, 10"):
        OneVersusAll(DKD())(*logits, torch.zeros(16, dtype=torch.long))
    with pytest.raises(ValueError, match=r"`mask` must have one entry per logit"):
        OneVersusAll()(*logits, mask=torch.ones(15, dtype=torch.bool))
