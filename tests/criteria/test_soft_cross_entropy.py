import torch
from torch import nn
from torch.testing import assert_close

from lightning_distill.criteria import soft_cross_entropy, soft_target, SoftCrossEntropy


def test_agrees_with_torch_on_probabilities(logits):
    student, teacher = logits
    expected = nn.functional.cross_entropy(student / 3, (teacher / 3).softmax(-1)) * 9
    assert_close(SoftCrossEntropy(3.0)(student, teacher), expected)


def test_it_is_the_divergence_plus_the_teachers_entropy(logits):
    student, teacher = logits
    p = (teacher / 2).softmax(-1)
    entropy = -(p * p.log()).sum(-1) * 4
    both = soft_target(student, teacher, 2.0) + entropy
    assert_close(soft_cross_entropy(student, teacher, 2.0), both)


def test_its_gradient_is_that_of_the_divergence(logits):
    gradients = []
    for function in (soft_cross_entropy, soft_target):
        student = logits[0].clone().requires_grad_()
        function(student, logits[1], 2.0).sum().backward()
        gradients.append(student.grad)
    assert_close(*gradients)


def test_a_class_that_both_rule_out_adds_nothing(logits):
    student, teacher = (x.clone() for x in logits)
    student[:, 0] = teacher[:, 0] = -torch.inf
    expected = soft_cross_entropy(student[:, 1:], teacher[:, 1:])
    assert_close(soft_cross_entropy(student, teacher), expected)
