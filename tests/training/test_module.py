import copy
import math
import signal
import warnings
from functools import partial

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from tiny import Batches, bert, gpt2, loader, text_batches, token_batch, trainer
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForTokenClassification,
    BertLMHeadModel,
    BloomConfig,
    BloomForCausalLM,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from lightning_distill import Agreement, distill, DistillationModule, Objective, Term
from lightning_distill.callbacks import FiniteLoss
from lightning_distill.criteria import (
    FusedLinearCrossEntropy,
    FusedLinearDivergence,
    HardLabel,
    Hint,
    SoftTarget,
    TAID,
)
from lightning_distill.metrics import BitsPerByte, Perplexity
from lightning_distill.models.fingerprint import fingerprint
from lightning_distill.training.preconditions import check_causal, check_shift

LOGITS = {"student": "student.logits", "teacher": "teacher.logits"}
LABELS = {"student": "student.logits", "labels": "batch.labels"}


def hidden(adapter="linear"):
    return Term(
        Hint(),
        {
            "student": "student.hidden_states[-1]",
            "teacher": "teacher.hidden_states[-1]",
            "mask": "batch.attention_mask",
        },
        adapter=adapter,
    )


def module(student, teacher, lr=1e-2, **terms):
    terms = terms or {"hard": Term(HardLabel(), LABELS), "soft": Term(SoftTarget(), LOGITS)}
    return DistillationModule(
        student,
        teacher,
        Objective(terms),
        {"accuracy": MulticlassAccuracy(3, average="micro"), "agreement": Agreement()},
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=lr),
    )


class CallsTrain(L.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        pl_module.train()
        pl_module.apply(lambda m: m.train())


class CallsTrainOfTheTeacher(L.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        pl_module.teacher.train()


class BatchNormTeacher(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3)
        )

    def forward(self, x):
        return self.layers(x)


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_untouched(model, before):
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(m.training for m in model.modules())
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    "callback",
    [
        None,
        lambda: EMAWeightAveraging(decay=0.9),
        lambda: StochasticWeightAveraging(swa_lrs=1e-2, swa_epoch_start=1),
        CallsTrain,
        CallsTrainOfTheTeacher,
    ],
    ids=["plain", "ema", "swa", "train-calls", "train-calls-of-the-teacher"],
)
@pytest.mark.parametrize("kind", ["transformer", "batch-norm"])
def test_the_teacher_is_bit_equal_after_fit(tmp_path, callback, kind, teacher, student):
    if kind == "transformer":
        data, terms = text_batches(6), {}
    else:
        teacher, student = BatchNormTeacher(), nn.Linear(4, 3)
        data = [(torch.randn(8, 4), torch.randint(0, 3, (8,))) for _ in range(6)]
        terms = {"soft": Term(SoftTarget(), LOGITS)}
    before, start = snapshot(teacher), snapshot(student)
    fitted = module(student, teacher, **terms)
    fit = trainer(tmp_path, max_epochs=3, callbacks=[callback()] if callback else [])
    fit.fit(fitted, loader(data), loader(data))
    assert_untouched(teacher, before)
    assert any(not torch.equal(v, start[n]) for n, v in student.state_dict().items())


def test_the_student_trains_in_train_mode_however_it_was_loaded(
    tmp_path, student, teacher, batches
):
    seen = []

    class Watch(L.Callback):
        def on_before_backward(self, trainer, pl_module, loss):
            seen.append(all(m.training for m in pl_module.student.modules()))

    fit = trainer(tmp_path, max_epochs=2, callbacks=[Watch()])
    fit.fit(module(student.eval(), teacher), loader(batches), loader(batches))
    assert seen == [True] * 8


def test_the_dry_run_leaves_modes_buffers_and_randomness_alone(tmp_path, teacher, batches):
    student = bert(1, 8)
    student.bert.embeddings.eval()
    modes = [m.training for m in student.modules()]
    made = module(student, teacher, hint=hidden(), taid=Term(TAID(step=0.1), LOGITS))
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    made.prepare(batches[0])
    assert torch.equal(torch.rand(1), expected)
    assert [m.training for m in student.modules()] == modes
    assert all(p.grad is None for p in student.parameters())
    assert made.objective.terms["taid"].criterion.previous.isnan()


def test_the_teacher_goes_where_the_module_goes(student, teacher):
    made = module(student, teacher).to(torch.float64)
    assert {p.dtype for p in teacher.parameters()} == {torch.float64}
    made.to("meta")
    assert {p.device.type for p in teacher.parameters()} == {"meta"}


def test_the_teacher_is_in_no_optimizer_checkpoint_or_parameter_list(
    tmp_path, student, teacher, batches
):
    fitted = module(student, teacher, hint=hidden(), hard=Term(HardLabel(), LABELS))
    checkpoint = ModelCheckpoint(tmp_path, save_last=True)
    fit = trainer(tmp_path, callbacks=[checkpoint], enable_checkpointing=True)
    fit.fit(fitted, loader(batches), loader(batches))
    saved = torch.load(checkpoint.last_model_path, weights_only=True)
    assert not any("teacher" in name for name in saved["state_dict"])
    assert any("adapters" in name for name in saved["state_dict"])
    assert saved["teacher_fingerprint"] == fingerprint(teacher)
    frozen = {id(p) for p in teacher.parameters()}
    assert not frozen & {id(p) for p in fitted.parameters()}
    groups = fit.optimizers[0].param_groups
    trained = {id(p) for group in groups for p in group["params"]}
    assert trained == {id(p) for p in fitted.parameters()}
    assert all(p.dim() == 1 for p in groups[1]["params"]) and groups[1]["weight_decay"] == 0


def test_a_resumed_run_equals_an_uncut_one(tmp_path, teacher, batches):
    def fresh():
        torch.manual_seed(0)
        student = bert(1, 8, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        return module(student, teacher, hint=hidden(), soft=Term(SoftTarget(), LOGITS))

    whole = fresh()
    trainer(tmp_path, max_epochs=4).fit(whole, loader(batches))
    first, second = fresh(), fresh()
    checkpoint = ModelCheckpoint(tmp_path, save_last=True)
    options = {"callbacks": [checkpoint], "enable_checkpointing": True}
    trainer(tmp_path, max_epochs=2, **options).fit(first, loader(batches))
    trainer(tmp_path, max_epochs=4).fit(second, loader(batches), ckpt_path=tmp_path / "last.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_resuming_with_another_teacher_is_refused(tmp_path, student, teacher, batches):
    checkpoint = ModelCheckpoint(tmp_path, save_last=True)
    fit = trainer(tmp_path, callbacks=[checkpoint], enable_checkpointing=True)
    fit.fit(module(student, teacher), loader(batches))
    other = module(bert(1, 8), bert(3, 16, seed=9))
    with pytest.raises(ValueError, match="trained with another teacher"):
        trainer(tmp_path, max_epochs=2).fit(
            other, loader(batches), ckpt_path=tmp_path / "last.ckpt"
        )


def test_distillation_changes_the_gradient(student, teacher, batches):
    """The system that this one replaces trained without its distillation term, silently."""
    gradients = []
    for weight in (0.0, 1.0):
        made = module(
            student,
            teacher,
            hard=Term(HardLabel(), LABELS),
            soft=Term(SoftTarget(), LOGITS, weight=weight),
        ).eval()
        student.zero_grad()
        made.read_sources(batches[0])
        values, _, _ = made.read_sources(batches[0])
        made.objective(values)["loss"].backward()
        gradients.append(student.classifier.weight.grad.clone())
    assert not torch.allclose(*gradients)


def test_adapters_learn(tmp_path, student, teacher, batches):
    fitted = module(student, teacher, hint=hidden())
    fitted.prepare(batches[0])
    before = fitted.objective.terms["hint"].adapters["0"].linear.weight.clone()
    trainer(tmp_path).fit(fitted, loader(batches))
    assert not torch.equal(fitted.objective.terms["hint"].adapters["0"].linear.weight, before)


def test_padding_does_not_count_in_a_masked_hint(student, teacher, batches):
    made = module(student.eval(), teacher, hint=hidden())
    made.prepare(batches[0])
    longer = dict(batches[0])
    for name, fill in (("input_ids", 0), ("attention_mask", 0)):
        longer[name] = nn.functional.pad(batches[0][name], (0, 5), value=fill)
    losses = [made.objective(made.read_sources(b)[0])["loss"] for b in (batches[0], longer)]
    assert_close(*losses)


def test_the_teacher_is_skipped_when_nothing_reads_it(tmp_path, student, teacher, batches):
    calls = []
    teacher.register_forward_hook(lambda *_: calls.append(1))
    made = DistillationModule(student, teacher, Objective({"hard": Term(HardLabel(), LABELS)}))
    trainer(tmp_path).fit(made, loader(batches), loader(batches))
    assert calls == []


def test_every_term_and_metric_is_logged(tmp_path, student, teacher, batches):
    fit = trainer(tmp_path)
    fitted = module(student, teacher)
    fit.fit(fitted, loader(batches), loader(batches))
    names = {"train/loss", "train/hard", "train/soft", "val/loss", "val/hard", "val/soft"}
    assert names | {"val/accuracy", "val/agreement"} <= set(fit.callback_metrics)
    fit.test(fitted, loader(batches), verbose=False)
    assert {"test/accuracy", "test/agreement", "test/teacher_accuracy"} <= set(fit.callback_metrics)


def test_metrics_are_those_of_a_plain_loop(tmp_path, student, teacher):
    data = text_batches(3)
    data[2]["row"] = torch.tensor([8, 9, -1, -1])
    data[1]["labels"] = torch.tensor([0, -100, 1, 2])
    fit = trainer(tmp_path)
    fit.test(module(student, teacher), loader(data), verbose=False)
    right = total = equal = rows = taught = 0
    for batch in data:
        inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
        with torch.no_grad():
            s, t = student.eval()(**inputs).logits, teacher(**inputs).logits
        for i in range(4):
            if batch["row"][i] < 0:
                continue
            rows += 1
            equal += int(s[i].argmax() == t[i].argmax())
            if batch["labels"][i] >= 0:
                total += 1
                right += int(s[i].argmax() == batch["labels"][i])
                taught += int(t[i].argmax() == batch["labels"][i])
    found = fit.callback_metrics
    assert found["test/accuracy"].item() == pytest.approx(right / total)
    assert found["test/teacher_accuracy"].item() == pytest.approx(taught / total)
    assert found["test/agreement"].item() == pytest.approx(equal / rows)


def test_student_and_teacher_may_take_different_inputs(tmp_path, batches):
    config = DistilBertConfig(
        dim=8, n_layers=1, n_heads=2, hidden_dim=16, vocab_size=60, num_labels=3
    )
    student, teacher = DistilBertForSequenceClassification(config), bert(1, 8, vocab_size=200)
    for batch in batches:
        batch["token_type_ids"] = torch.zeros_like(batch["input_ids"])
        ids = batch["input_ids"] + 100
        batch["teacher"] = {"input_ids": ids, "attention_mask": batch["attention_mask"]}
    made = module(student, teacher)
    assert set(made.student_inputs(batches[0])) == {"input_ids", "attention_mask"}
    assert made.teacher_inputs(batches[0])["input_ids"].min() >= 100
    trainer(tmp_path).fit(made, loader(batches))


def test_the_teachers_labels_are_put_into_the_students_order(student, batches):
    teacher = bert(2, 8)
    student.config.id2label = {0: "bad", 1: "fair", 2: "good"}
    teacher.config.id2label = {0: "good", 1: "bad", 2: "fair"}
    made = module(student, teacher).eval()
    values, _, outputs = made.read_sources(batches[0])
    plain = teacher(**made.teacher_inputs(batches[0])).logits
    assert_close(outputs.logits, plain[:, [1, 2, 0]])
    assert any(torch.equal(v, outputs.logits) for v in values.values())


def test_attentions_are_loaded_eager_when_asked_for(tmp_path, batches):
    student, teacher = bert(1, 8), bert(2, 16)
    assert teacher.config._attn_implementation == "sdpa"
    term = Term(
        nn.MSELoss(), {"input": "student.attentions[-1]", "target": "teacher.attentions[-1]"}
    )
    trainer(tmp_path).fit(module(student, teacher, maps=term), loader(batches))


def test_pairs_of_tensors_are_batches_too(tmp_path):
    data = [(torch.randn(8, 4), torch.randint(0, 3, (8,))) for _ in range(3)]
    made = module(nn.Linear(4, 3), nn.Linear(4, 3))
    trainer(tmp_path).fit(made, loader(data), loader(data))


def test_a_loss_that_is_not_finite_stops_before_the_weights(tmp_path, teacher):
    data = [(torch.randn(8, 4), torch.randint(0, 3, (8,))) for _ in range(3)]
    data[2][0][0] = torch.nan
    student = nn.Linear(4, 3)
    made = module(student, nn.Linear(4, 3))
    with pytest.raises(ValueError, match=r"loss is nan at step 2 .*batch 2.*soft"):
        trainer(tmp_path, callbacks=[FiniteLoss()]).fit(made, loader(data))
    assert all(p.isfinite().all() for p in student.parameters())


def test_schedules_advance_over_the_run(tmp_path, student, teacher, batches):
    from lightning_distill.schedules import Linear

    weight, seen = Linear(0.0, 1.0), []

    class Watch(L.Callback):
        def on_before_backward(self, trainer, pl_module, loss):
            seen.append(round(weight(), 6))

    made = module(
        student, teacher, hard=Term(HardLabel(), LABELS), soft=Term(SoftTarget(), LOGITS, weight)
    )
    trainer(tmp_path, max_epochs=2, callbacks=[Watch()]).fit(made, loader(batches))
    assert seen == [round(i / 7, 6) for i in range(8)]


def test_distill_returns_the_best_student(teacher, batches):
    student = bert(1, 8)
    before = snapshot(student)
    best = distill(
        student,
        teacher,
        (loader(batches), loader(batches)),
        metrics={"accuracy": MulticlassAccuracy(3)},
    )
    assert best is student and not best.training
    assert any(not torch.equal(v, before[n]) for n, v in best.state_dict().items())


def test_distill_restores_the_best_weights_not_the_last(tmp_path, teacher, batches):
    class Worse(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                trainer.optimizers[0].param_groups[0]["lr"] = 5.0

    kept = {}

    class Keep(L.Callback):
        def on_validation_end(self, trainer, pl_module):
            kept[trainer.current_epoch] = snapshot(pl_module.student)

    fit = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        callbacks=[Worse(), Keep()],
        logger=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )
    best = distill(bert(1, 8), teacher, (loader(batches), loader(batches)), trainer=fit)
    for name, value in best.state_dict().items():
        assert torch.equal(value, kept[0][name]), name


def test_a_train_loader_alone_is_enough(tmp_path, teacher, batches):
    fit = trainer(tmp_path, enable_checkpointing=True)
    distill(bert(1, 8), teacher, loader(batches), {"soft": Term(SoftTarget(), LOGITS)}, fit)


def broken(case, student, teacher, batches):
    """Each returns (module, batches) that must be refused before the first step."""
    if case == "same object":
        return module(teacher, teacher), batches
    if case == "shared weights":
        student.bert.embeddings.word_embeddings.weight = nn.Parameter(torch.zeros(60, 8))
        other = copy.deepcopy(student)
        other.classifier.weight = student.classifier.weight
        return module(student, other), batches
    if case == "other classes":
        return module(student, bert(2, 8, num_labels=5)), batches
    if case == "other label names":
        student.config.id2label = {0: "cat", 1: "dog", 2: "cow"}
        teacher.config.id2label = {0: "red", 1: "green", 2: "blue"}
        return module(student, teacher), batches
    if case == "no teacher":
        return module(student, None), batches
    if case == "wrong layer":
        inputs = {"student": "student.layer:bert.pooller", "teacher": "teacher.layer:bert.pooler"}
        return module(student, teacher, hint=Term(Hint(), inputs)), batches
    if case == "layer not run":
        student.unused = nn.Linear(2, 2)
        inputs = {"student": "student.layer:unused", "teacher": "teacher.logits"}
        return module(student, teacher, hint=Term(Hint(), inputs)), batches
    if case == "widths differ":
        return module(student, teacher, hint=hidden(adapter=None)), batches
    if case == "frozen student":
        return module(student.requires_grad_(False), teacher), batches
    if case == "small vocabulary":
        return module(bert(1, 8, vocab_size=10), teacher), batches
    if case == "small teacher vocabulary":
        return module(student, bert(1, 8, vocab_size=10)), batches
    if case == "long rows":
        return module(bert(1, 8, max_position_embeddings=4), teacher), batches
    if case == "nan teacher":
        nn.init.constant_(teacher.classifier.weight, torch.nan)
        return module(student, teacher), batches
    if case == "label out of range":
        batches[0]["labels"][0] = 7
        return module(student, teacher), batches
    if case == "no labels":
        return module(student, teacher), [
            {k: v for k, v in b.items() if k != "labels"} for b in batches
        ]
    if case == "no batch":
        return module(student, teacher), []
    if case == "unknown entries":
        return module(student, teacher), [{"words": b["input_ids"], **b} for b in batches][:0] or [
            {"words": b["input_ids"], "labels": b["labels"]} for b in batches
        ]
    raise KeyError(case)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("same object", "same object; copy.deepcopy"),
        ("shared weights", "share 1 parameters .classifier.weight"),
        ("other classes", "labels|different classes|number of"),
        ("other label names", "cat.*red|red.*cat"),
        ("no teacher", "`teacher` is None"),
        ("wrong layer", "no submodule 'bert.pooller'. Nearest: bert.pooler"),
        ("layer not run", "did not run it in this forward"),
        ("widths differ", "'hint'.*does not work on the first batch"),
        (
            "frozen student",
            "gives the student no gradient|every parameter of the student is frozen",
        ),
        ("small vocabulary", "The student knows 10 token ids, but the batch holds id"),
        ("small teacher vocabulary", "The teacher knows 10 token ids"),
        ("long rows", "reads at most 4 tokens, but the batch has rows of 7"),
        ("nan teacher", "'soft' is nan on the first batch"),
        ("label out of range", "7"),
        ("no labels", "batch.labels is not there"),
        ("no batch", "no batch: it is empty"),
        ("unknown entries", "forward takes input_ids.*but the batch has words"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(
    tmp_path, case, words, student, teacher, batches
):
    steps = []

    class Count(L.Callback):
        def on_train_batch_start(self, *_):
            steps.append(1)

    with pytest.raises(ValueError, match=words):
        made, data = broken(case, student, teacher, batches)
        fit = trainer(tmp_path, callbacks=[Count()])
        fit.fit(made, DataLoader(Batches(data), batch_size=None))
    assert not steps


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_an_id_of_a_later_batch_that_a_model_does_not_have_is_named(tmp_path, role):
    models = {"student": bert(1, 16), "teacher": bert(1, 16, seed=1)}
    models[role] = bert(1, 16, vocab_size=70)
    batches = text_batches(count=3)
    batches[2]["input_ids"][1, 2] = 65
    other = "student" if role == "teacher" else "teacher"
    words = rf"The {other} knows 60 token ids, but the batch holds id 65 in rows \[9\] of input_ids"
    with pytest.raises(ValueError, match=words):
        trainer(tmp_path).fit(module(**models), loader(batches))


def test_no_warning_about_modules_in_eval_mode(tmp_path, student, teacher, batches):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*eval mode.*")
        trainer(tmp_path).fit(module(student, teacher), loader(batches))


def test_terms_of_validation_are_means_over_the_rows_that_count(tmp_path, student, teacher):
    batches = text_batches(3, rows=4)
    batches[0]["labels"][:] = -100
    batches[1]["labels"][1:] = -100
    made = module(student, teacher, hard=Term(HardLabel(), LABELS, weight=2.0))
    fit = trainer(tmp_path, max_epochs=1, limit_train_batches=1)
    fit.fit(made, loader(batches[2:]), loader(batches))
    student.eval()
    losses = []
    with torch.no_grad():
        for batch in batches:
            logits = student(batch["input_ids"], batch["attention_mask"]).logits
            known = batch["labels"] != -100
            losses += nn.functional.cross_entropy(
                logits[known], batch["labels"][known], reduction="none"
            ).tolist()
    assert len(losses) == 5
    expected = sum(losses) / 5
    assert float(fit.callback_metrics["val/hard"]) == pytest.approx(expected, rel=1e-5)
    assert float(fit.callback_metrics["val/loss"]) == pytest.approx(2 * expected, rel=1e-5)


def test_token_terms_of_validation_are_means_over_the_tokens_that_count(tmp_path, batches):
    teacher, student = bert(1, 8, seed=1), bert(1, 8, seed=2)
    batches[0]["attention_mask"][:, 2:] = 0
    fit = trainer(tmp_path, max_epochs=1, limit_train_batches=1)
    fit.fit(module(student, teacher, hint=hidden(None)), loader(batches), loader(batches))
    total = count = 0.0
    student.eval()
    with torch.no_grad():
        for batch in batches:
            inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
            hiddens = [
                m(**inputs, output_hidden_states=True).hidden_states[-1] for m in (student, teacher)
            ]
            values = (hiddens[0] - hiddens[1]).square().mean(-1)[batch["attention_mask"] == 1]
            total, count = total + float(values.sum()), count + len(values)
    assert float(fit.callback_metrics["val/hint"]) == pytest.approx(total / count, rel=1e-5)


class TokenTagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(60, 8), nn.Linear(8, 3)

    def forward(self, input_ids):
        return {"logits": self.head(self.embedding(input_ids))}


def test_every_labelled_token_counts_in_a_metric(tmp_path, batches):
    for batch in batches:
        batch["labels"] = torch.randint(0, 3, (4, 7))
        batch["labels"][:, -1] = -100
    student = TokenTagger()
    fit = trainer(tmp_path)
    fit.fit(module(student, TokenTagger()), loader(batches), loader(batches))
    right = [
        (student(b["input_ids"])["logits"].argmax(-1) == b["labels"])[b["labels"] != -100]
        for b in batches
    ]
    expected = float(torch.cat(right).float().mean())
    assert len(torch.cat(right)) == 4 * 4 * 6
    assert float(fit.callback_metrics["val/accuracy"]) == pytest.approx(expected)


def test_a_part_of_the_student_that_was_put_into_eval_mode_stays_there(tmp_path):
    student = BatchNormTeacher()
    student.train().layers[1].eval()
    before = student.layers[1].running_mean.clone()
    data = [(torch.randn(8, 4), torch.randint(0, 3, (8,))) for _ in range(3)]
    trainer(tmp_path).fit(module(student, BatchNormTeacher()), loader(data), loader(data))
    assert torch.equal(student.layers[1].running_mean, before)
    assert student.layers[2].training


def test_layers_in_another_order_of_labels_are_refused(tmp_path, student, teacher, batches):
    for model, names in ((student, "abc"), (teacher, "cba")):
        model.config.id2label = dict(enumerate(names))
    heads = {"student": "student.layer:classifier", "teacher": "teacher.layer:classifier"}
    with pytest.raises(ValueError, match=r"teacher.layer:classifier has one entry per label, in"):
        trainer(tmp_path).fit(
            module(student, teacher, heads=Term(nn.MSELoss(), {
                "input": heads["student"], "target": heads["teacher"]})),
            loader(batches),
        )  # fmt: skip


def test_an_objective_serves_one_module(tmp_path, student, teacher, batches):
    made = module(student, teacher, hint=hidden())
    made.prepare(batches[0])
    with pytest.raises(ValueError, match="This objective was used before"):
        DistillationModule(bert(1, 4), teacher, made.objective)


@pytest.mark.parametrize("steps", [1, 5, 10, 11, 30])
def test_the_usual_schedule_works_for_few_steps(tmp_path, student, teacher, steps):
    made = DistillationModule(
        student,
        teacher,
        Objective({"soft": Term(SoftTarget(), LOGITS)}),
        scheduler=partial(
            torch.optim.lr_scheduler.OneCycleLR, max_lr=1e-3, pct_start=0.1, cycle_momentum=False
        ),
    )
    before = snapshot(student)
    trainer(tmp_path).fit(made, loader(text_batches(steps)))
    assert any(not torch.equal(v, before[n]) for n, v in student.state_dict().items())


def test_distill_leaves_the_trainer_as_it_was(tmp_path, student, teacher, batches):
    own = ModelCheckpoint(tmp_path / "own", every_n_train_steps=2, save_top_k=-1)
    fit = trainer(tmp_path, callbacks=[own], enable_checkpointing=True)
    before = list(fit.callbacks)
    distill(student, teacher, (loader(batches), loader(batches)), trainer=fit)
    assert fit.callbacks == before
    assert len(list((tmp_path / "own").glob("*.ckpt"))) == 2
    with pytest.raises(ValueError, match=r"has run already \(4 steps\).*make a new one"):
        distill(student, teacher, loader(batches), trainer=fit)


def test_distill_knows_what_can_be_monitored(tmp_path, student, teacher, batches):
    with pytest.raises(
        ValueError, match="must be one of val/acc, val/loss, val/hard_label, val/so"
    ):
        distill(
            student,
            teacher,
            (loader(batches), loader(batches)),
            trainer=trainer(tmp_path),
            metrics={"acc": MulticlassAccuracy(3)},
            monitor="acc",
        )


def test_a_stopped_distill_returns_the_best_so_far(tmp_path, student, teacher, batches, caplog):
    class Stop(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    found = distill(
        student,
        teacher,
        (loader(batches), loader(batches)),
        trainer=trainer(tmp_path, max_epochs=5, callbacks=[Stop()]),
    )
    assert found is student
    assert "stopped by the user" in caplog.text
    assert signal.getsignal(signal.SIGINT) is handler


class AlwaysZero(nn.Module):
    def forward(self, student, teacher):
        return 0.0 * (student - teacher).square().mean()


@pytest.mark.parametrize(
    "criterion", [AlwaysZero(), lambda student, teacher: 0.0 * (student - teacher).mean()]
)
def test_a_term_that_is_always_zero_is_refused(tmp_path, student, teacher, batches, criterion):
    made = module(student, teacher, silent=Term(criterion, LOGITS))
    with pytest.raises(ValueError, match=r"'silent' has a positive weight but gives the student"):
        trainer(tmp_path).fit(made, loader(batches))
    assert made.global_step == 0


def test_a_student_that_starts_as_its_teacher_may_train(tmp_path, batches):
    teacher = bert(1, 8, seed=1)
    made = module(copy.deepcopy(teacher), teacher)
    trainer(tmp_path).fit(made, loader(batches))
    assert made.global_step == 4


def test_a_run_in_which_no_row_has_a_label_stops_after_an_epoch(tmp_path, student, batches):
    for batch in batches:
        batch["labels"] = torch.full((4,), -100)
    made = module(student, None, hard=Term(HardLabel(), LABELS))
    with pytest.raises(ValueError, match="hard was 0 in every step of the first epoch.* a label"):
        trainer(tmp_path, max_epochs=3).fit(made, loader(batches))
    assert made.global_step == 4


def test_a_label_loss_without_labels_beside_a_teacher_is_announced(
    tmp_path, student, teacher, batches, caplog
):
    for batch in batches:
        batch["labels"] = torch.full((4,), -100)
    made = module(student, teacher)
    with caplog.at_level("WARNING", "lightning_distill"):
        trainer(tmp_path, max_epochs=2).fit(made, loader(batches))
    assert made.global_step == 8
    assert caplog.text.count("hard was 0 in every step of the first epoch") == 1


def test_an_average_of_the_weights_holds_the_adapters_too(tmp_path, student, teacher, batches):
    steps = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            steps.append([p.detach().clone() for p in pl_module.parameters()])

    made = module(student, teacher, hard=Term(HardLabel(), LABELS), hint=hidden())
    callbacks = [EMAWeightAveraging(decay=0.5, update_starting_at_step=0), Watch()]
    trainer(tmp_path, callbacks=callbacks).fit(made, loader(batches))
    assert any("adapters" in name for name, _ in made.named_parameters())
    expected = steps[0]
    for step in steps[1:]:
        expected = [0.5 * e + 0.5 * p for e, p in zip(expected, step, strict=True)]
    for found, value in zip(made.parameters(), expected, strict=True):
        assert_close(found, value)


def test_eager_attention_is_announced(teacher, caplog):
    student = bert(1, 8)
    inputs = {"student": "student.attentions[0]", "teacher": "teacher.attentions[0]"}
    with caplog.at_level("INFO", "lightning_distill"):
        module(student, teacher, maps=Term(Hint(), inputs))
    assert (
        caplog.text.count("computes its attention eagerly, which is slower: sdpa returns no") == 2
    )


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("32-true", torch.float32),
        ("bf16-mixed", torch.float32),
        ("bf16-true", torch.bfloat16),
        ("64-true", torch.float64),
    ],
)
def test_adapters_have_the_precision_of_the_student(
    tmp_path, student, teacher, batches, precision, dtype
):
    made = module(student, teacher, hard=Term(HardLabel(), LABELS), hint=hidden())
    trainer(tmp_path, precision=precision).fit(made, loader(batches))
    found = dict(made.objective.named_parameters())
    assert found and {p.dtype for p in found.values()} == {dtype}
    assert made.global_step == 4


def _language_objective(shift):
    inputs = {
        "student": "student.layer_input:lm_head",
        "teacher": "teacher.layer_input:lm_head",
        "student_head": "student.head:lm_head",
        "teacher_head": "teacher.head:lm_head",
        "labels": "batch.labels",
    }
    criterion = FusedLinearDivergence(label_weight=1.0, shift_labels=shift)
    return Objective({"lm": Term(criterion, inputs)})


def _label_objective(_):
    inputs = {"student": "student.logits", "labels": "batch.labels"}
    return Objective({"lm": Term(HardLabel(), inputs)})


def _standing(batch):
    return {**batch, "labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}


@pytest.mark.parametrize(
    ("objective", "shift", "form", "words"),
    [
        (_language_objective, True, dict, "it would learn to skip one"),
        (_language_objective, False, _standing, "it would learn to repeat its input"),
        (_label_objective, None, _standing, "it would learn to repeat its input"),
        (_language_objective, False, dict, None),
        (_language_objective, True, _standing, None),
        (_label_objective, None, dict, None),
    ],
)
def test_labels_beside_the_token_they_are_taken_for_are_refused(objective, shift, form, words):
    batch = form(token_batch([6, 9], [1, 3], seed=0))
    module = DistillationModule(gpt2(1, 8), gpt2(1, 8, seed=1), objective(shift))
    if words is None:
        module.prepare(batch)
        return
    with pytest.raises(ValueError, match=words):
        module.prepare(batch)


def test_labels_of_tokens_that_are_no_tokens_are_left_alone():
    batch = token_batch([6, 9], [1, 3], seed=0)
    batch["labels"] = torch.randint(0, 3, batch["input_ids"].shape)
    module = DistillationModule(gpt2(1, 8), None, _label_objective(None))
    module.prepare(batch)


def test_a_model_that_sees_what_follows_is_refused():
    config = BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    batch = token_batch([6, 9], [1, 3], seed=0)
    seeing = BertLMHeadModel(config)
    with pytest.raises(ValueError, match="student .BertLMHeadModel. sees the tokens that follow"):
        DistillationModule(seeing, None, _label_objective(None)).prepare(batch)
    causal = copy.deepcopy(config)
    causal.is_decoder = True
    DistillationModule(BertLMHeadModel(causal), None, _label_objective(None)).prepare(batch)
    objective = Objective(
        {
            "labels": Term(HardLabel(), {"student": "student.logits", "labels": "batch.labels"}),
            "soft": Term(SoftTarget(), {"student": "student.logits", "teacher": "teacher.logits"}),
        }
    )
    with pytest.raises(ValueError, match="teacher .BertLMHeadModel. sees the tokens that follow"):
        DistillationModule(gpt2(1, 8), seeing, objective).prepare(batch)


def test_what_a_causal_model_says_of_padding_on_the_left_is_no_reason_to_refuse_it():
    # Its padding sees nothing, which becomes everything.
    model = BloomForCausalLM(BloomConfig(vocab_size=40, hidden_size=16, n_layer=1, n_head=2))
    batch = {k: v.flip(1) for k, v in token_batch([6, 9], [1, 1], seed=0).items()}
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    other = inputs["input_ids"].clone()
    other[0, -1] -= 1
    both = [{**inputs, "input_ids": ids} for ids in (batch["input_ids"], other)]
    first = [model(**given).logits[0, 0] for given in both]
    assert (first[0] - first[1]).abs().max() > 1e-5
    check_causal("student", model, inputs)
    with pytest.raises(ValueError, match="sees the tokens that follow"):
        check_causal("student", BertLMHeadModel(BertConfig(vocab_size=40, **_SMALL)), inputs)


_SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}


def _copied(batch):
    return {**batch, "labels": batch["input_ids"]}


def _in_the_last_column(batch):
    return {**batch, "labels": nn.functional.pad(torch.tensor([[1], [2]]), (8, 0), value=-100)}


@pytest.mark.parametrize(
    ("model", "objective", "form"),
    [
        # Of the decoder's text, which may be that of the encoder.
        (
            T5ForConditionalGeneration(
                T5Config(vocab_size=40, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
            ),
            _language_objective,
            _copied,
        ),
        (BertForMaskedLM(BertConfig(vocab_size=40, **_SMALL)), _language_objective, _copied),
        # Nothing follows there, so that it cannot be told.
        (
            BertForTokenClassification(BertConfig(vocab_size=40, **_SMALL)),
            _label_objective,
            _in_the_last_column,
        ),
    ],
    ids=["encoder and decoder", "masked", "tags"],
)
def test_labels_that_are_not_of_what_follows_are_left_alone(model, objective, form):
    batch = form(token_batch([9, 9], [1, 1], seed=0))
    shift = False if objective is _language_objective else None
    assert check_shift(dict(objective(shift).terms.items()), batch, model) is False


def test_labels_that_stand_in_the_last_column_alone_are_refused_too():
    batch = token_batch([9, 9], [1, 1], seed=0)
    batch["labels"] = batch["input_ids"].masked_fill(torch.arange(9) < 8, -100)
    with pytest.raises(ValueError, match="it would learn to repeat its input"):
        check_shift(dict(_language_objective(False).terms.items()), batch, gpt2(1, 8))


@pytest.mark.parametrize("shift", [True, False])
def test_metrics_are_given_the_label_that_a_position_predicts(tmp_path, shift):
    batch = token_batch([6, 9], [1, 3], seed=0)
    sizes = torch.arange(1, batch["labels"].numel() + 1).view_as(batch["labels"])
    given = {**(_standing(batch) if shift else batch), "label_bytes": sizes}
    inputs = {
        "student": "student.layer_input:lm_head",
        "student_head": "student.head:lm_head",
        "labels": "batch.labels",
    }
    objective = Objective({"lm": Term(FusedLinearCrossEntropy(shift_labels=shift), inputs)})
    student = gpt2(1, 8)
    metrics = {"perplexity": Perplexity(), "bits_per_byte": BitsPerByte()}
    module = DistillationModule(student, None, objective, metrics)
    found = trainer(tmp_path).validate(module, loader([given]), verbose=False)[0]
    logits = student(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    labels = batch["labels"]
    if shift:
        labels = nn.functional.pad(_standing(batch)["labels"][:, 1:], (0, 1), value=-100)
        sizes = nn.functional.pad(sizes[:, 1:], (0, 1))
    expected = nn.functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100)
    assert_close(torch.tensor(found["val/perplexity"]), expected.exp())
    assert_close(torch.tensor(found["val/lm"]), expected)
    counted = labels != -100
    bits = expected * counted.sum() / sizes[counted].sum() / math.log(2)
    assert_close(torch.tensor(found["val/bits_per_byte"]), bits)
