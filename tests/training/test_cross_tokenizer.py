"""A student learns from a teacher that reads the same text with another tokenizer."""

import pytest
import torch
from tiny import loader, trainer
from tokenizers_of_text import byte_level, texts, unigram
from transformers import GPT2Config, GPT2LMHeadModel

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.criteria import ALM, ULD
from lightning_distill.data import TokenAlignment


def gpt2(tokenizer, width, seed):
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=64, n_embd=width, n_layer=2, n_head=2
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GPT2LMHeadModel(config)


SPANS = {"student_spans": "batch.spans", "teacher_spans": "batch.teacher[spans]"}
LABELS = {"student_labels": "batch.labels", "teacher_labels": "batch.teacher[labels]"}
LOGITS = {"student": "student.logits", "teacher": "teacher.logits"}
TERMS = {
    "uld": lambda: Term(ULD(), {**LOGITS, **SPANS}),
    "alm": lambda: Term(ALM(), {**LOGITS, **LABELS, **SPANS}, weight=100.0),
}


@pytest.fixture(scope="module")
def tokenizers():
    return byte_level(), unigram()


@pytest.fixture(scope="module")
def batches(tokenizers):
    aligned = TokenAlignment(*tokenizers, max_length=48, teacher_max_length=48)
    rows = [t for t in texts() if len(t) > 80]
    return [aligned(rows[i : i + 4]) for i in range(0, 16, 4)]


@pytest.fixture(scope="module")
def teacher(tokenizers, batches):
    """One that has learnt a little, so that there is something to learn from it."""
    model = gpt2(tokenizers[1], 32, seed=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for batch in batches * 8:
        own = batch["teacher"]
        logits = model(input_ids=own["input_ids"], attention_mask=own["attention_mask"]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), own["labels"].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


@pytest.mark.parametrize("name", TERMS)
def test_a_student_of_another_tokenizer_comes_nearer(name, tokenizers, batches, teacher, tmp_path):
    student = gpt2(tokenizers[0], 16, seed=2)
    module = DistillationModule(
        student,
        teacher,
        Objective({name: TERMS[name]()}),
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=3e-3),
    )
    run = trainer(tmp_path, max_epochs=5)
    before = run.validate(module, loader(batches), verbose=False)[0][f"val/{name}"]
    run.fit(module, loader(batches))
    after = run.validate(module, loader(batches), verbose=False)[0][f"val/{name}"]
    assert after < 0.8 * before


def test_it_learns_what_the_teacher_finds_likely_and_not_only_that_it_is_sure(
    tokenizers, batches, teacher, tmp_path
):
    """Spans that the teacher likes become likelier, without a label having been used as one."""

    def correlation(model):
        found = []
        for batch in batches:
            logs = []
            for net, side in ((model, batch), (teacher, batch["teacher"])):
                with torch.no_grad():
                    logits = net(side["input_ids"], attention_mask=side["attention_mask"]).logits
                label = side["labels"].clamp(min=0)[..., None]
                log = logits.log_softmax(-1).gather(-1, label).squeeze(-1)
                sums = torch.zeros(len(log), 64)
                logs.append(
                    sums.scatter_add(1, side["spans"].clamp(min=0), log * (side["spans"] >= 0))
                )
            both = (logs[0] != 0) & (logs[1] != 0)
            found.append(torch.stack([x[both] for x in logs]))
        return torch.corrcoef(torch.cat(found, 1))[0, 1].item()

    student = gpt2(tokenizers[0], 16, seed=2)
    before = correlation(student)
    module = DistillationModule(
        student,
        teacher,
        Objective({"alm": TERMS["alm"]()}),
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-2),
    )
    trainer(tmp_path, max_epochs=6).fit(module, loader(batches))
    assert correlation(student) > before + 0.1
