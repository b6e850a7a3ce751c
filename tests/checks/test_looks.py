"""Rows, terms, sides and teachers are judged by what is counted, and by stated bounds."""

import copy
import math
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from tiny import bert, loader
from torch import nn

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.checks import Level
from lightning_distill.checks.learnt import check_learnt
from lightning_distill.checks.rows import check_rows
from lightning_distill.checks.sides import check_labels
from lightning_distill.checks.start import check_sizes, check_start, check_temperatures
from lightning_distill.checks.teacher import check_teacher
from lightning_distill.criteria import HardLabel, LogitMSE, SoftTarget
from lightning_distill.models.source import Source
from lightning_distill.tasks import Classification, LanguageModelling
from lightning_distill.teachers import Teacher
from lightning_distill.training.weak_teacher import Measured

LOGITS = {"student": "student.logits", "teacher": "teacher.logits"}
LABELS = {"student": "student.logits", "labels": "batch.labels"}


def level_of(findings) -> dict[str, Level]:
    return {finding.name: finding.level for finding in findings}


class Rows(L.LightningDataModule):
    """Rows that are numbers, in batches of ten."""

    def __init__(self, train, validation):
        super().__init__()
        self.num_labels, self.label_names = 3, ["a", "b", "c"]
        self.given = train, validation

    def loader(self, rows):
        x, y = (torch.tensor([row[i] for row in rows]) for i in (0, 1))
        parts = zip(x.split(10), y.split(10), strict=True)
        return loader([{"input_ids": a[:, None], "labels": b} for a, b in parts])

    def train_dataloader(self):
        return self.loader(self.given[0])

    def val_dataloader(self):
        return self.loader(self.given[1])


class Reads(nn.Module):
    def forward(self, input_ids):
        return input_ids


def rows(train, validation) -> dict[str, Level]:
    return level_of(check_rows(Rows(train, validation), Reads(), Classification()))


TRAIN = [(i, i % 3) for i in range(60)]
OTHERS = [(i, i % 3) for i in range(100, 120)]


@pytest.mark.parametrize(
    ("both", "level"),
    [(0, Level.RIGHT), (1, Level.RIGHT), (2, Level.WARNING), (17, Level.WARNING),
     (18, Level.WRONG), (20, Level.WRONG)],
)  # fmt: skip
def test_rows_in_both_splits_are_counted(both, level):
    validation = [*TRAIN[:both], *OTHERS[both:]]
    assert rows(TRAIN, validation)["rows.in_both"] is level


def test_rows_that_repeat_or_contradict_each_other():
    right = rows(TRAIN, OTHERS)
    assert set(right.values()) == {Level.RIGHT} and "rows.contradict" not in right
    assert rows(TRAIN[:20] * 3, OTHERS)["rows.repeated"] is Level.WARNING
    # Three of sixty rows have another label than their twin: six rows, a tenth.
    unlike = [*TRAIN[:57], *((i, (i + 1) % 3) for i in range(3))]
    assert rows(unlike, OTHERS)["rows.contradict"] is Level.WARNING
    one = [*TRAIN[:59], (0, 1)]
    assert "rows.contradict" not in rows(one, OTHERS)


def test_classes_that_are_missing_or_alone():
    assert rows([(i, 1) for i in range(60)], OTHERS)["labels.constant"] is Level.WRONG
    most = [(i, 0 if i < 58 else 1) for i in range(60)]
    found = rows(most, OTHERS)
    assert found["labels.frequent"] is Level.WARNING
    assert found["labels.not_in_training"] is Level.WARNING
    without = [(i, i % 2) for i in range(100, 115)]
    assert rows(TRAIN, without)["labels.not_in_validation"] is Level.WARNING
    # Of so few rows a class may be missing by chance.
    assert "labels.not_in_validation" not in rows(TRAIN, without[:12])
    unlabelled = [(i, -100 if i % 2 else 1) for i in range(60)]
    assert rows(unlabelled, OTHERS)["labels.constant"] is Level.WRONG


def learnt(labels: list[list[int]], terms: dict, kind=DistillationModule) -> list:
    batches = [
        {"input_ids": torch.ones(len(x), 4, dtype=torch.long),
         "attention_mask": torch.tensor([[1, 1, 1, 0]] * len(x)), "labels": torch.tensor(x)}
        for x in labels
    ]  # fmt: skip
    return list(check_learnt(batches, kind(bert(1, 8), bert(1, 8), Objective(terms)), None))


def test_shares_are_those_that_the_criteria_count():
    hard, soft = Term(HardLabel(), LABELS), Term(SoftTarget(), LOGITS)
    found = learnt([[0, -100, 1, -100], [2, -100, -100, -100]], {"hard": hard, "soft": soft})
    assert [f.found for f in found] == [
        "learns from 3 of 8 rows (37.5%)",
        "learns from 8 of 8 rows (100.0%)",
    ]
    assert {f.level for f in found} == {Level.RIGHT}
    (alone,) = learnt([[0, -100, 1, -100], [2, -100, -100, -100]], {"hard": hard})
    assert alone.level is Level.WARNING
    (nothing,) = learnt([[-100, -100]], {"hard": hard})
    assert nothing.level is Level.WRONG
    # Of tokens there are three in a row.
    (tokens,) = learnt([[[5, -100, 2, -100], [-100] * 4]], {"hard": hard})
    assert tokens.found == "learns from 2 of 6 tokens (33.3%)" and tokens.level is Level.RIGHT


class FirstRows(DistillationModule):
    """A user's own, which learns from some rows of each batch by a mask that it makes."""

    def training_batch(self, batch):
        return {**batch, "first": torch.arange(len(batch["labels"])) < 2}


def test_what_a_module_makes_of_a_batch_is_what_is_counted():
    masked = Term(SoftTarget(), {**LOGITS, "mask": "batch.first"})
    (found,) = learnt([[0, 1, 2, 0], [1, 1, 1]], {"soft": masked}, FirstRows)
    assert found.found == "learns from 4 of 7 rows (57.1%)"


def started(measured: dict, weights=(0.1, 0.9), becomes_sparse=False) -> dict[str, Level]:
    terms = {"hard": Term(HardLabel(), LABELS, weights[0]),
             "soft": Term(SoftTarget(), LOGITS, weights[1])}  # fmt: skip
    return level_of(check_start(measured, Objective(terms), ["agreement"], becomes_sparse))


def test_a_student_that_is_its_teacher():
    equal = {"test/hard": 0.7, "test/soft": 3e-7, "test/agreement": 1.0}
    assert started(equal)["student.is_teacher"] is Level.WRONG
    assert "student.is_teacher" not in started(equal, becomes_sparse=True)
    assert "student.is_teacher" not in started({**equal, "test/soft": 1e-4})


def test_a_part_of_the_loss_that_moves_nothing():
    values = {"test/hard": 0.7, "test/soft": 2.0}
    assert started(values)["term.value"] is Level.RIGHT
    # The last of the two is looked at here.
    assert started(values, (0.1, 3e-6))["term.value"] is Level.WARNING
    assert started(values, (0.1, 5e-6))["term.value"] is Level.RIGHT


def test_temperatures_by_the_entropy_of_the_teacher():
    logits = torch.tensor([[3.0, 1.0, -2.0], [0.5, 0.0, 4.0]], dtype=torch.float64)

    def found(temperature):
        objective = Objective({"soft": Term(SoftTarget(temperature), LOGITS)})
        values = {Source.parse("teacher.logits"): logits}
        return next(iter(check_temperatures(objective, values)))

    p = (logits / 4).exp() / (logits / 4).exp().sum(1, keepdim=True)
    share = float(-(p * p.log()).sum(1).mean()) / math.log(3)
    assert f"is {share:.1%} of the" in found(4.0).found and found(4.0).level is Level.RIGHT
    assert found(100.0).level is Level.WARNING
    objective = Objective({"mse": Term(LogitMSE(), LOGITS)})
    assert not list(check_temperatures(objective, {}))


def test_a_teacher_against_chance():
    def judged(constant=None, task=None, metric=None, rows=100, **measured):
        named = {f"test/teacher_{k}": v for k, v in measured.items()}
        own = task or Classification()
        return list(check_teacher(named, "own", metric, rows, constant, own))

    (good,) = judged(Measured("accuracy", 0.8, 0.5, 100))
    (even,) = judged(Measured("accuracy", 0.5, 0.5, 100))
    (swapped,) = judged(Measured("accuracy", 0.1, 0.5, 100))
    # Two standard errors of a share of one half over 100 rows are 0.1.
    (near,) = judged(Measured("accuracy", 0.59, 0.5, 100))
    assert [f.level for f in (good, even, swapped, near)] == [
        Level.RIGHT, Level.WRONG, Level.WRONG, Level.WARNING,
    ]  # fmt: skip
    assert "another order" in swapped.do and "another order" not in even.do
    (tokens,) = judged(Measured("accuracy", 0.1, 0.5, 100, "tokens"), LanguageModelling())
    assert "another order" not in tokens.do
    (far,) = judged(Measured("mean squared error", 2.0, 1.0, 100))
    (close,) = judged(Measured("mean squared error", 0.5, 1.0, 100))
    assert (far.level, close.level) == (Level.WRONG, Level.RIGHT)

    class PearsonCorrCoef(nn.Module):
        higher_is_better = True

    levels = [judged(metric=PearsonCorrCoef(), own=r)[0].level for r in (0.19, 0.21, -0.9)]
    assert levels == [Level.WRONG, Level.RIGHT, Level.WRONG]
    assert level_of(judged(own=0.0))["teacher.nothing"] is Level.WRONG


def test_labels_of_both_models():
    def found(ours, theirs):
        data = SimpleNamespace(label_names=ours)
        teacher = SimpleNamespace(label_names=theirs)
        return next(iter(check_labels(data, bert(1, 8), teacher, Classification())))

    same, order = found(["a", "b"], ["a", "b"]), found(["a", "b"], ["b", "a"])
    assert "the same in the same order" in same.found and "another order" in order.found
    assert found(["a", "b"], ["LABEL_0", "LABEL_1"]).level is Level.UNKNOWN
    assert "the data does not say" in found(["0", "1"], ["a", "b"]).found


def test_a_student_that_is_larger_than_its_teacher():
    small, large = bert(1, 8), bert(2, 16)
    assert level_of(check_sizes(small, Teacher(copy.deepcopy(large))))["sizes"] is Level.RIGHT
    assert level_of(check_sizes(large, Teacher(small)))["sizes"] is Level.WARNING
    (alone,) = check_sizes(small, None)
    assert alone.found == f"student {sum(p.numel() for p in small.parameters()):,} parameters"
