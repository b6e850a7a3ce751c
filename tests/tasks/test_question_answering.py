"""What a reader of texts learns: two terms of positions, in which padding is nothing."""

from functools import partial

import pytest
import torch
from tiny import loader, trainer
from torch import nn
from transformers import BertConfig, BertForQuestionAnswering

from lightning_distill import distill, DistillationModule, Objective, Term
from lightning_distill.criteria import DIST, HardLabel, Hint, JSD, LogitMSE, SoftTarget
from lightning_distill.tasks import QuestionAnswering
from lightning_distill.teachers import CachedTeacher, CachingTeacher

LENGTHS = [3, 8, 5, 8]
IO = {"student": "student.logits", "teacher": "teacher.logits"}
LABELS = {"student": "student.logits", "labels": "batch.labels"}
TASK = QuestionAnswering()


def reader(width: int, seed: int) -> BertForQuestionAnswering:
    config = BertConfig(
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        vocab_size=60,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return BertForQuestionAnswering(config)


def padded(to: int = 8, unlabelled: int = 0) -> dict:
    """Four rows of which the second token is one of the question."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 60, (4, 8), generator=generator)
    inside = torch.arange(8) < torch.tensor(LENGTHS)[:, None]
    counted = inside.clone()
    counted[:, 1] = False
    labels = torch.tensor([[0, 0], [2, 6], [4, 4], [3, 7]])
    labels[:unlabelled] = -100
    fill = partial(nn.functional.pad, pad=(0, to - 8))
    return {
        "input_ids": fill(ids * inside),
        "attention_mask": fill(inside.long()),
        "answer_mask": fill(counted.long()),
        "labels": labels,
    }


def losses(terms, batch, teacher=None) -> dict[str, float]:
    module = DistillationModule(
        reader(8, 1), teacher or reader(12, 2), Objective(TASK.terms(terms)), task=TASK
    )
    return {name: float(value) for name, value in module.losses(batch).items()}


def rows(model, batch, end: str) -> list:
    """The logits of the positions that count, in float64, and their places, row by row."""
    given = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        logits = model.eval()(**given)[f"{end}_logits"].double()
    counted = batch["answer_mask"].bool()
    return [(row[own], own.nonzero().flatten().tolist()) for row, own in
            zip(logits, counted, strict=True)]  # fmt: skip


def test_all_positions_of_full_rows_are_learnt_as_transformers_does():
    batch = padded()
    batch = {k: v[[1, 3]] for k, v in batch.items() if k != "answer_mask"}
    start, end = batch["labels"].unbind(1)
    model = reader(8, 1).eval()
    expected = model(batch["input_ids"], start_positions=start, end_positions=end).loss
    found = losses({"hard_label": Term(HardLabel(), LABELS)}, batch)
    assert found["hard_label"] == pytest.approx(float(expected), rel=1e-6)
    assert found["loss"] == pytest.approx(float(expected), rel=1e-6)
    both = [found["hard_label_start"], found["hard_label_end"]]
    assert sum(both) / 2 == pytest.approx(float(expected), rel=1e-6) and both[0] != both[1]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_terms_are_means_over_rows_of_what_counts_alone(smoothing):
    batch, temperature = padded(to=12, unlabelled=1), 3.0
    terms = {
        "hard": Term(HardLabel(label_smoothing=smoothing), LABELS),
        "soft": Term(SoftTarget(temperature), IO),
        "mse": Term(LogitMSE(), IO),
    }
    found = losses(terms, batch)
    for place, end in enumerate(("start", "end")):
        hard, soft, mse = [], [], []
        ours, theirs = rows(reader(8, 1), batch, end), rows(reader(12, 2), batch, end)
        for i, ((s, at), (t, _)) in enumerate(zip(ours, theirs, strict=True)):
            p, q = (t / temperature).log_softmax(0), (s / temperature).log_softmax(0)
            soft.append(float((p.exp() * (p - q)).sum()) * temperature**2)
            mse.append(float((s - t).square().mean()))
            if i > 0:
                log = s.log_softmax(0)
                right = at.index(int(batch["labels"][i, place]))
                hard.append(float(-(1 - smoothing) * log[right] - smoothing * log.mean()))
        for name, values in (("hard", hard), ("soft", soft), ("mse", mse)):
            assert found[f"{name}_{end}"] == pytest.approx(sum(values) / len(values), rel=1e-5)


@pytest.mark.parametrize(
    "objective",
    [
        None,
        lambda: {"own": Term(JSD(), IO)},
        lambda: {"own": Term(Hint(), {"student": "student.layer:bert.encoder.layer.0", "teacher":
                             "teacher.layer:bert.encoder.layer.0"}, adapter="linear")},
    ],
    ids=["default", "jsd", "hint"],
)  # fmt: skip
def test_padding_does_not_change_what_a_reader_learns(objective, tmp_path):
    found = []
    for to in (8, 20):
        student = reader(8, seed=1)
        distill(
            student,
            reader(12, seed=2),
            loader([padded(to, unlabelled=1)]),
            objective=None if objective is None else objective(),
            trainer=trainer(tmp_path, max_epochs=3),
            optimizer=lambda groups: torch.optim.SGD(groups, lr=0.5),
        )
        found.append(student.state_dict())
    moved = 0.0
    for name, weight in reader(8, seed=1).state_dict().items():
        torch.testing.assert_close(found[0][name], found[1][name], atol=1e-6, rtol=0)
        moved += float((weight - found[0][name]).abs().sum())
    assert moved > 0.1


def test_answers_of_a_teacher_are_the_same_however_they_come(tmp_path):
    terms = {"soft": Term(SoftTarget(), IO), "hard": Term(HardLabel(), LABELS)}
    batch = padded(to=12)
    live = losses(terms, batch)

    def alone():
        return None

    caching = CachingTeacher(reader(12, 2), tmp_path)
    caching.begin(0, alone, "32-true")
    module = DistillationModule(reader(8, 1), caching, Objective(TASK.terms(terms)), task=TASK)
    module.prepare(batch)
    found = []
    for _ in range(2):
        found.append(module.losses(batch))
        caching.end_epoch(alone)
    with torch.no_grad():
        # What is read from now on is not from its weights.
        caching.model.qa_outputs.weight.zero_()
    found.append(module.losses(batch))
    caching.end(alone)
    cached = CachedTeacher(tmp_path)
    # Of more padding than that with which it was asked.
    found.append(losses(terms, padded(to=15), cached))
    for one in found:
        assert {n: float(v) for n, v in one.items()} == pytest.approx(live, abs=1e-6)
    outputs = cached.answers(batch, [], module)[0]
    expected = TASK.predictions(reader(12, 2).eval()(batch["input_ids"], batch["attention_mask"]))
    counted = batch["attention_mask"].bool()[:, None].expand(4, 2, 12)
    torch.testing.assert_close(TASK.predictions(outputs)[counted], expected[counted])


def test_criteria_that_compare_texts_with_each_other_are_refused():
    with pytest.raises(ValueError, match=r"'own' \(DIST\) compares texts with each other.*logit_m"):
        TASK.terms({"own": Term(DIST(), IO)})


def test_a_label_outside_of_what_counts_is_refused():
    batch = padded()
    batch["labels"][1, 0] = 1
    with pytest.raises(ValueError, match="A label names a position that does not count"):
        losses({"hard": Term(HardLabel(), LABELS)}, batch)


def test_two_models_agree_where_both_ends_that_count_are_the_same():
    student = torch.zeros(2, 2, 4)
    student[:, 0, 1] = student[:, 1, 2] = 1.0
    teacher = student.clone()
    teacher[1, 1, 0] = 2.0
    # Padding of any size.
    teacher[:, :, 3] = 9.0
    mask = {"answer_mask": torch.tensor([[1, 1, 1, 0]] * 2)}
    both = (TASK.measured(predicted, mask) for predicted in (student, teacher))
    assert TASK.agree(*both, 0.0).tolist() == [True, False]
