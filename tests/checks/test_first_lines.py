"""The first lines of a run say what is so, and change nothing of it."""

import logging
import random
import re
from types import SimpleNamespace
from typing import ClassVar

import lightning as L
import numpy as np
import pytest
import torch
from tiny import Batches, bert, loader, text_batches
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.checks import Finding, first_lines, Level
from lightning_distill.checks.first_lines import FirstLines, Known, ROWS, say_findings
from lightning_distill.criteria import HardLabel, SoftTarget
from lightning_distill.metrics import Agreement
from lightning_distill.teachers import CachingTeacher
from lightning_distill.training.weak_teacher import WeakTeacher

LOGITS = {"student": "student.logits", "teacher": "teacher.logits"}
LABELS = {"student": "student.logits", "labels": "batch.labels"}


class Data(L.LightningDataModule):
    """Six batches to train on in another order each epoch, and four to measure on."""

    num_labels = 3
    label_names: ClassVar = ["a", "b", "c"]

    def train_dataloader(self):
        return DataLoader(Batches(text_batches(6)), batch_size=None, shuffle=True)

    def val_dataloader(self):
        return loader(text_batches(4, seed=1))


class Numbered(Data):
    """The same, with rows that can be asked for by their numbers; every second has no label."""

    def rows(self, split):
        batches = text_batches(6) if split == "train" else text_batches(4, seed=1)
        rows = {name: torch.cat([b[name] for b in batches]) for name in batches[0]}
        if split == "train":
            rows["labels"][::2] = -100
        return rows

    def fingerprint(self):
        return "x"

    def preprocessing(self):
        return {}

    def row_lengths(self):
        return {s: self.rows(s)["attention_mask"].sum(1).tolist() for s in ("train", "validation")}

    def rows_dataloader(self, plan, num_workers=None):
        return loader([{n: v[rows] for n, v in self.rows(s).items()} for s, rows, _ in plan])


def decided(layers, width, seed):
    """A model whose answers differ from row to row."""
    model = bert(layers, width, seed=seed)
    model.bert.embeddings.word_embeddings.weight.data *= 40
    model.classifier.weight.data *= 40
    return model


def fit(caplog, data, with_lines=True, teacher=None, steps=8, **known):
    """What is said in a training, and the weights of the student after it."""
    L.seed_everything(0, verbose=False)
    metrics = {"agreement": Agreement("classification")}
    teacher = teacher or decided(3, 16, seed=1)
    for model in (student := decided(1, 8, seed=2), teacher):
        if hasattr(model, "config"):
            model.config.id2label = dict(enumerate("abc"))
    terms = {"hard_label": Term(HardLabel(), LABELS), "soft_target": Term(SoftTarget(2.0), LOGITS)}
    module = DistillationModule(student, teacher, Objective(terms), metrics, task="classification")
    weak = WeakTeacher(data)
    lines = FirstLines(Known(data, metrics, "agreement", **known), weak)
    trainer = L.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[weak, *([lines] if with_lines else [])],
    )
    caplog.clear()
    with caplog.at_level(logging.INFO, "lightning_distill"):
        trainer.fit(module, datamodule=data)
    said = [r.getMessage() for r in caplog.records if r.name == "lightning_distill"]
    return said, student.state_dict(), module


@torch.no_grad()
def by_hand(rows):
    """Cross-entropy, divergence at temperature 2 and agreement, as they are defined."""
    inputs = {name: rows[name] for name in ("input_ids", "attention_mask")}
    ours = decided(1, 8, seed=2).eval()(**inputs).logits.double()
    theirs = decided(3, 16, seed=1).eval()(**inputs).logits.double()
    labels = rows["labels"]
    cross = sum(-row.log_softmax(-1)[y] for row, y in zip(ours, labels, strict=True)) / len(labels)
    p, q = (theirs / 2).softmax(-1), (ours / 2).softmax(-1)
    divergence = 4 * (p * (p.log() - q.log())).sum(-1).mean()
    return (
        float(cross),
        float(divergence),
        float((ours.argmax(-1) == theirs.argmax(-1)).double().mean()),
    )


@pytest.mark.parametrize("data", [Data, Numbered])
def test_the_start_is_what_the_definitions_give(data, caplog):
    said, *_ = fit(caplog, data())
    (start,) = [line for line in said if line.startswith("Start: ")]
    batches = text_batches(4, seed=1)
    rows = {name: torch.cat([b[name] for b in batches]) for name in batches[0]}
    found = re.fullmatch(
        r"Start: hard_label ([\d.]+), soft_target ([\d.e-]+), agreement ([\d.]+) with the teacher, "
        r"on 16 validation rows",
        start,
    )
    expected = by_hand(rows)
    assert [float(value) for value in found.groups()] == pytest.approx(expected, rel=5e-3)
    # A divergence of 0 would be right of any two models that are the same.
    assert min(expected) > 0


def test_each_thing_is_said_once_and_in_one_line(caplog):
    said, *_ = fit(caplog, Numbered(), steps=44)
    titles = [line.partition(":")[0] for line in said]
    assert titles == ["Teacher", "Parameters", "Both models", "Learnt from", "Start", "Time"]
    count = [sum(p.numel() for p in bert(*size).parameters()) for size in ((1, 8), (3, 16))]
    assert said[1] == f"Parameters: student {count[0]:,}, teacher {count[1]:,}"
    assert said[2] == "Both models: the same 3 labels"
    assert said[3] == "Learnt from: hard_label 50%, soft_target 100% of 24 training rows"
    pace = r"Time: [\d.e-]+ s per step, about \d+ s for all 44 steps, without validation"
    assert re.fullmatch(pace, said[5])


def test_a_bar_in_a_terminal_says_the_time_itself(caplog, monkeypatch, unchecked_types):
    monkeypatch.setattr(first_lines, "get_console", lambda: SimpleNamespace(is_terminal=True))
    pace = FirstLines(Known(Data()))
    pace.seconds, pace.sizes = [1.0] * 60, [1] * 60
    device = SimpleNamespace(root_device=torch.device("cpu"))
    for bar in (object(), None):
        pace._has_said = False
        trainer = SimpleNamespace(progress_bar_callback=bar, strategy=device)
        caplog.clear()
        with caplog.at_level(logging.INFO, "lightning_distill"):
            pace.on_train_batch_end(trainer, None, None, {"x": torch.ones(1)}, 0)
        assert [r.getMessage()[:12] for r in caplog.records] == ([] if bar else ["Time: 1 s pe"])


class Draws(nn.Module):
    """A teacher whose answers draw from all three generators, as careless code does."""

    def __init__(self):
        super().__init__()
        self.model = decided(3, 16, seed=1)

    def forward(self, input_ids, attention_mask):
        random.random(), np.random.rand(), torch.rand(3)
        return self.model(input_ids=input_ids, attention_mask=attention_mask)


@pytest.mark.parametrize("data", [Data, Numbered])
def test_a_training_is_the_same_bit_for_bit(data, caplog):
    said, with_lines, looked = fit(caplog, data(), teacher=Draws())
    assert any(line.startswith("Start: ") for line in said)
    said, without, plain = fit(caplog, data(), with_lines=False, teacher=Draws())
    assert not any(line.startswith("Start: ") for line in said)
    assert all(torch.equal(v, without[n]) for n, v in with_lines.items())
    # What was measured before the first step is no part of what is measured then.
    pairs = [m.metrics["val"]["agreement"].update_count for m in (looked, plain)]
    assert pairs[0] == pairs[1]
    assert not looked.metrics["test"]["agreement"].update_called
    assert looked.is_trying is False and looked.student.training


def test_a_teacher_that_keeps_its_answers_keeps_none_of_these(caplog, tmp_path):
    kept = CachingTeacher(decided(3, 16, seed=1), tmp_path / "kept")
    before = kept.record
    rows = []
    kept.record = lambda *a, **k: rows.append(1) or before(*a, **k)
    fit(caplog, Data(), teacher=kept, steps=1)
    looked = len(rows)
    kept = CachingTeacher(decided(3, 16, seed=1), tmp_path / "other")
    before, rows = kept.record, []
    kept.record = lambda *a, **k: rows.append(1) or before(*a, **k)
    fit(caplog, Data(), with_lines=False, teacher=kept, steps=1)
    assert looked == len(rows)


def test_no_more_rows_are_looked_at_than_it_says(caplog):
    class Many(Data):
        def val_dataloader(self):
            return loader(text_batches(40, rows=8, seed=1))

    said, *_ = fit(caplog, Many())
    assert any(line.endswith(f"on {ROWS} validation rows") for line in said)


def test_models_that_are_compiled_are_not_asked(caplog):
    said, *_ = fit(caplog, Data(), is_compiled=True)
    assert not any(line.startswith("Start: ") for line in said)


@pytest.mark.parametrize("loaders", [[], None])
def test_without_validation_rows_nothing_is_said_of_the_start(loaders, caplog):
    class Without(Data):
        def val_dataloader(self):
            return loaders if loaders is not None else loader([])

    said, *_ = fit(caplog, Without())
    assert not any(line.startswith("Start: ") for line in said)
    assert any(line.startswith("Parameters: ") for line in said)


def test_what_is_wrong_is_a_warning_that_says_what_to_do(caplog):
    with caplog.at_level(logging.INFO, "lightning_distill"):
        say_findings(
            [
                Finding("a", "ids", "are others", Level.WRONG, "Take its own.", "Both: the ids"),
                Finding("b", "labels", "3", brief="Both: the same 3 labels"),
                Finding("c", "pictures", "as ever", brief="Both: the same pictures"),
                Finding("d", "nothing", "to say"),
                Finding("e", "prompt", "unknown", Level.UNKNOWN),
            ]
        )
    found = [(r.levelname, r.getMessage()) for r in caplog.records]
    assert found == [
        ("WARNING", "ids: are others. Take its own."),
        ("INFO", "Both: the same 3 labels, the same pictures"),
    ]


class Broken(Numbered):
    def rows_dataloader(self, plan, num_workers=None):
        raise KeyError("nobody has asked for this before")


def test_data_that_can_be_trained_on_can_do_no_more(caplog):
    said, with_lines, _ = fit(caplog, Broken(), steps=2)
    assert any("First lines: left out, for KeyError: 'nobody has asked" in line for line in said)
    assert not any(line.startswith("Start") for line in said)
    _, without, _ = fit(caplog, Broken(), with_lines=False, steps=2)
    assert all(torch.equal(v, without[n]) for n, v in with_lines.items())


class Pairs(L.LightningDataModule):
    """Batches of inputs and labels without names, as torchvision has them."""

    def train_dataloader(self):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(12, 6, generator=generator)
        return DataLoader(TensorDataset(x, torch.arange(12) % 3), batch_size=4)

    val_dataloader = train_dataloader


def test_batches_that_are_pairs(caplog):
    teacher, student = (nn.Linear(6, 3) for _ in range(2))
    terms = {"hard_label": Term(HardLabel(), LABELS), "mse": Term(SoftTarget(), LOGITS)}
    data = Pairs()
    module = DistillationModule(student, teacher, Objective(terms), task="classification")
    before = student.weight.detach().clone()
    x = next(iter(data.val_dataloader()))[0]
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(max_steps=1, callbacks=[FirstLines(Known(data))], **options)
    with caplog.at_level(logging.INFO, "lightning_distill"):
        trainer.fit(module, datamodule=data)
    assert x.shape == (4, 6) and not torch.equal(before, student.weight)
    lines = [r.getMessage() for r in caplog.records if r.name == "lightning_distill"]
    assert any(line.startswith("Start: hard_label") and "12 validation rows" in line
               for line in lines)  # fmt: skip
