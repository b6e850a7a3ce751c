"""Sparse answers reach a criterion from a cache as they were written, and from a live teacher."""

import lightning as L
import pytest
import torch
from tiny import loader, trainer
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.cache import TopK
from lightning_distill.criteria import FusedLinearSampled, FusedLinearTopK
from lightning_distill.models.source import Source
from lightning_distill.teachers import CachedTeacher, CachingTeacher

INPUTS = {
    "student": "student.layer_input:lm_head",
    "teacher": "teacher.sparse:logits",
    "student_head": "student.head:lm_head",
    "labels": "batch.labels",
}


def gpt(width, seed):
    # Without dropout: nothing but the answers differs.
    sizes = {"vocab_size": 60, "n_positions": 16, "n_embd": width, "n_layer": 1, "n_head": 2}
    torch.manual_seed(seed)
    return GPT2LMHeadModel(GPT2Config(**sizes, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)).eval()


def teacher():
    found = gpt(16, 1)
    with torch.no_grad():
        found.lm_head.weight.mul_(20)
    return found


def batches():
    generator = torch.Generator().manual_seed(0)
    found = []
    for n in (7, 9, 8):
        ids = torch.randint(1, 60, (4, n), generator=generator)
        mask = (torch.arange(n) < torch.tensor([n, 3, 5, n - 1])[:, None]).long()
        labels = ids.roll(-1, 1).masked_fill(mask.roll(-1, 1) == 0, -100)
        labels[:, -1] = -100
        rows = torch.tensor([0, 1, 2, -1])
        found.append({"input_ids": ids, "attention_mask": mask, "labels": labels, "row": rows})
    return found


def module_of(teacher, criterion):
    objective = Objective({"sparse": Term(criterion, INPUTS)})
    optimizer = lambda groups: torch.optim.AdamW(groups, lr=5e-3)  # noqa: E731
    return DistillationModule(gpt(8, 2), teacher, objective, None, optimizer)


class Logged(L.Callback):
    def __init__(self):
        self.found = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.found.append({k: float(v) for k, v in trainer.callback_metrics.items()})


def trained(folder, teacher, criterion):
    logged = Logged()
    module = module_of(teacher, criterion)
    loop = trainer(folder, max_epochs=2, callbacks=[logged], limit_val_batches=3)
    loop.fit(module, loader(batches()), loader(batches()))
    validated = loop.validate(module, loader(batches()), verbose=False)[0]
    return [f["train/loss"] for f in logged.found], logged.found, validated


def undecoded(monkeypatch):
    def decode(self, fields, shape):
        raise AssertionError("whole logits")

    monkeypatch.setattr(TopK, "decode", decode)


def test_top_k_of_a_live_teacher_and_of_a_cache_teach_the_same(tmp_path, monkeypatch):
    undecoded(monkeypatch)
    live = trained(tmp_path, teacher(), FusedLinearTopK(6, 2.0))
    options = {"logits": "top_k", "k": 6, "temperature": 2.0}
    keeping = CachingTeacher(teacher(), tmp_path / "kept", **options)
    kept = trained(tmp_path, keeping, FusedLinearTopK(6, 2.0))
    cached = trained(
        tmp_path, CachedTeacher(tmp_path / "kept"), FusedLinearTopK(k=1, temperature=2)
    )
    for losses, logged, validated in (kept, cached):
        assert losses == pytest.approx(live[0], abs=1e-5)
        assert validated == pytest.approx(live[2], abs=1e-5)
        for one, other in zip(logged, live[1], strict=True):
            mass = one["train/sparse_retained_mass"]
            assert mass == pytest.approx(other["train/sparse_retained_mass"], abs=1e-5)
            assert 0.1 < mass < 0.99
    # It is written without padding.
    (store,) = [CachedTeacher(tmp_path / "kept").store]
    assert store.answers["logits"].per_token
    assert store.answers["logits"].encoding == TopK(6, 2.0)


def test_the_mass_that_is_logged_is_of_the_tokens_that_count(tmp_path):
    (batch, *_) = batches()
    with torch.no_grad():
        logits = teacher()(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = logits.softmax(-1).topk(6).values.sum(-1)[batch["labels"] != -100].mean().item()
    logged = Logged()
    loop = trainer(tmp_path, max_epochs=1, callbacks=[logged], limit_train_batches=1)
    loop.fit(module_of(teacher(), FusedLinearTopK(6)), loader([batch]))
    assert logged.found[0]["train/sparse_retained_mass"] == pytest.approx(expected, abs=1e-5)


def test_drawn_classes_of_a_cache_are_the_same_in_every_epoch(tmp_path):
    keeping = CachingTeacher(teacher(), tmp_path / "kept", logits="sampled", draws=5)
    module = module_of(keeping, FusedLinearSampled(5))
    trainer(tmp_path, max_epochs=1).fit(module, loader(batches()))
    cached = CachedTeacher(tmp_path / "kept")
    found = []
    for _ in range(2):
        module = module_of(cached, FusedLinearSampled())
        _, values = cached.answers(batches()[0], [Source.parse("teacher.sparse:logits")], module)
        (answer,) = values.values()
        found.append(answer)
    assert (found[0]["classes"] == found[1]["classes"]).all()
    assert answer["kind"] == "sampled" and answer["vocabulary"] == 60
    mask = batches()[0]["attention_mask"]
    # The counts of a token are its draws; padding has none.
    assert (answer["counts"].sum(-1) == 5 * mask).all()
    found = trained(tmp_path, cached, FusedLinearSampled())
    again = trained(tmp_path, cached, FusedLinearSampled())
    assert found[0] == again[0]


def test_what_the_cache_keeps_otherwise_is_refused_before_the_first_step(tmp_path):
    def kept(name, **options):
        keeping = CachingTeacher(teacher(), tmp_path / name, **options)
        inputs = {"student": "student.logits", "teacher": "teacher.logits"}
        term = Term(Masked(), inputs | {"mask": "batch.attention_mask"})
        module = DistillationModule(gpt(8, 2), keeping, Objective({"masked": term}))
        trainer(tmp_path, max_epochs=1).fit(module, loader(batches()))
        return CachedTeacher(tmp_path / name)

    cases = {
        ("full", ()): r"reads teacher.logits as top_k at temperature 1, and the cache .* keeps full"
        r"\. Keep what it reads, with job.logits=top_k job.temperature=1",
        ("sampled", ()): r"as top_k at temperature 1, and the cache .* keeps sampled at 1",
        (
            "top_k",
            ("temperature",),
        ): r"as top_k at temperature 1, and the cache .* keeps top_k at 3",
    }
    for (logits, hot), words in cases.items():
        options = {"logits": logits, "k": 4, "draws": 4} | dict.fromkeys(hot, 3.0)
        module = module_of(kept(logits, **options), FusedLinearTopK())
        with pytest.raises(ValueError, match=words):
            module.prepare(batches()[0])


def test_a_teacher_that_would_keep_them_otherwise_is_refused_too(tmp_path):
    keeping = CachingTeacher(teacher(), tmp_path / "kept", logits="top_k", temperature=2.0)
    words = r"'sparse' reads .* as sampled at temperature 1, and this teacher keeps top_k at 2\. "
    with pytest.raises(ValueError, match=words + r".* teacher.logits=sampled teacher.temperat"):
        module_of(keeping, FusedLinearSampled()).prepare(batches()[0])


class Masked(nn.Module):
    def forward(self, student, teacher, mask):
        return (student - teacher).square().mean(-1)[mask != 0].mean()


@pytest.mark.parametrize(
    "text", ["student.sparse:logits", "teacher.sparse:", "teacher.sparse:a[0]"]
)
def test_a_malformed_sparse_source_is_refused(text):
    with pytest.raises(ValueError, match=r"one output of the teacher, as in teacher.sparse:logits"):
        Source.parse(text)
    assert str(Source.parse("teacher.sparse:logits")) == "teacher.sparse:logits"
