"""A byte-level BPE that writes everything, the same in every process, trained once."""

import os

import pytest
from hypothesis import given, strategies as st
from processes import with_other_hashes

from lightning_distill.data.language import byte_pairs
from lightning_distill.data.language.byte_pairs import train_byte_pairs

TEXTS = ["the quick brown fox", "the slow fox ☃", "a fox and a fox"] * 3


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_DISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokenizers"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTNING_DISTILL_CACHE", str(tmp_path_factory.mktemp("cache")))
        return train_byte_pairs(TEXTS, 275, 64)


@given(text=st.text())
def test_every_text_is_written_and_read_back(trained, text):
    ids = trained(text, split_special_tokens=True)["input_ids"]
    assert trained.decode(ids, clean_up_tokenization_spaces=False) == text


def test_it_has_an_end_and_a_pad_token_and_learns_what_is_frequent(trained):
    assert len(trained) == 275
    assert trained.eos_token == "<|endoftext|>" and trained.pad_token == "<|pad|>"
    assert trained.eos_token_id != trained.pad_token_id
    assert trained.model_max_length == 64
    assert "Ġfox" in trained.get_vocab()
    assert len(trained(" fox")["input_ids"]) == 1


def test_it_is_saved_and_loaded(trained, tmp_path):
    from transformers import AutoTokenizer

    trained.save_pretrained(tmp_path / "saved")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert loaded.get_vocab() == trained.get_vocab()
    assert loaded("the fox ☃")["input_ids"] == trained("the fox ☃")["input_ids"]


def test_the_second_time_nothing_is_trained(folder, monkeypatch):
    first = train_byte_pairs(TEXTS, 275, 64)
    assert len(list(folder.iterdir())) == 1
    train = byte_pairs._train
    monkeypatch.setattr(byte_pairs, "_train", None)
    again = train_byte_pairs(TEXTS, 275, 32)
    assert again.get_vocab() == first.get_vocab() and again.model_max_length == 32
    monkeypatch.setattr(byte_pairs, "_train", train)
    others = [train_byte_pairs(TEXTS[1:], 275, 64), train_byte_pairs(TEXTS, 270, 64)]
    assert len(list(folder.iterdir())) == 3 and len(others[1]) == 270


def test_a_file_that_was_spoilt_is_written_anew(folder, caplog):
    first = train_byte_pairs(TEXTS, 275, 64)
    (path,) = folder.iterdir()
    path.write_text("{")
    assert train_byte_pairs(TEXTS, 275, 64).get_vocab() == first.get_vocab()
    assert "cannot be read" in caplog.text and len(path.read_text()) > 100


def test_a_folder_that_cannot_be_written_only_warns(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LIGHTNING_DISTILL_CACHE", str(tmp_path / "file"))
    assert len(train_byte_pairs(TEXTS, 275, 64)) == 275
    assert "the tokenizer cannot be kept" in caplog.text


@pytest.mark.slow
def test_another_process_learns_the_same(trained, tmp_path):
    assert with_other_hashes(_vocabulary, str(tmp_path)) == trained.get_vocab()


def _vocabulary(folder):
    os.environ["LIGHTNING_DISTILL_CACHE"] = folder
    return train_byte_pairs(TEXTS, 275, 64).get_vocab()


def test_no_room_for_the_bytes():
    with pytest.raises(ValueError, match="is 257, but there are 256 .* raise it to 258"):
        train_byte_pairs(TEXTS, 257, 64)
    assert len(train_byte_pairs(TEXTS, 258, 64)) == 258
