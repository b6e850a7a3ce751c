"""Folders of sentence-transformers: theirs give the same vectors here, and ours there."""

import json
import logging

import pytest
import torch
from test_pooling import encoder
from torch.testing import assert_close

from lightning_distill.data.text.word_pieces import train_word_pieces
from lightning_distill.models.capture import capture, read
from lightning_distill.models.hugging_face import load
from lightning_distill.models.pooling import Dense, dense_of, give_dense
from lightning_distill.models.sentence_folder import (
    check_sentence_folder,
    copy_sentence_folder,
    plain_state,
    pooling_of,
    write_sentence_folder,
)
from lightning_distill.students import from_teacher
from lightning_distill.tasks import Embedding

TEXTS = ["a cat sits on a mat", "rain", "two people talk about a cat on the mat in the rain"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_word_pieces(TEXTS, 60, 32)


def ours(folder, tokenizer, pooling="mean", normalised=True, dense=None):
    """A folder as a run writes it, and the model in it."""
    model = encoder()
    if dense is not None:
        give_dense(model, dense)
    model.save_pretrained(folder, state_dict=plain_state(model))
    tokenizer.save_pretrained(folder)
    write_sentence_folder(folder, model, pooling, normalised, 16)
    return model


def vectors(model, tokenizer, task):
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=16, return_tensors="pt")
    source = task.source("student")
    with torch.no_grad(), capture(model, [source]) as captured:
        outputs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    return read(source, outputs, captured)


@pytest.mark.parametrize("activation", [None, "identity", "tanh"])
@pytest.mark.parametrize(("pooling", "normalised"), [("mean", True), ("cls", False), ("max", True),
                                                     ("last", True)])  # fmt: skip
def test_ours_gives_the_same_vectors_there(tmp_path, tokenizer, pooling, normalised, activation):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    dense = None if activation is None else Dense(8, 5, activation=activation)
    model = ours(tmp_path, tokenizer, pooling, normalised, dense)
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path), device="cpu")
    assert theirs.max_seq_length == 16
    found = torch.from_numpy(theirs.encode(TEXTS))
    expected = vectors(model, tokenizer, Embedding(pooling, normalised))
    assert_close(found, expected, rtol=0, atol=1e-6)
    assert found.shape[1] == (8 if dense is None else 5)


@pytest.mark.parametrize("mode", ["mean", "cls", "lasttoken"])
def test_theirs_gives_the_same_vectors_here(tmp_path, tokenizer, mode):
    st = pytest.importorskip("sentence_transformers")
    from sentence_transformers import models

    ours(tmp_path / "plain", tokenizer)
    transformer = models.Transformer(str(tmp_path / "plain"), max_seq_length=16)
    parts = [transformer, models.Pooling(8, pooling_mode=mode), models.Dense(8, 6)]
    theirs = st.SentenceTransformer(modules=[*parts, models.Normalize()], device="cpu")
    theirs.save(str(tmp_path / "theirs"))
    expected = torch.from_numpy(theirs.encode(TEXTS))
    model, info = load(str(tmp_path / "theirs"), "AutoModel")
    assert not info["missing_keys"]
    dense = dense_of(model)
    assert dense is not None and dense.name == "tanh"
    (pooled,) = tmp_path.glob("theirs/1_Pooling/config.json")
    own = pooling_of(pooled)
    assert own == {"lasttoken": "last"}.get(mode, mode)
    found = vectors(model.eval(), tokenizer, Embedding(own))
    assert_close(found, expected, rtol=0, atol=1e-6)


def test_a_pooler_that_was_not_kept_is_no_missing_weight(tmp_path, tokenizer):
    ours(tmp_path, tokenizer)
    _, info = load(str(tmp_path), "AutoModel")
    assert not info["missing_keys"]


def test_what_maps_vectors_is_written_and_read_apart_from_the_model(tmp_path, tokenizer):
    model = ours(tmp_path, tokenizer, dense=Dense(8, 5))
    assert (tmp_path / "2_Dense" / "model.safetensors").is_file()
    loaded, _ = load(str(tmp_path), "AutoModel")
    found, expected = (vectors(m.eval(), tokenizer, Embedding()) for m in (loaded, model))
    assert_close(found, expected)
    # A student that is cut from it maps its vectors alike.
    cut = from_teacher(loaded, 1)
    assert_close(dense_of(cut).state_dict(), dense_of(loaded).state_dict())
    other = tmp_path / "other"
    other.mkdir()
    copy_sentence_folder(tmp_path, other, loaded)
    for name in ("modules.json", "1_Pooling/config.json", "2_Dense/config.json",
                 "sentence_bert_config.json"):  # fmt: skip
        assert (other / name).read_text() == (tmp_path / name).read_text()
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    copy_sentence_folder(nothing, nothing, loaded)
    assert not list(nothing.iterdir())


def test_another_pooling_is_said_and_an_unknown_part_refused(tmp_path, tokenizer, caplog):
    ours(tmp_path, tokenizer, "cls")
    with caplog.at_level(logging.WARNING, logger="lightning_distill"):
        Embedding("cls").check_folder(tmp_path, "teacher")
        assert not caplog.records
        check_sentence_folder(tmp_path, "mean", "teacher")
    assert "was trained with pooling=cls, and data.task pools by mean" in caplog.text
    assert "teacher.pooled:cls" in caplog.text
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules[2]["type"] = "sentence_transformers.models.WordWeights"
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ValueError, match="a part sentence_transformers.models.WordWeights, which"):
        load(str(tmp_path), "AutoModel")


def test_an_unknown_activation_is_refused(tmp_path, tokenizer):
    ours(tmp_path, tokenizer, dense=Dense(8, 5))
    config = tmp_path / "2_Dense" / "config.json"
    said = json.loads(config.read_text())
    config.write_text(json.dumps({**said, "activation_function": "os.system"}))
    with pytest.raises(ValueError, match="activation_function 'system'; known here are Identity"):
        load(str(tmp_path), "AutoModel")
