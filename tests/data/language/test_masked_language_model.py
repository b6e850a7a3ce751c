"""Masked rows against plain loops over documents, and their masks in every process and view."""

import datasets
import numpy as np
import pytest
import torch
from tokenizers_of_text import word_pieces

from lightning_distill.data import Draw, LanguageModelData, MaskedCorpus, MaskedLanguageData
from lightning_distill.data.length_grouped import LengthGroupedBatches
from lightning_distill.data.text.word_pieces import train_word_pieces

TEXTS = [
    "the quick fox 狐 jumps over it",
    "naïve façade 🦊🦊",
    "x",
    "a much longer text, of many words, that makes several rows: " + "again and again " * 12,
    "<mask> is written in a text",
    "the fox and the dog " * 3,
] * 2


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_DISTILL_CACHE", str(tmp_path / "cache"))


class Documents(LanguageModelData):
    def load(self):
        parts = {"train": TEXTS, "validation": TEXTS[:3], "test": TEXTS[3:6]}
        return {name: datasets.Dataset.from_dict({"text": part}) for name, part in parts.items()}


class Masked(MaskedLanguageData, Documents):
    """A corpus of a user's own, by one line."""


def masked(**options):
    small = {"vocab_size": 300, "max_length": 16, "batch_size": 4, "eval_batch_size": 3}
    data = Masked(**small | options)
    data.setup()
    return data


def by_row(batches):
    """Tokens and labels of each row, by its number."""
    found = {}
    for batch in batches:
        for i, row in enumerate(batch["row"].tolist()):
            real = batch["attention_mask"][i].bool()
            assert (batch["labels"][i][~real] == -100).all()
            found[row] = tuple(tuple(batch[k][i][real].tolist()) for k in ("input_ids", "labels"))
    return found


@pytest.mark.parametrize("whole_word", [False, True])
def test_rows_are_the_documents_in_even_pieces_of_which_nothing_is_lost(whole_word):
    data = masked(whole_word=whole_word)
    rows, numbers = by_row(data.train_dataloader()), iter(range(1000))
    for text in TEXTS:
        expected = data.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        words, ids = expected.word_ids(), expected["input_ids"]
        count = -(-len(ids) // 14)
        begin = 0
        for _ in range(count):
            given, labels = rows[next(numbers)]
            assert given[0] == data.tokenizer.cls_token_id
            assert given[-1] == data.tokenizer.sep_token_id
            assert len(given) - 2 in (len(ids) // count, -(-len(ids) // count))
            pairs = zip(given[1:-1], labels[1:-1], strict=True)
            piece = [t if label == -100 else label for t, label in pairs]
            assert piece == ids[begin : begin + len(piece)]
            hidden = np.array(labels[1:-1]) != -100
            assert hidden.any() and labels[0] == labels[-1] == -100
            if whole_word:
                of = np.array(words[begin : begin + len(piece)])
                assert all(hidden[of == word].all() for word in set(of[hidden].tolist()))
            begin += len(piece)
        assert begin == len(ids)
    assert len(rows) == next(numbers) == data.num_rows
    assert data.counts()["train documents"] == len(TEXTS)


def epoch(data, number):
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return by_row(loader)


def test_masks_are_new_in_each_epoch_or_go_round_among_views():
    anew, round_ = masked(), masked(views=2)
    assert epoch(anew, 0) != epoch(anew, 2) and epoch(anew, 2) == epoch(masked(), 2)
    assert epoch(anew, 0) == epoch(round_, 0) == epoch(round_, 2) != epoch(round_, 1)
    assert epoch(round_, 1) == epoch(anew, 1)
    assert epoch(anew.replace(seed=1), 0) != epoch(anew, 0)
    # As a cache asks for them.
    rows = list(range(round_.num_rows))
    for view in (0, 1):
        assert by_row(round_.rows_dataloader([("train", rows, view)])) == epoch(round_, view)


def test_what_is_evaluated_has_one_view_whatever_the_seed():
    data, other = masked(), masked(seed=7)
    for loader in ("val_dataloader", "test_dataloader"):
        assert by_row(getattr(data, loader)()) == by_row(getattr(other, loader)())
    split = [("validation", [2, 0, 1], 0)]
    planned = by_row(data.rows_dataloader(split))
    assert planned == {row: by_row(data.val_dataloader())[row] for row in planned}


def test_two_processes_see_the_masks_of_one(monkeypatch):
    data, seen = masked(), {}
    expected = epoch(data, 3)
    for rank in (0, 1):
        module = "lightning_distill.data.length_grouped.rank_and_world"
        monkeypatch.setattr(module, lambda rank=rank: (rank, 2))
        sampler = data.training_sampler(data.splits["train"].lengths)
        assert isinstance(sampler, LengthGroupedBatches)
        sampler.set_epoch(3)
        seen |= by_row([data.training_rows()[draw] for draw in sampler])
    assert seen == expected


def test_masks_are_part_of_what_a_cache_and_a_kept_teacher_are_known_by():
    data = masked()
    for changed in (masked(mask_probability=0.3), masked(whole_word=True)):
        assert changed.fingerprint() != data.fingerprint()
    # A kept teacher is found by other seeds and views too, a cache is not.
    again = masked(seed=1, views=3)
    assert again.fingerprint() == data.fingerprint()
    assert again.preprocessing() != data.preprocessing() == masked().preprocessing()


def test_a_repeat_that_evens_out_the_ranks_is_marked():
    rows = masked().splits["validation"]
    batch, same = rows[[-1, 1]], rows[Draw([0, 1], 5)]
    assert batch["row"].tolist() == [-1, 1]
    assert torch.equal(batch["input_ids"], same["input_ids"])


def test_what_cannot_be_masked_is_refused(tmp_path):
    with pytest.raises(ValueError, match="needs a tokenizer with a mask token"):
        masked(tokenizer=word_pieces())
    pieces = train_word_pieces(TEXTS, 300, 16)
    other = train_word_pieces(TEXTS[:1], 200, 16)
    with pytest.raises(ValueError, match="must find the same hidden tokens, and their tokenizers"):
        masked(tokenizer=pieces, teacher_tokenizer=other)
    assert masked(tokenizer=pieces, teacher_tokenizer=pieces).teacher_tokenizer is None
    for name in ("packing", "streaming"):
        with pytest.raises(ValueError, match=rf"data\.{name}=true has no meaning for masked"):
            masked(**{name: True})
    with pytest.raises(ValueError, match="`views` must be at least 1, got 0"):
        masked(views=0)
    with pytest.raises(ValueError, match=r"data\.max_length is 2, of which 2 are special tokens"):
        masked(max_length=2)
    # A tokenizer that knows none of the letters.
    unknown = train_word_pieces(["a"], 60, 16)
    (tmp_path / "text").write_text("狐狐 狐\n" * 3)
    data = MaskedCorpus(train=str(tmp_path / "text"), validation=str(tmp_path / "text"),
                        tokenizer=unknown)  # fmt: skip
    with pytest.raises(ValueError, match="Nothing of the train data can be masked: 1 documents"):
        data.setup()
