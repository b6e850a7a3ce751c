"""A student of rounded weights: what is refused, what is said, and that it learns."""

import logging

import pytest
import torch
from tiny import bert, gpt2, loader, text_batches, trainer

pytest.importorskip("torchao", reason="pip install 'lightning-distill[quantization]'")

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.criteria import SoftTarget
from lightning_distill.students import lora, quantized
from lightning_distill.training.usual_training import usual_training


def soft_target():
    inputs = {"student": "student.logits", "teacher": "teacher.logits"}
    return Objective({"soft_target": Term(SoftTarget(1.0), inputs)})


def fit(student, teacher, folder, epochs, rate=3e-4, **options):
    module = DistillationModule(
        student, teacher, soft_target(), optimizer=lambda p: torch.optim.Adam(p, lr=rate)
    )
    run = trainer(folder, max_epochs=epochs, **options)
    run.fit(module, loader(text_batches(8, rows=16)))
    return module


def distance(student, teacher):
    (batch,) = text_batches(1, rows=64, seed=9)
    given = {n: batch[n] for n in ("input_ids", "attention_mask")}
    with torch.no_grad():
        s, t = (m.eval()(**given).logits for m in (student, teacher))
    return float((s - t).square().mean())


@pytest.mark.parametrize(
    ("quantization", "frozen"),
    [("int4_weights", False), ("int4", False), ({"scheme": "int4", "train": "scales"}, True)],
)
def test_it_comes_nearer_to_what_it_was_before_quantisation(quantization, frozen, tmp_path):
    def made():
        dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        return bert(2, 32, seed=3, initializer_range=0.3, **dropout)

    student, teacher = quantized(made(), quantization), made()
    weights = {n: p.detach().clone() for n, p in student.named_parameters()}
    before = distance(student, teacher)
    fit(student, teacher, tmp_path, epochs=6, rate=1e-3 if frozen else 3e-4)
    # On other rows than those that it has seen.
    assert 0 < distance(student, teacher) < 0.7 * before
    changed = {n for n, p in student.named_parameters() if not torch.equal(p, weights[n])}
    scales = {n for n in weights if n.endswith("weight_fake_quantizer.scale")}
    assert (changed == scales) if frozen else (not scales and len(changed) > 20)


def dropped(model):
    return {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)}


def trained(**options):
    model = bert(1, 16, **options)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.01 * torch.randn_like(weight))
    return model


def test_it_learns_without_dropout_unless_its_weights_are_fresh_or_it_is_wanted(caplog):
    assert dropped(trained()) == {0.1}
    with caplog.at_level(logging.INFO):
        assert dropped(quantized(trained(), "int8")) == {0.0}
    assert "dropout is off; student.dropout=true keeps it" in caplog.text
    assert dropped(quantized(trained(), "int8", dropout=True)) == {0.1}
    assert dropped(quantized(bert(1, 16), "int8")) == {0.1}
    assert dropped(quantized(bert(1, 16), "int8", dropout=False)) == {0.0}
    assert dropped(quantized(trained(), None)) == {0.1}
    caplog.clear()
    with caplog.at_level(logging.INFO):
        quantized(trained(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), "int8")
    assert "dropout" not in caplog.text


def test_in_bf16_mixed_it_is_trained_too(tmp_path):
    student = quantized(bert(1, 32), "int8")
    module = fit(student, bert(1, 32), tmp_path, epochs=1, precision="bf16-mixed")
    assert {p.dtype for p in module.student.parameters()} == {torch.float32}


def test_the_log_says_how_much_is_rounded(caplog):
    with caplog.at_level(logging.INFO, logger="lightning_distill"):
        model = quantized(bert(1, 8), "int4")
    every = sum(p.numel() for p in model.parameters())
    # Four of attention, two of the feed-forward part, the pooler's and the head's.
    layers = 4 * 64 + 2 * 8 * 16 + 64 + 3 * 8
    assert caplog.messages == [
        f"Student: {layers:,} of {every:,} weights are rounded to 4 bits, those of 8 linear layers"
    ]


@pytest.mark.parametrize(
    ("make", "given", "words"),
    [
        (lambda: gpt2(1, 8), "int8", "quantization=int8 rounds layers of torch.nn.Linear, and GPT"),
        (lambda: quantized(bert(1, 8), "int8"), "int4", "BertFor.* is quantised already"),
        (lambda: bert(1, 8), "int3", r"`?quantization`? must be int8, .* got 'int3'. Did you mean"),
        (lambda: torch.nn.Conv2d(3, 3, 3), "int4", "and Conv2d has none beside its head. Leave qu"),
    ],
)
def test_what_cannot_be_is_refused(make, given, words):
    with pytest.raises(ValueError, match=words):
        quantized(make(), given)


def test_adapters_are_trained_first():
    pytest.importorskip("peft")
    with pytest.raises(ValueError, match="of this student only adapters are: train these first"):
        quantized(lora(bert(1, 8)), "int8")


def test_scales_alone_are_trained_by_small_steps():
    model = bert(1, 8)
    fresh = usual_training(model)
    scales = usual_training(quantized(model, {"scheme": "int4", "train": "scales"}))
    assert scales.learning_rate < fresh.learning_rate and "only scales" in scales.reason
