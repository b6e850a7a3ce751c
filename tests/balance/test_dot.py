import copy

import pytest
import torch
from tiny import bert, loader, text_batches, trainer
from torch import nn
from torch.testing import assert_close

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.balance import DOT, PCGrad
from lightning_distill.criteria import HardLabel, SoftTarget


def two_losses(weight, x):
    return (x @ weight).square().mean(), (x @ weight - 1).abs().mean()


def test_it_agrees_with_the_definition():
    torch.manual_seed(0)
    x = torch.randn(6, 4)
    weight = nn.Parameter(torch.randn(4))
    theta = weight.detach().clone()
    optimizer = DOT([weight], lr=0.1, momentum=0.8, delta=0.15, weight_decay=0.01)
    task, teacher = torch.zeros(4), torch.zeros(4)
    for _ in range(4):
        of_labels, of_teacher = two_losses(weight, x)
        optimizer.zero_grad()
        optimizer.keep_task_gradient(of_labels)
        (of_labels + of_teacher).backward()
        optimizer.step()

        other = theta.clone().requires_grad_()
        g_labels, g_teacher = (torch.autograd.grad(v, other)[0] for v in two_losses(other, x))
        task = 0.65 * task + g_labels + 0.01 * theta
        teacher = 0.95 * teacher + g_teacher
        theta = theta - 0.1 * (task + teacher)
        assert_close(weight.detach(), theta)


@pytest.mark.parametrize(("delta", "keep"), [(0.0, True), (0.2, False)])
def test_without_a_difference_or_a_teacher_it_is_sgd_with_momentum(delta, keep):
    torch.manual_seed(0)
    x = torch.randn(6, 4)
    ours = nn.Parameter(torch.randn(4))
    theirs = nn.Parameter(ours.detach().clone())
    optimizer = DOT([ours], lr=0.1, momentum=0.7, delta=delta, weight_decay=0.1)
    reference = torch.optim.SGD([theirs], lr=0.1, momentum=0.7, weight_decay=0.1)
    for _ in range(5):
        for weight, o in ((ours, optimizer), (theirs, reference)):
            o.zero_grad()
            of_labels, of_teacher = two_losses(weight, x)
            if keep and o is optimizer:
                optimizer.keep_task_gradient(of_labels)
            (of_labels + of_teacher).backward()
            o.step()
    assert_close(ours, theirs)


def objective(weight=0.5, balance=None):
    return Objective(
        {
            "hard": Term(HardLabel(), {"student": "student.logits", "labels": "batch.labels"}),
            "soft": Term(
                SoftTarget(2.0),
                {"student": "student.logits", "teacher": "teacher.logits"},
                weight,
            ),
        },
        balance,
    )


def build(**options):
    return lambda groups: DOT(groups, lr=0.2, momentum=0.8, delta=0.15, **options)


def fit(tmp_path, student, teacher, optimizer, batches, **options):
    module = DistillationModule(student, teacher, objective(), optimizer=optimizer)
    trainer(tmp_path, **options).fit(module, loader(batches))
    return student


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_module_tells_labels_and_teacher_apart(tmp_path, clip, accumulate):
    teacher, student = bert(2, 16, seed=1), bert(1, 8, seed=2, hidden_dropout_prob=0.0)
    student.config.attention_probs_dropout_prob = 0.0
    for module in student.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    expected, batches = copy.deepcopy(student), text_batches(4)
    fit(
        tmp_path,
        student,
        teacher,
        build(),
        batches,
        gradient_clip_val=clip,
        accumulate_grad_batches=accumulate,
    )

    parameters = [p for p in expected.parameters() if p.requires_grad]
    states = [[torch.zeros_like(p), torch.zeros_like(p)] for p in parameters]
    terms = objective()
    for i in range(0, 4, accumulate):
        found = [[torch.zeros_like(p), torch.zeros_like(p)] for p in parameters]
        for batch in batches[i : i + accumulate]:
            inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
            logits = expected(**inputs).logits
            of_labels = terms.terms["hard"].criterion(logits, batch["labels"])
            with torch.no_grad():
                answers = teacher(**inputs).logits
            of_teacher = 0.5 * SoftTarget(2.0)(logits, answers)
            for j, loss in enumerate((of_labels, of_teacher)):
                for pair, g in zip(
                    found, torch.autograd.grad(loss, parameters, retain_graph=True), strict=True
                ):
                    pair[j] += g / accumulate
        total = torch.cat([(a + b).flatten() for a, b in found]).norm()
        factor = 1.0 if clip is None else min(1.0, clip / (float(total) + 1e-6))
        with torch.no_grad():
            for p, pair, state in zip(parameters, found, states, strict=True):
                for j, momentum in enumerate((0.65, 0.95)):
                    state[j] = momentum * state[j] + factor * pair[j]
                p -= 0.2 * (state[0] + state[1])
    for ours, theirs in zip(student.parameters(), expected.parameters(), strict=True):
        assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_balance_beside_it_and_clipping_by_value_are_refused(tmp_path):
    teacher, student = bert(2, 16, seed=1), bert(1, 8, seed=2)
    module = DistillationModule(student, teacher, objective(balance=PCGrad()), optimizer=build())
    with pytest.raises(ValueError, match="DOT keeps the gradients of labels and teacher apart"):
        trainer(tmp_path).fit(module, loader(text_batches(2)))
    with pytest.raises(ValueError, match="set trainer.gradient_clip_algorithm=norm"):
        fit(
            tmp_path,
            student,
            teacher,
            build(),
            text_batches(2),
            gradient_clip_val=1.0,
            gradient_clip_algorithm="value",
        )


@pytest.mark.parametrize("options", [{"momentum": 0.95}, {"momentum": 0.05}, {"delta": -0.1}])
def test_momenta_that_cannot_be_are_refused(options):
    with pytest.raises(ValueError, match="must both lie from 0 to below 1, as momenta"):
        DOT([nn.Parameter(torch.zeros(2))], **options)
