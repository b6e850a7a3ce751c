"""Tokens of the training rows are counted once each, wherever they are held."""

from collections import Counter

import lightning as L
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from lightning_distill.data import MaskedCorpus, PairFiles, TextCorpus, TextFiles
from lightning_distill.data.count_tokens import count_tokens
from lightning_distill.data.language.byte_pairs import FOR_MASKS, train_byte_pairs

LINES = ["a fine film", "a poor one", "what a long long film this is", "poor film"]
TOKENIZER = train_byte_pairs(LINES * 3, 300, 64)


def by_hand(*texts: str, ends: int = 0) -> dict[int, int]:
    """How often each ordinary token is used."""
    tokenizer: PreTrainedTokenizerFast = TOKENIZER
    found = Counter(i for t in texts for i in tokenizer(t, add_special_tokens=False)["input_ids"])
    return {i: n for i, n in found.items() if i not in tokenizer.all_special_ids}


def ordinary(counts: np.ndarray) -> dict[int, int]:
    special = TOKENIZER.all_special_ids
    return {i: int(n) for i, n in enumerate(counts) if n and i not in special}


@pytest.fixture
def files(tmp_path):
    (tmp_path / "train.txt").write_text("".join(f"{line}\n" for line in LINES))
    (tmp_path / "train.tsv").write_text(
        "text\tlabel\n" + "".join(f"{t}\t{'ab'[i % 2]}\n" for i, t in enumerate(LINES))
    )
    (tmp_path / "other.txt").write_text("this is another film\n" * 3)
    (tmp_path / "other.tsv").write_text("text\tlabel\nanother\ta\nfilms\tb\n")
    (tmp_path / "pairs.tsv").write_text("source\ttarget\nfine film\tpoor\nlong\tone film\n" * 1)
    return tmp_path


def data(kind, folder, end, **options):
    named = {"train": f"{folder}/train.{end}", "validation": f"{folder}/other.{end}"}
    found = kind(**{**named, "tokenizer": TOKENIZER, "max_length": 32, **options})
    found.setup()
    return found


def test_rows_of_texts(files):
    counts = count_tokens(data(TextFiles, files, "tsv"), len(TOKENIZER))
    assert ordinary(counts) == by_hand(*LINES)


def test_hidden_tokens_are_counted_as_what_they_are(files):
    masks = train_byte_pairs(LINES * 3, 300, 64, FOR_MASKS)
    made = data(MaskedCorpus, files, "txt", document="line", tokenizer=masks)
    counts = count_tokens(made, len(masks))
    assert counts[masks.mask_token_id] == 0
    hidden = Counter(i for t in LINES for i in masks(t, add_special_tokens=False)["input_ids"])
    assert {i: counts[i] for i in hidden} == hidden


def test_what_is_to_be_written_is_counted(files):
    options = {"train": f"{files}/pairs.tsv", "validation": f"{files}/pairs.tsv"}
    counts = count_tokens(data(PairFiles, files, "tsv", **options), len(TOKENIZER))
    assert ordinary(counts) == by_hand("fine film", "poor", "long", "one film")


@pytest.mark.parametrize("streaming", [False, True])
def test_documents_held_or_read_as_they_come(files, streaming):
    made = data(TextCorpus, files, "txt", document="line", packing=False, streaming=streaming)
    state = torch.get_rng_state()
    counts = count_tokens(made, len(TOKENIZER))
    assert torch.equal(torch.get_rng_state(), state)
    # What is read, and what is predicted.
    assert ordinary(counts).keys() == by_hand(*LINES).keys()
    assert counts[TOKENIZER.eos_token_id] >= len(LINES)


class Own(L.LightningDataModule):
    """A user's, of which nothing but batches is known."""

    def __init__(self, name):
        super().__init__()
        self.name = name

    def train_dataloader(self):
        rows = [{self.name: torch.tensor([3, 4, 4]), "labels": torch.tensor(0)}] * 5
        return DataLoader(rows, batch_size=2)


def test_batches_of_a_users_own_data():
    assert count_tokens(Own("input_ids"), 6).tolist() == [0, 0, 0, 5, 10, 0]


def test_data_without_tokens_are_refused():
    with pytest.raises(ValueError, match="and Own has none: no training row holds input_ids"):
        count_tokens(Own("pixel_values"), 6)
