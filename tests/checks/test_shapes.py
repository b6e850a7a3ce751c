"""debug=true prints what every source is like, and which terms read it."""

import io

import lightning as L
import torch
from rich.console import Console
from tiny import bert, gpt2, loader, text_batches, token_batch, trainer
from torch import nn
from torchmetrics import MeanMetric

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.checks.shapes import Row, show_rows, ShowsShapes
from lightning_distill.criteria import (
    AttentionMSE,
    FusedLinearDivergence,
    HardLabel,
    Hint,
    SoftTarget,
)
from lightning_distill.metrics import FromSources

LOGITS = {"student": "student.logits", "teacher": "teacher.logits"}
LABELS = {"student": "student.logits", "labels": "batch.labels"}
HARD = Term(HardLabel(), LABELS)


def rows_of(terms, student, teacher, batch, tmp_path, metrics=None, **options):
    module = DistillationModule(student, teacher, Objective(terms), metrics, **options)
    shows = ShowsShapes()
    trainer(tmp_path, callbacks=[shows], fast_dev_run=True).fit(module, loader([batch] * 2))
    return {row.source: (row.shape, row.dtype, row.read_by) for row in shows.rows}


def test_a_classifier(tmp_path, capsys):
    """By the shapes that were given: 4 rows of 7 tokens, widths 8 and 16, 3 classes."""
    hidden = {"student": "student.hidden_states[-1]", "teacher": "teacher.layer:bert.encoder"}
    terms = {
        "hard": Term(HardLabel(), LABELS),
        "soft": Term(SoftTarget(), LOGITS),
        "hint": Term(Hint(), {**hidden, "mask": "batch.attention_mask"}, adapter="linear"),
    }
    student, teacher = bert(1, 8), bert(3, 16)
    found = rows_of(terms, student, teacher, text_batches(1)[0], tmp_path)
    assert found == {
        "batch.labels": ("4", "int64", "hard"),
        "batch.attention_mask": ("4 x 7", "int64", "hint"),
        "batch.input_ids": ("4 x 7", "int64", ""),
        "batch.row": ("4", "int64", ""),
        "student.logits": ("4 x 3", "float32", "hard, soft"),
        "student.hidden_states[-1]": ("4 x 7 x 8", "float32", "hint"),
        "student.hidden_states": ("2 of 4 x 7 x 8", "float32", ""),
        "teacher.logits": ("4 x 3", "float32", "soft"),
        "teacher.layer:bert.encoder": ("4 x 7 x 16", "float32", "hint"),
        "teacher.hidden_states": ("4 of 4 x 7 x 16", "float32", ""),
    }
    shown = capsys.readouterr().out
    assert "student: BertForSequenceClassification" in shown
    assert all(name in shown for name in found)


def test_attentions_are_there_where_a_term_reads_them(tmp_path):
    maps = {"student": "student.attentions[0]", "teacher": "teacher.attentions[2]"}
    terms = {"maps": Term(AttentionMSE(), {**maps, "mask": "batch.attention_mask"})}
    found = rows_of(terms, bert(1, 8), bert(3, 16), text_batches(1)[0], tmp_path)
    assert found["teacher.attentions[2]"] == ("4 x 2 x 7 x 7", "float32", "maps")
    assert found["student.attentions"] == ("1 of 4 x 2 x 7 x 7", "float32", "")
    found = rows_of({"hard": HARD}, bert(1, 8), None, text_batches(1)[0], tmp_path)
    assert "student.attentions" not in found and "student.hidden_states" in found
    assert not any(name.startswith("teacher") for name in found)


def test_a_language_model_whose_logits_are_not_made(tmp_path):
    inputs = {
        "student": "student.layer_input:lm_head",
        "teacher": "teacher.layer_input:lm_head",
        "student_head": "student.head:lm_head",
        "teacher_head": "teacher.head:lm_head",
        "labels": "batch.labels",
    }
    terms = {"fused": Term(FusedLinearDivergence(label_weight=1.0), inputs)}
    batch = token_batch([9, 6], [2, 2], seed=0)
    found = rows_of(terms, gpt2(1, 8), gpt2(2, 16), batch, tmp_path)
    assert found["student.head:lm_head"] == ("40 x 8", "float32", "fused")
    assert found["teacher.layer_input:lm_head"] == ("2 x 9 x 16", "float32", "fused")
    assert found["teacher.logits"] == ("2 x 9 x 40", "float32", "")


class Pair(nn.Module):
    """A model that returns a tensor and takes one."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.body(x).relu())


def test_models_that_return_a_tensor_and_batches_that_are_pairs(tmp_path):
    terms = {"hard": Term(HardLabel(), LABELS), "soft": Term(SoftTarget(), LOGITS)}
    batch = (torch.randn(4, 6), torch.tensor([0, 1, 2, 0]))
    metric = {"similar": FromSources(MeanMetric(), {"value": "student.layer:body"})}
    found = rows_of(terms, Pair(), Pair(), batch, tmp_path, metric)
    assert found["student.logits"] == ("4 x 3", "float32", "hard, soft")
    assert found["student.layer:body"] == ("4 x 5", "float32", "metric similar")
    assert found["batch.labels"] == ("4", "int64", "hard")


def test_several_shapes_and_long_names_are_whole_in_80_columns():
    rows = [
        Row("student.layer:vit.encoder.layer.0.attention.output.dense", "2 x 8 x 96, 4", "int64"),
        Row("batch.labels", "2", "int64", "a_term_with_a_long_name, and_another_one"),
    ]
    out = io.StringIO()
    show_rows(rows, "Stage 1 of 2", Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines) and "Stage 1 of 2" in lines[0]
    width = next(line.index("shape") for line in lines if "shape" in line)
    first = "".join(line[:width].strip() for line in lines)
    assert "student.layer:vit.encoder.layer.0.attention.output.dense" in first


def test_the_training_is_the_same_as_without(tmp_path):
    weights = []
    for callbacks in ([ShowsShapes()], []):
        L.seed_everything(0, verbose=False)
        student = bert(1, 8, seed=2)
        terms = {"hard": Term(HardLabel(), LABELS), "soft": Term(SoftTarget(), LOGITS)}
        module = DistillationModule(student, bert(3, 16, seed=1), Objective(terms))
        fit = trainer(tmp_path, callbacks=callbacks, max_steps=2)
        fit.fit(module, loader(text_batches(2)))
        weights.append(student.state_dict())
    assert all(torch.equal(v, weights[1][n]) for n, v in weights[0].items())
