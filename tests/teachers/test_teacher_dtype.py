"""A teacher in bfloat16 teaches a float32 student, whatever the term and the precision."""

import pytest
import torch
from tiny import bert, loader, text_batches, trainer

from lightning_distill import Agreement, DistillationModule, Objective, Term
from lightning_distill.criteria import (
    AttentionKL,
    AttentionMSE,
    CosineHidden,
    Hint,
    JSD,
    LogitMSE,
    MiniLMRelation,
    PKT,
    RKD,
    SimilarityPreserving,
    SoftTarget,
    SRD,
)

LOGITS = {"student": "student.logits", "teacher": "teacher.logits"}
HIDDEN = {
    "student": "student.layer:bert.encoder.layer.0",
    "teacher": "teacher.layer:bert.encoder.layer.1",
    "mask": "batch.attention_mask",
}
ATTENTIONS = {
    "student": "student.attentions[0]",
    "teacher": "teacher.attentions[1]",
    "mask": "batch.attention_mask",
}
POOLED = {"student": "student.layer:bert.pooler", "teacher": "teacher.layer:bert.pooler"}


def terms():
    return {
        "soft_target": Term(SoftTarget(), LOGITS),
        "logit_mse": Term(LogitMSE(), LOGITS),
        "jsd": Term(JSD(), LOGITS),
        "hint": Term(Hint(), HIDDEN, adapter="linear"),
        "cosine_hidden": Term(CosineHidden(), HIDDEN, adapter="linear"),
        "attention_mse": Term(AttentionMSE(), ATTENTIONS),
        "attention_kl": Term(AttentionKL(), ATTENTIONS),
        "relation": Term(MiniLMRelation(relation_heads=2), HIDDEN),
        "rkd": Term(RKD(), POOLED),
        "pkt": Term(PKT(), POOLED),
        "similarity": Term(SimilarityPreserving(), POOLED),
        "srd": Term(SRD(), POOLED),
    }


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_every_kind_of_term_learns_what_a_float32_teacher_teaches_it(tmp_path, precision):
    losses = {}
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        teacher = bert(2, 16, seed=1).to(dtype)
        module = DistillationModule(
            bert(1, 8, seed=2), teacher, Objective(terms()), {"agreement": Agreement()}
        )
        run = trainer(tmp_path, precision=precision, max_steps=1)
        run.fit(module, loader(text_batches()), loader(text_batches(1)))
        losses[dtype] = {
            name: float(value)
            for name, value in run.callback_metrics.items()
            if name.startswith("train/")
        }
        run.test(module, loader(text_batches(1)), verbose=False)
        assert {p.dtype for p in teacher.parameters()} == {dtype}
        trained = [*module.student.parameters(), *module.objective.parameters()]
        assert {p.dtype for p in trained} == {torch.float32}
    exact, rough = losses.values()
    assert len(exact) == len(terms()) + 1
    for name, value in exact.items():
        # bfloat16 keeps three digits.
        assert rough[name] == pytest.approx(value, rel=0.05, abs=2e-3), name
