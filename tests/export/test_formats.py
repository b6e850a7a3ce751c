"""A model of each kind in each format, run here and in fresh processes, beside the model."""

import encoder_decoders
import onnxruntime
import pytest
import torch
import transformers as hf
from tiny import gpt2

from lightning_distill.export import compared, File, Proof, read_again, write_formats

pytestmark = pytest.mark.slow

BERT = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40}
BERT |= {"intermediate_size": 8, "max_position_embeddings": 16}
VIT = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8}
VIT |= {"intermediate_size": 8, "patch_size": 4}


def texts(rows: int, tokens: int) -> dict[str, torch.Tensor]:
    mask = torch.ones(rows, tokens, dtype=torch.long)
    # The first row alone, as many a shortcut is taken where there is no padding.
    mask[0, 3:] = 0
    draw = torch.Generator().manual_seed(tokens)
    ids = torch.randint(3, 40, (rows, tokens), generator=draw)
    return {"input_ids": ids * mask, "attention_mask": mask}


def pairs(rows: int, tokens: int) -> dict[str, torch.Tensor]:
    found = texts(rows, tokens)
    return {**found, "token_type_ids": (torch.arange(tokens) > 1).long().repeat(rows, 1)}


def written(rows: int, tokens: int) -> dict[str, torch.Tensor]:
    return {**texts(rows, tokens), "decoder_input_ids": texts(rows, tokens + 1)["input_ids"]}


def pictures(rows: int, tokens: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(rows)
    return {"pixel_values": torch.randn(rows, 3, 8, 8, generator=draw)}


# Other heads of an encoder are a linear layer more; the command's own test has a classification.
# By task: the model, what it reads, how its vectors are pooled, and what it returns.
KINDS = {
    "language_modelling": (lambda: gpt2(1, 8), texts, None, ["logits"]),
    "sequence_to_sequence": (lambda: encoder_decoders.model("bart"), written, None, ["logits"]),
    "embedding": (
        lambda: hf.BertModel(hf.BertConfig(**BERT)), pairs, "mean,normalised",
        ["last_hidden_state", "sentence_embedding"],
    ),
    "pictures": (
        lambda: hf.ViTForImageClassification(hf.ViTConfig(**VIT)), pictures, None, ["logits"],
    ),
}  # fmt: skip


def run_here(path, inputs):
    if path.suffix == ".pt2":
        with torch.no_grad():
            return torch.export.load(path).module()(**inputs)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, {name: value.numpy() for name, value in inputs.items()})
    return dict(zip(names, map(torch.from_numpy, found), strict=True))


def test_every_kind_in_every_format(tmp_path):
    """The processes read all files at once, as most of their time goes into imports."""
    files = []
    for name, (build, give, pooling, outputs) in KINDS.items():
        torch.manual_seed(0)
        model, folder = build().eval(), tmp_path / name
        model.save_pretrained(folder)
        proof = Proof.of(model, give(3, 6), name, pooling)
        found = write_formats(folder, proof, ["safetensors", "onnx", "torch_export"])
        loading = {"trusted": False, "model": type(model).__name__, "processors": []}
        own = Proof.of(model, give(3, 6), name)
        files.append(("safetensors", "float32", File(folder, own.cases(), loading)))
        for (kind, numbers), path in found.items():
            files.append((kind, numbers, File(path, proof.cases(), {})))
            # Sizes that neither the trace nor the proof has seen, against the model itself.
            for size in ((1, 4), (5, 11)):
                inputs = give(*size)
                with torch.no_grad():
                    expected = model(**inputs)
                answers = run_here(path, inputs)
                assert [*answers] == outputs, path
                for output in set(outputs) & set(expected):
                    torch.testing.assert_close(
                        answers[output], expected[output], rtol=1e-4, atol=1e-5, msg=str(path)
                    )
    reads = read_again(files)
    for (kind, numbers, file), read in zip(files, reads, strict=True):
        found = compared(kind, numbers, file, read)
        assert found.difference < 1e-5 and found.latency_ms > 0 and found.size_mb > 0, file.path
    session = onnxruntime.InferenceSession(tmp_path / "embedding" / "model.onnx")
    sizes = {entry.name: entry.shape for entry in (*session.get_inputs(), *session.get_outputs())}
    assert sizes == {name: ["batch", "sequence"] for name in pairs(1, 4)} | {
        "last_hidden_state": ["batch", "sequence", 8], "sentence_embedding": ["batch", 8],
    }  # fmt: skip
