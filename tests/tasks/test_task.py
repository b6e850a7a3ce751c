from functools import partial

import pytest
import torch
from tiny import bert, loader, text_batches, trainer
from torch import nn
from torchmetrics import MeanSquaredError
from torchmetrics.classification import MultilabelF1Score
from transformers import BertConfig, BertForTokenClassification

from lightning_distill import Agreement, distill, DistillationModule, Objective, Term
from lightning_distill.criteria import HardLabel, Hint, LogitMSE, SoftTarget
from lightning_distill.tasks import (
    Classification,
    infer_task,
    LanguageModelling,
    MultiLabel,
    Ranking,
    Regression,
    Task,
    task_named,
    task_of_architecture,
    task_of_model,
    TASKS,
    TokenClassification,
)

LENGTHS = [3, 8, 5, 6]
IO = {"student": "student.logits", "teacher": "teacher.logits"}


def tagger(width: int, seed: int) -> BertForTokenClassification:
    config = BertConfig(
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        vocab_size=60,
        num_labels=4,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return BertForTokenClassification(config)


def padded(to: int, with_labels: bool = True) -> list[dict]:
    """One batch of 22 tokens, with so many places for each row."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 60, (4, 8), generator=generator)
    tags = torch.randint(0, 4, (4, 8), generator=generator)
    inside = torch.arange(8) < torch.tensor(LENGTHS)[:, None]
    fill = partial(nn.functional.pad, pad=(0, to - 8))
    batch = {
        "input_ids": fill(ids * inside),
        "attention_mask": fill(inside.long()),
        "labels": fill(tags.masked_fill(~inside, -100), value=-100),
    }
    if not with_labels:
        del batch["labels"]
    return [batch]


def sgd(groups):
    return torch.optim.SGD(groups, lr=0.5)


def trained(to: int, tmp_path, objective=None, **more) -> dict:
    student = tagger(8, seed=1)
    distill(
        student,
        tagger(8, seed=2),
        loader(padded(to, **more)),
        objective=None if objective is None else {"own": objective()},
        trainer=trainer(tmp_path, max_epochs=3),
        optimizer=sgd,
    )
    return student.state_dict()


@pytest.mark.parametrize(
    "objective",
    [
        None,
        lambda: Term(LogitMSE(), IO),
        lambda: Term(Hint(), {"student": "student.layer:bert.encoder.layer.0", "teacher":
                              "teacher.layer:bert.encoder.layer.0"}),
    ],
    ids=["default", "logit_mse", "hint"],
)  # fmt: skip
def test_padding_does_not_change_what_a_tagger_learns(objective, tmp_path):
    narrow, wide = trained(8, tmp_path, objective), trained(24, tmp_path, objective)
    for name, weight in narrow.items():
        torch.testing.assert_close(wide[name], weight, atol=1e-6, rtol=0)


def test_nor_without_any_label(tmp_path):
    def make():
        return Term(SoftTarget(), IO)

    narrow = trained(8, tmp_path, make, with_labels=False)
    wide = trained(24, tmp_path, make, with_labels=False)
    for name, weight in narrow.items():
        torch.testing.assert_close(wide[name], weight, atol=1e-6, rtol=0)


def test_the_mean_is_over_tokens_that_count(tmp_path):
    student, teacher = tagger(8, seed=1), tagger(8, seed=2)
    term = Term(SoftTarget(temperature=1.0), IO)
    module = DistillationModule(student, teacher, Objective({"soft": term}))
    run = trainer(tmp_path)
    run.validate(module, loader(padded(24)), verbose=False)
    (batch,) = padded(24)
    inside = batch["attention_mask"].bool()
    del batch["labels"]
    with torch.no_grad():
        q, p = (m.eval()(**batch).logits[inside].log_softmax(-1) for m in (student, teacher))
    assert len(q) == sum(LENGTHS)
    expected = (p.exp() * (p - q)).sum(-1).mean().item()
    assert run.callback_metrics["val/soft"].item() == pytest.approx(expected, rel=1e-4)


def test_a_criterion_that_takes_no_mask_is_refused_where_there_is_padding(tmp_path):
    class Squares(nn.Module):
        def forward(self, student, teacher):
            return (student - teacher).square().mean()

    objective = Objective({"own": Term(Squares(), IO)})
    module = DistillationModule(tagger(8, 1), tagger(8, 2), objective)
    words = "Term 'own' compares logits token by token.*padding.*Squares takes no mask.*SoftTarget"
    with pytest.raises(ValueError, match=words):
        trainer(tmp_path).fit(module, loader(padded(24)))


def test_a_task_of_rows_with_logits_of_tokens_is_refused(tmp_path):
    objective = Objective({"own": Term(SoftTarget(), IO)})
    module = DistillationModule(tagger(8, 1), tagger(8, 2), objective, task="classification")
    with pytest.raises(ValueError, match="the task is classification, which has one label"):
        trainer(tmp_path).fit(module, loader(padded(24)))


def test_a_classifier_gets_no_mask_on_logits_and_that_of_padding_on_layers(tmp_path):
    layer = "layer:bert.encoder.layer.0"
    hint = Term(Hint(), {"student": f"student.{layer}", "teacher": f"teacher.{layer}"})
    objective = Objective({"soft": Term(SoftTarget(), IO), "hint": hint})
    module = DistillationModule(bert(1, 8, 1), bert(1, 8, 2), objective)
    trainer(tmp_path).validate(module, loader(text_batches()), verbose=False)
    assert module.task == Classification()
    masks = {n: t.inputs.get("mask") for n, t in module.objective.terms.items()}
    assert masks["soft"] is None and str(masks["hint"]) == "batch.attention_mask"


@pytest.mark.parametrize("task", [None, "regression"])
def test_several_numbers_are_measured_as_they_are(task, tmp_path):
    torch.manual_seed(0)
    x, y = torch.randn(16, 6), 0.5 + torch.rand(16, 2)
    student = nn.Linear(6, 2)
    term = Term(HardLabel(kind="mse"), {"student": "student.logits", "labels": "batch.labels"})
    metrics = {"mse": MeanSquaredError()}
    module = DistillationModule(student, None, Objective({"own": term}), metrics, task=task)
    run = trainer(tmp_path)
    run.validate(module, loader([(x[:10], y[:10]), (x[10:], y[10:])]), verbose=False)
    expected = (student(x) - y).square().mean().item()
    assert run.callback_metrics["val/mse"].item() == pytest.approx(expected, rel=1e-5)
    cut = (student(x) - y.long()).square().mean().item()
    assert cut != pytest.approx(expected, rel=1e-3)


def test_independent_labels_are_given_as_whole_numbers(tmp_path):
    torch.manual_seed(0)
    x, y = torch.randn(16, 6), (torch.rand(16, 3) > 0.5).float()
    y[3] = -100
    student = nn.Linear(6, 3)
    metrics = {"f1": MultilabelF1Score(num_labels=3)}
    kind = Term(HardLabel(kind="binary_cross_entropy"), {"student": "student.logits",
                "labels": "batch.labels"})  # fmt: skip
    module = DistillationModule(student, None, Objective({"own": kind}), metrics)
    run = trainer(tmp_path)
    run.validate(module, loader([(x, y)]), verbose=False)
    known = torch.arange(16) != 3
    expected = MultilabelF1Score(num_labels=3)(student(x[known]), y[known].long())
    assert run.callback_metrics["val/f1"].item() == pytest.approx(expected.item())
    assert module.task == MultiLabel()


def test_the_task_is_inferred_from_batch_model_and_objective():
    rows = {"input_ids": torch.ones(2, 5), "labels": torch.tensor([0, 1])}
    tags = {"input_ids": torch.ones(2, 5), "labels": torch.ones(2, 5).long()}
    logits = torch.zeros(2, 3)
    assert infer_task(bert(1, 8), rows, logits) == Classification()
    assert infer_task(tagger(8, 1), tags) == TokenClassification()
    from tiny import gpt2

    assert infer_task(gpt2(1, 8), tags) == LanguageModelling()
    numbers = (torch.zeros(2, 4), torch.tensor([0.5, 1.5]))
    assert infer_task(nn.Linear(4, 1), numbers, torch.zeros(2)) == Regression()
    both = torch.tensor([[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    assert infer_task(nn.Linear(4, 3), (torch.zeros(2, 4), both), logits) == MultiLabel()
    # The same numbers, which the objective says are some.
    found = infer_task(nn.Linear(4, 3), (torch.zeros(2, 4), both), logits, "mse")
    assert found == Regression()
    found = infer_task(nn.Linear(4, 3), (torch.zeros(2, 4), both + 0.5), logits)
    assert found == Regression()


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.name)
def test_each_task_is_found_by_its_name_and_by_its_heads(task):
    assert task_named(task.name) is task and task_named(task) is task
    found = task_of_architecture("Bert" + next(iter(task.heads)), task.problem_type)
    # Nothing in a saved model tells a ranking from a regression.
    assert found == (Regression() if task == Ranking() else task)
    assert Agreement(task=task.name).task == task


def test_texts_are_written_by_language_models_and_encoder_decoders_alone():
    # A masked language model predicts ids too, and a run of it says nothing of samples.
    assert {task.name for task in TASKS if task.writes_texts} == {
        "language_modelling",
        "sequence_to_sequence",
    }


def test_an_unknown_name_says_which_there_are():
    with pytest.raises(
        ValueError, match="`task` must be one of classification, .*_target_.*'rated"
    ):
        task_named("rated")


def test_a_saved_class_chooses_its_auto_class():
    classify = Classification()
    assert classify.auto_class() == "AutoModelForSequenceClassification"
    found = classify.auto_class("ViTForImageClassification")
    assert found == "AutoModelForImageClassification"
    # A class for something else does not serve; the task's own says what it lacks.
    assert classify.auto_class("BertForMaskedLM") == "AutoModelForSequenceClassification"
    assert LanguageModelling().auto_class("GPT2LMHeadModel") == "AutoModelForCausalLM"
    assert task_of_model(bert(1, 8, problem_type="regression")) == Regression()


def test_a_tuple_that_begins_with_features_is_refused_with_the_way_out(tmp_path):
    class Both(nn.Linear):
        def forward(self, x):
            return x, super().forward(x)

    objective = Objective({"own": Term(SoftTarget(), IO)})
    module = DistillationModule(Both(6, 3), nn.Linear(6, 3), objective)
    words = r"returns a tuple .*\(4, 6\), \(4, 3\).*Return a dict.*student_forward"
    with pytest.raises(ValueError, match=words):
        trainer(tmp_path).fit(module, loader([(torch.randn(4, 6), torch.tensor([0, 1, 2, 0]))]))


class Twice(Task):
    """A task of one's own: numbers that agree within a tenth of each other."""

    name = "twice"
    label_kind = "mse"
    metrics = ("mean_squared_error",)

    def agree(self, student, teacher, tolerance):
        return (student - teacher).abs() < 0.1


def test_a_task_of_ones_own_is_asked():
    metric = Agreement(task=Twice())
    metric.update(torch.tensor([1.0, 2.0]), torch.tensor([1.05, 2.5]))
    assert metric.compute() == 0.5
    assert Twice() == Twice() and Twice() != Classification()
