import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from lightning_distill.criteria import KnowledgeDistillation

# Two samples, three classes: small enough to work out by hand.
STUDENT = [[1.0, 0.0, -1.0], [0.5, 2.0, 0.0]]
TEACHER = [[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]]
LABELS = [0, 1]


def softmax(row):
    powers = [math.exp(x) for x in row]
    return [x / sum(powers) for x in powers]


def by_hand(temperature, kind, divide_by_classes):
    label = teacher = 0.0
    for s, t, y in zip(STUDENT, TEACHER, LABELS, strict=True):
        label += -math.log(softmax(s)[y]) / 2
        q = softmax([x / temperature for x in s])
        p = softmax([x / temperature for x in t])
        if kind == "CE":
            teacher += -sum(a * math.log(b) for a, b in zip(p, q, strict=True)) / 2
        elif kind == "KL":
            kl = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / 2
            teacher += kl / 3 if divide_by_classes else kl
        else:
            teacher += sum((a - b) ** 2 for a, b in zip(s, t, strict=True)) / 6 / temperature**2
    return label, temperature**2 * teacher


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("kind", ["CE", "KL", "MSE"])
@pytest.mark.parametrize("compat", [None, "inc"])
def test_golden_values(temperature, kind, compat):
    criterion = KnowledgeDistillation(temperature, ["CE", kind], [0.3, 0.7], compat)
    found = criterion(
        torch.tensor(STUDENT, dtype=torch.float64),
        torch.tensor(TEACHER, dtype=torch.float64),
        torch.tensor(LABELS),
    )
    label, teacher = by_hand(temperature, kind, compat == "inc")
    assert found.item() == pytest.approx(0.3 * label + 0.7 * teacher, rel=1e-12)


def test_compat_inc_is_torchs_kl_div_with_its_default_mean(logits):
    student, teacher = logits
    criterion = KnowledgeDistillation(2.0, ["CE", "KL"], [0.0, 1.0], compat="inc")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = 4 * F.kl_div((student / 2).log_softmax(-1), (teacher / 2).softmax(-1))
    assert_close(criterion(student, teacher, torch.zeros(16, dtype=torch.long)), expected)


def test_rows_without_a_label_count_for_the_teacher_only(logits):
    student, teacher = logits
    labels = torch.full((16,), -100)
    labels[0] = 3
    found = KnowledgeDistillation(1.0, ["CE", "CE"], [0.4, 0.6])(student, teacher, labels)
    soft = F.cross_entropy(student, teacher.softmax(-1))
    assert_close(found, 0.4 * F.cross_entropy(student[:1], labels[:1]) + 0.6 * soft)


def test_a_part_of_weight_zero_is_not_computed(logits):
    student, _ = logits
    labels = torch.arange(16) % 10
    found = KnowledgeDistillation(1.0, ["CE", "KL"], [1.0, 0.0])(
        student, torch.full_like(student, torch.nan), labels
    )
    assert_close(found, F.cross_entropy(student, labels))


def test_numbers_may_be_the_labels(logits):
    student, teacher = logits
    labels = torch.randn(16, 10, dtype=torch.float64)
    found = KnowledgeDistillation(1.0, ["MSE", "MSE"])(student, teacher, labels)
    assert_close(found, 0.5 * F.mse_loss(student, labels) + 0.5 * F.mse_loss(student, teacher))


def test_gradient(logits):
    student, teacher = logits[:, :3]
    student.requires_grad_()
    for kind in ("CE", "KL", "MSE"):
        criterion = KnowledgeDistillation(2.0, ["CE", kind])
        assert torch.autograd.gradcheck(
            lambda s, c=criterion: c(s, teacher, torch.tensor([0, -100, 4])), (student,)
        )


def test_weights_that_do_not_sum_to_one_are_a_warning():
    with pytest.warns(UserWarning, match="sums to 1.5, not to 1"):
        KnowledgeDistillation(loss_weight_ratio=[0.5, 1.0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"loss_types": ["CE"]}, "`loss_types` needs two entries"),
        ({"loss_weight_ratio": [1.0]}, "`loss_weight_ratio` needs two entries"),
        ({"loss_types": ["KL", "CE"]}, r"`loss_types\[0\]` must be one of CE, MSE, got 'KL'"),
        ({"loss_types": ["CE", "KLD"]}, r"`loss_types\[1\]` must be one of .* Did you mean 'KL'"),
        ({"loss_weight_ratio": [-0.5, 1.5]}, "must not be negative"),
        ({"compat": "itrex"}, "`compat` must be null or 'inc', got 'itrex'"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        KnowledgeDistillation(**arguments)


def test_classes_are_no_numbers(logits):
    with pytest.raises(ValueError, match="must be floating point numbers"):
        KnowledgeDistillation(1.0, ["MSE", "CE"])(*logits, torch.arange(16))


def test_two_weights_of_zero_are_refused():
    with pytest.raises(ValueError, match="Both numbers of `loss_weight_ratio` are 0.*nothing to l"):
        KnowledgeDistillation(loss_weight_ratio=[0, 0])
