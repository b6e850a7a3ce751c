"""Files of integers: what transformers and torch read is the model as it was trained."""

import pytest
import torch
from tiny import bert, text_batches

pytest.importorskip("torchao", reason="pip install 'lightning-distill[quantization]'")

from lightning_distill.export import (
    compared,
    File,
    in_float,
    Integers,
    Proof,
    read_again,
    write_formats,
)
from lightning_distill.export.fresh_process import Read
from lightning_distill.models.fake_quantization import fake_quantized
from lightning_distill.quantization_schemes import Quantization, SCHEMES

LOADING = {"trusted": False, "model": "BertForSequenceClassification", "processors": []}


def inputs():
    (batch,) = text_batches(1)
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def trained(scheme, train="weights"):
    model = fake_quantized(
        bert(1, 48, seed=3, initializer_range=0.2), Quantization(SCHEMES[scheme], train)
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter *= 1.05
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "train", "kind", "name"),
    [
        ("int4", "scales", "safetensors", "int4/model.safetensors"),
        ("int8", "weights", "torch_export", "model.int8.pt2"),
    ],
)
def test_what_is_read_again_answers_as_it_was_trained(scheme, train, kind, name, tmp_path):
    model = trained(scheme, train)
    proof = Proof.of(model, inputs(), "x")
    integers = Integers.of(proof, scheme)
    plain = Proof.of(in_float(model), inputs(), "x")
    made = write_formats(tmp_path, plain, [kind], scheme, integers)
    file = File(made[kind, scheme], proof.cases(), LOADING)
    (read,) = read_again([(kind, scheme, file)])
    found = compared(kind, scheme, file, read, most=integers.most)
    assert found.difference < 1e-5 and found.size_mb > 0
    assert (found.numbers, found.file) == (scheme, name)


def test_answers_that_are_not_those_of_the_training_are_refused(tmp_path):
    proof = Proof.of(trained("int4"), inputs(), "x")
    (tmp_path / "model.int4.pt2").write_bytes(b"1")
    integers = Integers.of(proof, "int4")
    ours = proof.answers["logits"]
    assert integers.most == 1e-3

    def found(off, most):
        read = Read([{"logits": ours + off}], latency_ms=1.0)
        file = File(tmp_path / "model.int4.pt2", proof.cases()[:1], {})
        return compared("torch_export", "int4", file, read, most=most)

    assert found(5e-4, 1e-3).difference == pytest.approx(5e-4, rel=1e-2)
    with pytest.raises(ValueError, match=r"model.int4.pt2 loads, but its logits differ by 0.05"):
        found(0.05, integers.most)


def test_a_model_of_float32_is_rounded_afterwards_and_may_differ():
    model = bert(1, 32, seed=3, initializer_range=0.2).eval()
    proof = Proof.of(model, inputs(), "x")
    off = {}
    for scheme in ("int8_weights", "int4_weights"):
        integers = Integers.of(proof, scheme)
        assert integers.most is None
        off[scheme] = (integers.plain.answers(inputs())["logits"] - proof.answers["logits"]).abs()
    assert 1e-5 < off["int8_weights"].max() < 0.3 * off["int4_weights"].max()
    assert torch.equal(proof.plain.answers(inputs())["logits"], proof.answers["logits"])
