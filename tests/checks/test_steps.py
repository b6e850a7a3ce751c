"""The first steps tell how long all will take, how far they go, and what the schedule does."""

import math

import lightning as L
import pytest
import torch
from tiny import bert, loader, text_batches, trainer
from torch import nn

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.checks import Level
from lightning_distill.checks.pace import seconds_at, size_of
from lightning_distill.checks.steps import check_steps, FirstSteps
from lightning_distill.criteria import HardLabel

TERM = {"student": "student.logits", "labels": "batch.labels"}


def module(optimizer, scheduler=None) -> DistillationModule:
    student = bert(1, 8, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    objective = Objective({"hard_label": Term(HardLabel(), TERM)})
    return DistillationModule(
        student, None, objective, optimizer=optimizer, scheduler=scheduler, task="classification"
    )


def taken(tmp_path, optimizer, scheduler=None, batches=12, **options) -> FirstSteps:
    first = FirstSteps(0.0)
    own = trainer(tmp_path, callbacks=[first], **{"max_epochs": 3, **options})
    own.fit(module(optimizer, scheduler), loader(text_batches(batches)))
    return first


def levels(first: FirstSteps, rows: int = 48) -> dict[str, Level]:
    return {finding.name: finding.level for finding in check_steps(first, rows, 100.0)}


def test_the_rates_are_those_of_the_whole_run(tmp_path):
    def warm(optimizer, num_training_steps):
        return torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(step / 10, 1 - step / num_training_steps)
        )

    first = taken(tmp_path, lambda p: torch.optim.SGD(p, lr=0.1), warm)
    assert first.total == 36
    assert first.rates == pytest.approx([0.1 * min(i / 10, 1 - i / 36) for i in range(36)])
    # The training itself has ended after a few.
    assert len(first.seconds) < 12


def test_a_step_goes_as_far_as_the_weights_say(tmp_path):
    class Weights(L.Callback):
        def on_train_start(self, trainer, pl_module):
            self.before = (
                nn.utils.parameters_to_vector(pl_module.student.parameters()).detach().clone()
            )

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 0:
                now = nn.utils.parameters_to_vector(pl_module.student.parameters()).detach()
                self.moved = float((now - self.before).norm() / self.before.norm())

    def sgd(parameters):
        return torch.optim.SGD(parameters, lr=0.3)

    first, own = taken(tmp_path, sgd), Weights()
    trainer(tmp_path, callbacks=[own], max_steps=1).fit(module(sgd), loader(text_batches(12)))
    assert first.moved == pytest.approx(own.moved, rel=1e-4)


@pytest.mark.parametrize(
    ("rate", "name", "level"),
    [
        (1e-3, "step.size", Level.RIGHT),
        (5.0, "step.too_far", Level.WRONG),
        (1e-12, "step.nowhere", Level.WRONG),
    ],
)
def test_a_step_may_go_too_far_or_nowhere(tmp_path, rate, name, level):
    first = taken(tmp_path, lambda p: torch.optim.AdamW(p, lr=rate))
    assert levels(first)[name] is level


def test_a_schedule_that_does_not_fit_the_run(tmp_path):
    def cycle(steps):
        return lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=1e-3, total_steps=steps)

    def adam(parameters):
        return torch.optim.AdamW(parameters, lr=1e-3)

    assert levels(taken(tmp_path, adam, cycle(36)))["schedule.rate"] is Level.RIGHT
    assert levels(taken(tmp_path, adam, cycle(3600)))["schedule.longer"] is Level.WARNING
    first = taken(tmp_path, adam, cycle(20))
    assert levels(first)["schedule.ends"] is Level.WRONG
    assert "at step 21 of 36" in first.refused


def test_too_few_steps(tmp_path):
    def sgd(parameters):
        return torch.optim.SGD(parameters, lr=0.1)

    assert levels(taken(tmp_path, sgd))["schedule.steps"] is Level.RIGHT
    few = taken(tmp_path, sgd, max_epochs=-1, max_steps=5)
    assert levels(few)["schedule.few_rows"] is Level.WARNING
    one = taken(tmp_path, sgd, batches=1)
    assert levels(one)["schedule.one_step"] is Level.WARNING


def test_seconds_lie_on_a_line_through_what_was_measured():
    first = FirstSteps()
    first.sizes, first.seconds = [10, 20, 40], [2.0, 3.0, 5.0]
    assert seconds_at(first, 30) == pytest.approx(4.0)
    # Larger batches never take less, and a batch of nothing never less than nothing.
    first.seconds = [5.0, 3.0, 2.0]
    assert seconds_at(first, 30) == pytest.approx(10 / 3)
    first.sizes, first.seconds = [10, 20], [0.0, 30.0]
    assert seconds_at(first, 1) == pytest.approx(1.0)
    first.sizes = [7, 7]
    assert seconds_at(first, 100) == 15


def test_the_size_of_a_batch_is_all_that_it_holds():
    held = {"a": torch.zeros(2, 3), "b": {"c": torch.zeros(4)}, "words": ["x"]}
    assert size_of(held) == 10
    assert math.isnan(FirstSteps().moved)
