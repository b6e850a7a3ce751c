"""Learning rates change after steps, after epochs or with a metric, as each scheduler is meant."""

from functools import partial

import lightning as L
import pytest
import torch
from tiny import bert, loader, text_batches, trainer
from torch.optim import lr_scheduler
from torchmetrics.classification import MulticlassAccuracy
from transformers import get_constant_schedule_with_warmup, get_linear_schedule_with_warmup

from lightning_distill import distill, DistillationModule, Objective, Term
from lightning_distill.criteria import HardLabel
from lightning_distill.training.scheduling import Scheduling

LABELS = {"student": "student.logits", "labels": "batch.labels"}
BATCHES = text_batches(4)


class Rates(L.Callback):
    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.seen.append(optimizer.param_groups[0]["lr"])


def fitted(tmp_path, scheduler, metrics=None, validated=True, epochs=3, **options):
    made = DistillationModule(
        bert(1, 8),
        None,
        Objective({"hard_label": Term(HardLabel(), LABELS)}),
        metrics,
        optimizer=partial(torch.optim.SGD, lr=1.0e-3),
        scheduler=scheduler,
    )
    rates = Rates()
    fit = trainer(tmp_path, max_epochs=epochs, callbacks=[rates], **options)
    fit.fit(made, loader(BATCHES), loader(BATCHES) if validated else None)
    return rates.seen, fit


def expected(make, count, per):
    """By hand: torch alone, stepped after every `per` optimizer steps."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    scheduler, seen = make(optimizer), []
    for i in range(count):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (i + 1) % per == 0:
            scheduler.step()
    return seen


BY_EPOCH = {
    "StepLR": partial(lr_scheduler.StepLR, step_size=1, gamma=0.1),
    "MultiStepLR": partial(lr_scheduler.MultiStepLR, milestones=[1, 2]),
    "ExponentialLR": partial(lr_scheduler.ExponentialLR, gamma=0.5),
    "CosineAnnealingLR": partial(lr_scheduler.CosineAnnealingLR, T_max=3),
    "LambdaLR": partial(lr_scheduler.LambdaLR, lr_lambda=lambda epoch: 0.5**epoch),
}
BY_STEP = {
    "OneCycleLR": partial(lr_scheduler.OneCycleLR, max_lr=1e-2),
    "CyclicLR": partial(lr_scheduler.CyclicLR, base_lr=1e-4, max_lr=1e-2, step_size_up=3),
    "of transformers": partial(get_linear_schedule_with_warmup, num_warmup_steps=2),
    "constant": partial(get_constant_schedule_with_warmup, num_warmup_steps=5),
}


@pytest.mark.parametrize("name", BY_EPOCH)
def test_schedulers_of_torch_are_stepped_after_epochs(tmp_path, name):
    seen, _ = fitted(tmp_path, BY_EPOCH[name])
    assert seen == pytest.approx(expected(BY_EPOCH[name], 12, per=4))


@pytest.mark.parametrize("name", BY_STEP)
def test_those_that_are_told_of_steps_are_stepped_after_steps(tmp_path, name):
    length = {"OneCycleLR": {"total_steps": 12}, "of transformers": {"num_training_steps": 12}}
    seen, _ = fitted(tmp_path, BY_STEP[name])
    assert seen == pytest.approx(expected(partial(BY_STEP[name], **length.get(name, {})), 12, 1))


def test_a_factory_may_say_itself_when(tmp_path):
    def make(optimizer):
        scheduler = lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
        return {"scheduler": scheduler, "interval": "step", "frequency": 2}

    step = partial(lr_scheduler.StepLR, step_size=1, gamma=0.5)
    for scheduler in (make, Scheduling(step, {"interval": "step", "frequency": 2})):
        seen, _ = fitted(tmp_path, scheduler)
        assert seen == pytest.approx(expected(step, 12, per=2))


def test_a_plateau_watches_the_first_metric_in_its_direction(tmp_path):
    # Accuracy that stays as it is does not improve, in either direction.
    plateau = partial(lr_scheduler.ReduceLROnPlateau, patience=0, factor=0.1)
    frozen = {"accuracy": MulticlassAccuracy(3)}
    seen, fit = fitted(tmp_path, plateau, frozen)
    (config,) = fit.lr_scheduler_configs
    assert (config.monitor, config.interval, config.scheduler.mode) == (
        "val/accuracy",
        "epoch",
        "max",
    )
    assert seen[0] == 1e-3 and seen[-1] < 1e-3
    _, fit = fitted(tmp_path, plateau)
    (config,) = fit.lr_scheduler_configs
    assert (config.monitor, config.scheduler.mode) == ("val/loss", "min")


def test_a_plateau_is_stepped_as_often_as_it_is_validated(tmp_path):
    plateau = partial(lr_scheduler.ReduceLROnPlateau, patience=0)
    for options in (
        {"check_val_every_n_epoch": 2},
        {"check_val_every_n_epoch": None, "val_check_interval": 6},
    ):
        _, fit = fitted(tmp_path, plateau, epochs=4, **options)
        assert fit.lr_scheduler_configs[0].scheduler.last_epoch in (2, 3)


BAD = {
    "no validation": (lr_scheduler.ReduceLROnPlateau, False, "no validation rows to see it on"),
    "direction": (
        partial(lr_scheduler.ReduceLROnPlateau, mode="max"),
        True,
        r"\(mode='max'\) would watch val/loss, of which less is better. Give it mode='min'",
    ),
    "no scheduler": (lambda optimizer: "cosine", True, "`scheduler` must make a .* got a str"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_would_fail_after_an_epoch_is_refused_before_it(tmp_path, case):
    scheduler, validated, words = BAD[case]
    with pytest.raises(ValueError, match=words):
        fitted(tmp_path, scheduler, validated=validated)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"interval": "batch"}, "must be step or epoch, got 'batch'"), ({"frequency": 0}, "got 0")],
)
def test_settings_are_checked(settings, words):
    with pytest.raises(ValueError, match=words):
        Scheduling(lr_scheduler.StepLR, settings)


def test_in_distill_a_plateau_watches_what_chooses_the_weights(tmp_path):
    fit = trainer(tmp_path, max_epochs=2, enable_checkpointing=True)
    plateau = partial(lr_scheduler.ReduceLROnPlateau, patience=0)
    metrics = {"accuracy": MulticlassAccuracy(3)}
    pair = (loader(BATCHES), loader(BATCHES))
    distill(
        bert(1, 8),
        bert(2, 8),
        pair,
        trainer=fit,
        metrics=metrics,
        scheduler=plateau,
        monitor="val/loss",
    )
    config = fit.lr_scheduler_configs[0]
    assert (config.monitor, config.scheduler.mode) == ("val/loss", "min")
