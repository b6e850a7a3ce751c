"""Language models in the module: only tokens that count, in parts, the same on every rank."""

import copy

import naive
import pytest
import torch
from tiny import loader, trainer
from torch import nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy
from transformers import AutoModelForCausalLM, GPT2Config

from lightning_distill import Agreement, DistillationModule, Objective, Term
from lightning_distill.criteria import HardLabel, SoftTarget
from lightning_distill.metrics import BitsPerByte, ForwardKL, Perplexity, ReverseKL, Samples

LABELS = {"student": "student.logits", "labels": "batch.labels"}


def gpt2(vocabulary: int = 50, seed: int = 0, width: int = 16):
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=32,
        n_embd=width,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
        # So that its distributions differ from each other.
        model.transformer.wte.weight.data.mul_(30)
    return model


def language_batches() -> list[dict]:
    """Uneven rows, padded; prompts without labels; repeats; a batch in which nothing counts."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for i, (rows, tokens) in enumerate([(4, 9), (2, 5), (3, 13), (2, 4)]):
        ids = torch.randint(1, 50, (rows, tokens), generator=generator)
        mask = torch.ones(rows, tokens, dtype=torch.long)
        mask[::2, -2:] = 0
        labels = ids.roll(-1, 1)
        labels[:, -1] = -100
        labels[(mask == 0) | (mask.roll(-1, 1) == 0)] = -100
        labels[-1, :2] = -100
        sizes = torch.randint(1, 6, (rows, tokens), generator=generator)
        row = torch.arange(rows) + 10 * i
        batches.append(
            {
                "input_ids": ids,
                "attention_mask": mask,
                "labels": labels,
                "label_bytes": sizes.where(labels != -100, 0),
                "row": row,
            }
        )
    batches[1]["row"][1] = -1
    batches[3]["labels"][:] = -100
    return batches


def metrics() -> dict[str, Metric]:
    return {
        "perplexity": Perplexity(),
        "bits_per_byte": BitsPerByte(),
        "forward_kl": ForwardKL(),
        "reverse_kl": ReverseKL(),
        "agreement": Agreement(),
    }


def module(student, teacher, measured=None) -> DistillationModule:
    objective = Objective({"hard": Term(HardLabel(), LABELS)})
    return DistillationModule(student, teacher, objective, measured or metrics())


def expected(student, teacher, batches) -> dict[str, float]:
    parts = []
    with torch.no_grad():
        for batch in batches:
            inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
            logits = [model.eval()(**inputs).logits for model in (student, teacher)]
            labels = batch["labels"].clone()
            labels[batch["row"] < 0] = -100
            parts.append((*logits, labels, batch["label_bytes"]))
    return naive.measured(parts)


@pytest.mark.parametrize(
    ("sizes", "dtype", "at_once"),
    [
        ((50, 50), torch.float32, 2**23),
        ((50, 50), torch.bfloat16, 200),
        ((50, 57), torch.float32, 200),
        ((57, 50), torch.bfloat16, 2**23),
    ],
)
def test_metrics_are_those_of_a_loop_over_the_tokens_that_count(
    tmp_path, monkeypatch, sizes, dtype, at_once
):
    monkeypatch.setattr("lightning_distill.metrics.samples.AT_ONCE", at_once)
    student, teacher = gpt2(sizes[0], seed=1).to(dtype), gpt2(sizes[1], seed=2).to(dtype)
    data = language_batches()
    wanted = expected(student, teacher, data)
    test = trainer(tmp_path)
    test.test(module(student, teacher), loader(data), verbose=False)
    found = {k: float(v) for k, v in test.callback_metrics.items()}
    for name, value in wanted.items():
        assert found[f"test/{name}"] == pytest.approx(value, rel=1e-5), name
    assert 0 < wanted["agreement"] < 1


def test_logits_are_never_copied_whole(monkeypatch):
    monkeypatch.setattr("lightning_distill.metrics.samples.AT_ONCE", 200)
    seen = []

    class Watch(Perplexity):
        def update(self, predicted, labels):
            seen.append(tuple(predicted.shape))
            super().update(predicted, labels)

    batch = language_batches()[0]
    for samples in Samples.of(batch, torch.zeros(4, 9, 50), metrics=[Watch()]):
        samples.feed(Watch())
    assert max(seen) == (4, 50) and len(seen) > 4
    assert sum(n for n, _ in seen) == int((batch["labels"] != -100).sum())


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_an_epoch_in_which_no_token_counts_has_no_value(tmp_path):
    data = language_batches()[3:]
    test = trainer(tmp_path)
    test.test(module(gpt2(seed=1), gpt2(seed=2)), loader(data), verbose=False)
    for name in ("perplexity", "teacher_perplexity", "bits_per_byte", "forward_kl", "agreement"):
        assert test.callback_metrics[f"test/{name}"].isnan()


def test_any_metric_of_classes_is_given_tokens(tmp_path):
    student, data = gpt2(seed=1).eval(), language_batches()
    measured = {"accuracy": MulticlassAccuracy(50, average="micro")}
    test = trainer(tmp_path)
    test.test(module(student, None, measured), loader(data), verbose=False)
    right = total = 0
    for batch in data:
        inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
        counted = (batch["labels"] != -100) & (batch["row"] >= 0).unsqueeze(1)
        right += int((student(**inputs).logits.argmax(-1) == batch["labels"])[counted].sum())
        total += int(counted.sum())
    assert float(test.callback_metrics["test/accuracy"]) == pytest.approx(right / total)


def test_without_labels_what_is_no_padding_is_compared():
    batch = {k: v for k, v in language_batches()[0].items() if k != "labels"}
    metric = Agreement()
    student, teacher = torch.zeros(4, 9, 50), torch.zeros(4, 9, 50)
    teacher[..., 3] = 1
    student[..., 3] = batch["attention_mask"]
    for samples in Samples.of(batch, student, teacher, metrics=[metric]):
        samples.feed(metric)
    assert int(metric.total) == int(batch["attention_mask"].sum())
    assert float(metric.compute()) == 1


def with_own_tokens(batches: list[dict], labels: bool) -> list[dict]:
    """The teacher reads other ids, and two more of them."""
    found = []
    for batch in batches:
        own = {k: nn.functional.pad(v, (0, 2)) for k, v in batch.items() if k != "row"}
        own["input_ids"] = (own["input_ids"] * 7) % 57
        own["labels"] = nn.functional.pad(batch["labels"], (2, 0), value=-100)
        own["label_bytes"] = nn.functional.pad(batch["label_bytes"] + 1, (2, 0))
        if not labels:
            del own["labels"], own["label_bytes"]
        found.append({**batch, "teacher": own})
    return found


@pytest.mark.parametrize("labels", [True, False])
def test_a_teacher_with_tokens_of_its_own_is_measured_on_its_own_labels(tmp_path, labels):
    student, teacher = gpt2(50, seed=1), gpt2(57, seed=2)
    data = with_own_tokens(language_batches(), labels)
    measured = {"perplexity": Perplexity(), "bits_per_byte": BitsPerByte()}
    test = trainer(tmp_path)
    test.test(module(student, teacher, measured), loader(data), verbose=False)
    found = {k: float(v) for k, v in test.callback_metrics.items()}
    of_student = expected(student, student, data)
    assert found["test/perplexity"] == pytest.approx(of_student["perplexity"], rel=1e-5)
    assert ("test/teacher_perplexity" in found) == labels
    if labels:
        own = [{**batch["teacher"], "row": batch["row"]} for batch in data]
        of_teacher = expected(teacher, teacher, own)
        for name in measured:
            assert found[f"test/teacher_{name}"] == pytest.approx(of_teacher[name], rel=1e-5)


@pytest.mark.parametrize("stage", ["fit", "test"])
def test_tokens_of_two_tokenizers_are_not_compared(tmp_path, stage):
    data = with_own_tokens(language_batches(), labels=True)
    made = module(gpt2(50, seed=1), gpt2(57, seed=2))
    words = r"forward_kl, reverse_kl, agreement compare .* token by token.*tokens of its own"
    runner = trainer(tmp_path)
    with pytest.raises(ValueError, match=words):
        if stage == "fit":
            runner.fit(made, loader(data), loader(data))
        else:
            runner.test(made, loader(data), verbose=False)
    assert runner.global_step == 0


def test_padded_heads_are_no_other_classes(tmp_path, unchecked_types):
    data = language_batches()
    made = module(gpt2(50, seed=1), gpt2(57, seed=2))
    fit = trainer(tmp_path)
    fit.fit(made, loader(data), loader(data))
    assert float(fit.callback_metrics["val/forward_kl"]) > 0
    inputs = {"student": "student.logits", "teacher": "teacher.logits"}
    soft = Objective({"soft": Term(SoftTarget(), inputs)})
    unfit = DistillationModule(gpt2(50, seed=1), gpt2(57, seed=2), soft)
    with pytest.raises(ValueError, match=r"'soft'.*same shape.*50\) and .*57\)"):
        trainer(tmp_path).fit(unfit, loader(data))


def test_a_metric_says_which_entry_it_wants(tmp_path):
    data = language_batches()
    for batch in data:
        del batch["label_bytes"]
    words = "BitsPerByte reads the entry 'label_bytes'.*batch has input_ids, attention_mask"
    with pytest.raises(ValueError, match=words):
        trainer(tmp_path).test(module(gpt2(), gpt2(seed=2)), loader(data), verbose=False)


def test_labels_that_fit_neither_rows_nor_tokens_are_refused():
    batch = {"labels": torch.zeros(2, 4, dtype=torch.long)}
    (samples,) = Samples.of(batch, torch.zeros(2, 3, 5))
    words = r"each row or for each token.*\(2, 3, 5\).*\(2, 4\)"
    with pytest.raises(ValueError, match=words):
        samples.feed(Perplexity())


def test_a_term_and_a_metric_of_one_name_are_refused():
    inputs = {"student": "student.logits", "teacher": "teacher.logits"}
    objective = Objective({"reverse_kl": Term(SoftTarget(), inputs)})
    with pytest.raises(ValueError, match="reverse_kl is the name of a term and of a metric"):
        DistillationModule(gpt2(), gpt2(seed=2), objective, metrics())


def test_a_batch_is_left_as_it_was():
    batch = language_batches()[0]
    before = copy.deepcopy(batch)
    for samples in Samples.of(batch, torch.zeros(4, 9, 50), metrics=metrics().values()):
        samples.feed(Perplexity())
    assert all(torch.equal(batch[k], before[k]) for k in before)


def test_agreement_is_that_of_the_modules_task(tmp_path):
    """Independent labels agree by their signs, whatever is largest."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        student, teacher = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
        x, y = torch.randn(8, 2), torch.randint(0, 2, (8, 3)).float()
    terms = {"hard": Term(HardLabel("binary_cross_entropy"), LABELS)}
    module = DistillationModule(student, teacher, Objective(terms), {"agreement": Agreement()})
    (found,) = trainer(tmp_path).test(module, loader([(x, y)]))
    equal = ((student(x) > 0) == (teacher(x) > 0)).all(-1).float().mean()
    assert found["test/agreement"] == pytest.approx(equal.item())
    assert equal != (student(x).argmax(-1) == teacher(x).argmax(-1)).float().mean()
    assert Agreement().task is None and Agreement("regression").task.name == "regression"
