import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_distill.criteria import hard_label, HardLabel


def test_cross_entropy_is_minus_the_log_probability_of_the_label(logits):
    student = logits[0]
    labels = torch.arange(16) % 10
    expected = torch.stack([-student[i].softmax(-1)[labels[i]].log() for i in range(16)])
    assert_close(hard_label(student, labels), expected)


def test_rows_without_a_label_do_not_count(logits):
    student = logits[0]
    labels = torch.arange(16) % 10
    labels[::2] = -100
    expected = nn.functional.cross_entropy(student[1::2], labels[1::2])
    assert_close(HardLabel()(student, labels), expected)


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        ("cross_entropy", torch.full((4,), -100)),
        ("binary_cross_entropy", torch.full((4, 3), -100.0)),
        ("mse", torch.full((4, 3), torch.nan)),
    ],
)
def test_no_label_at_all_is_zero_with_a_gradient(kind, labels):
    student = torch.randn(4, 3, requires_grad=True)
    loss = HardLabel(kind)(student, labels)
    loss.backward()
    assert loss == 0 and torch.equal(student.grad, torch.zeros(4, 3))


def test_label_smoothing_mixes_in_the_uniform_distribution(logits):
    student, labels = logits[0], torch.arange(16) % 10
    log_q = student.log_softmax(-1)
    expected = -(0.8 * log_q.gather(-1, labels[:, None])[:, 0] + 0.2 * log_q.mean(-1))
    assert_close(hard_label(student, labels, label_smoothing=0.2), expected)


def test_any_leading_shape(logits):
    student = logits[0].reshape(2, 8, 10)
    labels = (torch.arange(16) % 10).reshape(2, 8)
    flat = hard_label(student.reshape(16, 10), labels.reshape(16))
    assert_close(hard_label(student, labels), flat.reshape(2, 8))


def test_binary_cross_entropy_is_the_mean_over_independent_labels():
    student = torch.randn(5, 3, dtype=torch.float64)
    labels = torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [-100] * 3, [0, 1, 0]]).double()
    p = student.sigmoid()
    expected = -(labels * p.log() + (1 - labels) * (1 - p).log()).mean(-1)
    rows = [0, 1, 2, 4]
    assert_close(hard_label(student, labels, "binary_cross_entropy")[rows], expected[rows])
    assert_close(HardLabel("binary_cross_entropy")(student, labels), expected[rows].mean())


def test_regression_squeezes_the_head_and_leaves_out_nan():
    student = torch.randn(4, 1, dtype=torch.float64)
    labels = torch.tensor([1.0, torch.nan, -3.0, -100.0], dtype=torch.float64)
    rows = [0, 2, 3]
    expected = ((student[rows, 0] - labels[rows]) ** 2).mean()
    assert_close(HardLabel("mse")(student, labels), expected)


@pytest.mark.parametrize("kind", ["cross_entropy", "binary_cross_entropy", "mse"])
def test_gradient(kind):
    student = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    labels = {
        "cross_entropy": torch.tensor([0, -100, 3]),
        "binary_cross_entropy": torch.rand(3, 4, dtype=torch.float64),
        "mse": torch.randn(3, 4, dtype=torch.float64),
    }[kind]
    assert torch.autograd.gradcheck(lambda s: HardLabel(kind)(s, labels), (student,))


@pytest.mark.parametrize(
    ("kind", "student", "labels", "words"),
    [
        (
            "cross_entropy",
            (2, 3),
            torch.tensor([0, 3]),
            "Label 3 does not exist: the student has 3",
        ),
        ("cross_entropy", (2, 3), torch.tensor([0, -1]), "Label -1 does not exist"),
        ("cross_entropy", (2, 3), torch.tensor([0.0, 1.0]), "whole numbers .int64., got torch.fl"),
        ("cross_entropy", (2, 3), torch.tensor([0, 1, 2]), r"without the classes, \(2,\), got \(3"),
        ("binary_cross_entropy", (2, 3), torch.tensor([0, 1]), r"floating point numbers of shape"),
        ("binary_cross_entropy", (1, 2), torch.tensor([[0.0, 2.0]]), "lie between 0 and 1"),
        ("mse", (2, 3), torch.tensor([0.0, 1.0]), r"floating point numbers of shape \(2, 3\)"),
    ],
)
def test_labels_that_do_not_fit_are_refused(kind, student, labels, words):
    with pytest.raises(ValueError, match=words):
        HardLabel(kind)(torch.zeros(student), labels)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "crossentropy"}, "Did you mean 'cross_entropy'"),
        ({"label_smoothing": 1.0}, "at least 0 and below 1, got 1.0"),
        ({"label_smoothing": -0.1}, "at least 0 and below 1"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        HardLabel(**arguments)
