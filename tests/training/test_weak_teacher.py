"""A teacher that is no better than a constant answer is noticed before the first step."""

import logging

import lightning as L
import pytest
import torch
from tiny import Batches
from torch import nn
from torch.utils.data import DataLoader

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.criteria import LogitMSE
from lightning_distill.training.weak_teacher import Measured, WeakTeacher

ROWS = 90
X = torch.randn(ROWS, 6, generator=torch.Generator().manual_seed(0))
TRUTH = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))


class Logits(nn.Module):
    """A linear model with its weights, whose answers do not depend on the mode."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight.clone())

    def forward(self, x):
        return {"logits": x @ self.weight}


class Data(L.LightningDataModule):
    def __init__(self, labels):
        super().__init__()
        self.batches = [
            {"x": x, "labels": y} for x, y in zip(X.split(30), labels.split(30), strict=True)
        ]

    def train_dataloader(self):
        return DataLoader(Batches(self.batches), batch_size=None, shuffle=True)

    def val_dataloader(self):
        return DataLoader(Batches(self.batches), batch_size=None)


def fit(caplog, teacher, labels, task, callbacks=True):
    L.seed_everything(0, verbose=False)
    terms = {"mse": Term(LogitMSE(), {"student": "student.logits", "teacher": "teacher.logits"})}
    student = Logits(torch.zeros_like(teacher.weight))
    module = DistillationModule(student, teacher, Objective(terms), task=task)
    data = Data(labels)
    trainer = L.Trainer(
        max_steps=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[WeakTeacher(data)] if callbacks else [],
    )
    caplog.clear()
    with caplog.at_level(logging.INFO, "lightning_distill"):
        trainer.fit(module, datamodule=data)
    said = [r for r in caplog.records if r.message.startswith("Teacher: ")]
    return said, student.weight.detach()


CLASSES = (X @ TRUTH).argmax(-1)
MOST = int(CLASSES.bincount().max()) / ROWS


def test_a_good_teacher_gets_a_line_and_a_bad_one_a_warning(caplog):
    (said,), _ = fit(caplog, Logits(TRUTH), CLASSES, "classification")
    assert said.levelname == "INFO"
    assert f"accuracy 1 on {ROWS} validation rows" in said.message
    assert f"the most frequent label gives {MOST:.4g}" in said.message
    (said,), _ = fit(caplog, Logits(-TRUTH), CLASSES, "classification")
    assert said.levelname == "WARNING"
    assert "nothing to teach: is it trained" in said.message


def test_rows_without_a_label_do_not_count(caplog):
    labels = CLASSES.clone()
    labels[::3] = -100
    (said,), _ = fit(caplog, Logits(TRUTH), labels, "classification")
    assert f"accuracy 1 on {ROWS * 2 // 3} validation rows" in said.message


def test_a_regression_is_compared_with_the_mean(caplog):
    numbers = (X @ TRUTH[:, :1]).squeeze(-1)
    (said,), _ = fit(caplog, Logits(TRUTH[:, :1]), numbers, "regression")
    spread = float(numbers.var(unbiased=False))
    assert said.levelname == "INFO"
    assert f"the mean gives {spread:.4g}" in said.message
    (said,), _ = fit(caplog, Logits(-TRUTH[:, :1]), numbers, "regression")
    assert said.levelname == "WARNING"


def test_looking_at_the_teacher_does_not_change_the_training(caplog):
    _, with_look = fit(caplog, Logits(TRUTH), CLASSES, "classification")
    said, without = fit(caplog, Logits(TRUTH), CLASSES, "classification", callbacks=False)
    assert not said and torch.equal(with_look, without)


@pytest.mark.parametrize(
    ("name", "teacher", "weak"),
    [
        ("accuracy", 0.4, True),
        ("accuracy", 0.5, True),
        ("accuracy", 0.6, False),
        ("mean squared error", 0.4, False),
        ("mean squared error", 0.6, True),
    ],
)
def test_no_better_is_weak(name, teacher, weak):
    assert Measured(name, teacher, 0.5, 10).is_weak is weak
