"""How far what was written may be from what was there."""

import contextlib

import pytest
import torch
from tiny import bert, gpt2, text_batches
from transformers import BertConfig, BertModel

from lightning_distill.export import (
    compared,
    File,
    formats,
    Integers,
    Proof,
    read_again,
    write_formats,
)
from lightning_distill.export.fresh_process import PROGRAMS, Read
from lightning_distill.export.plain import axes, Plain
from lightning_distill.export.proof import largest_difference, widened
from lightning_distill.export.torch_program import in_eager_attention, traced
from lightning_distill.models.pooling import Dense, give_dense


def inputs(rows: int = 4) -> dict[str, torch.Tensor]:
    (batch,) = text_batches(1, rows)
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def test_the_largest_difference_is_that_of_any_number():
    ours = {"a": torch.tensor([1.0, -8.0]), "b": torch.tensor([[0.5, -torch.inf]])}
    theirs = {"a": torch.tensor([1.0, -8.4]), "b": torch.tensor([[0.7, -torch.inf]])}
    # An encoder's states come beside the answers of a model that writes.
    absolute, relative = largest_difference({**theirs, "more": torch.ones(2)}, ours)
    assert absolute == pytest.approx(0.4) and relative == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"b": torch.zeros(2)}, "returns b and not a"),
        ({"a": torch.zeros(1)}, r"a has shape \(1,\), not \(2,\)"),
        ({"a": torch.tensor([0.0, torch.nan])}, "a is not finite"),
    ],
)
def test_what_is_no_answer_of_the_model_is_refused(found, words):
    with pytest.raises(ValueError, match=words):
        largest_difference(found, {"a": torch.zeros(2)})


def test_the_other_inputs_have_another_number_of_rows_and_tokens():
    shapes = {n: tuple(v.shape) for n, v in widened(inputs()).items()}
    assert shapes == {"input_ids": (5, 6), "attention_mask": (5, 6)}
    assert widened({"x": torch.ones(1, 1)})["x"].shape == (2, 2)
    assert widened({"x": torch.ones(2, 3, 4, 4)})["x"].shape == (3, 3, 4, 4)
    # Of one row a trace would think that there is always one.
    assert Proof.of(bert(1, 8).eval(), inputs(1), "x").example()["input_ids"].shape == (2, 7)


def test_rows_and_tokens_are_free_and_the_sides_of_pictures_are_not():
    given = {"decoder_input_ids": torch.ones(2, 3), **inputs(), "pixel_values": torch.ones(2, 3, 4)}
    tokens = {0: "batch", 1: "sequence"}
    assert axes(given) == {
        "decoder_input_ids": {0: "batch", 1: "decoder_sequence"},
        "input_ids": tokens,
        "attention_mask": tokens,
        "pixel_values": {0: "batch"},
    }


def test_vectors_are_pooled_mapped_and_of_length_1():
    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=60)
    model = give_dense(BertModel(config).eval(), Dense(8, 3, activation="tanh"))
    given = inputs()
    found = Plain(model, tuple(given), "mean,normalised").answers(given)
    with torch.no_grad():
        hidden = model(**given).last_hidden_state.double()
    mask = given["attention_mask"].double()[..., None]
    vectors = (hidden * mask).sum(1) / mask.sum(1)
    linear = model.sentence_dense.linear.double()
    vectors = torch.tanh(vectors @ linear.weight.T + linear.bias)
    vectors = vectors / (vectors**2).sum(1, keepdim=True).sqrt()
    assert list(found) == ["last_hidden_state", "sentence_embedding"]
    torch.testing.assert_close(found["sentence_embedding"], vectors.detach().float())


def test_files_with_other_answers_are_refused_but_those_in_int8(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"12345")
    (tmp_path / "model.int8.onnx").write_bytes(b"1")
    ours = {"logits": torch.tensor([[1.0, 20.0]])}
    near, far = ({"logits": torch.tensor([[1.0, 20.0 + x]])} for x in (0.001, 0.01))

    def found(numbers, name, answers, same=None):
        read = Read([answers], latency_ms=1.0)
        return compared("onnx", numbers, File(tmp_path / name, [({}, ours)], {}), read, same)

    written = found("float32", "model.onnx", near)
    assert (written.size_mb, written.latency_ms) == (5e-6, 1.0)
    assert written.difference == pytest.approx(0.001, rel=1e-2)
    with pytest.raises(ValueError, match=r"model.onnx loads, but its logits differ by 0\.01"):
        found("float32", "model.onnx", far)
    assert found("int8", "model.int8.onnx", far, lambda *_: 0.75).same_predictions == 0.75
    nothing = {"logits": torch.tensor([[1.0, torch.nan]])}
    with pytest.raises(ValueError, match=r"int8.onnx is read by onnxruntime, but .* not finite"):
        found("int8", "model.int8.onnx", nothing)


def test_a_model_without_linear_layers_is_not_said_to_be_in_int8():
    given = inputs()
    proof = Proof.of(gpt2(1, 8, vocabulary=60).eval(), given, "x")
    with pytest.raises(ValueError, match=r"GPT2LMHeadModel has none beside its head\. Set job"):
        Integers.of(proof, "int8")


def test_int8_and_written_out_attention_leave_the_model_as_it_is():
    pytest.importorskip("torchao")
    model, given = bert(1, 8).eval(), inputs()
    proof = Proof.of(model, given, "x")
    eager, small = in_eager_attention(proof), Integers.of(proof, "int8").plain
    assert in_eager_attention(Proof.of(eager.model, given, "x")) is None
    after = proof.plain.answers(given)["logits"]
    assert torch.equal(after, proof.answers["logits"])
    torch.testing.assert_close(eager.answers(given)["logits"], after)
    assert 0 < (small.answers(given)["logits"] - after).abs().max() < 0.1


@pytest.mark.parametrize(
    ("attention", "refusals", "found"),
    [("sdpa", 0, ["sdpa"]), ("sdpa", 1, ["sdpa", "eager"]), ("eager", 1, ["eager"])],
)
def test_onnx_is_tried_again_with_attention_written_out(
    attention, refusals, found, tmp_path, monkeypatch
):
    model, tried = bert(1, 8).eval(), []
    model.set_attn_implementation(attention)

    def write(program, proof, path):
        tried.append(program.model.config._attn_implementation)
        if len(tried) <= refusals:
            raise ValueError("no ONNX for that")

    monkeypatch.setattr(formats, "traced", lambda proof, plain=None: plain or proof.plain)
    monkeypatch.setattr(formats, "write_onnx", write)
    refused = attention == "eager"
    with pytest.raises(ValueError, match="no ONNX") if refused else contextlib.nullcontext():
        write_formats(tmp_path, Proof.of(model, inputs(), "x"), ["onnx"])
    assert tried == found


def test_what_torch_cannot_trace_is_said_with_what_can_be_written():
    class Odd(torch.nn.Module):
        def forward(self, x):
            return {"logits": x[: int(x.sum())]}

    proof = Proof.of(Odd(), {"x": torch.ones(3, 2)}, "x")
    words = r"Odd cannot be written by torch\.export \(.*job\.formats=\[safetensors\] writes any"
    with pytest.raises(ValueError, match=words):
        traced(proof)


@pytest.mark.slow
def test_a_fresh_process_says_what_it_cannot_read_and_knows_nothing_of_us(tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    file = File(path, [(inputs(), {})], {})
    with pytest.raises(ValueError, match=r"model.onnx does not load: InvalidProtobuf"):
        read_again([("onnx", "float32", file)])
    code = PROGRAMS["onnxruntime"] + "\nimport lightning_distill\n"
    monkeypatch.setitem(PROGRAMS, "onnxruntime", code)
    with pytest.raises(ValueError, match=r"AssertionError: \['lightning_distill'\]"):
        read_again([("onnx", "float32", file)])
