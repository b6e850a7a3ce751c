"""Rows that stand for the others."""

import lightning as L
import numpy as np
import torch
from data.text.test_token_masking import made
from tiny import loader, text_batches

from lightning_distill.data.some_rows import typical_batches


def test_they_are_of_about_the_median_length():
    data = made(augmentation=None)
    lengths = data.row_lengths()["test"]
    one, many = typical_batches(data, "test", (1, 4))
    assert one["input_ids"].shape == (1, int(lengths[one["row"][0]]))
    away = np.abs(lengths - np.median(lengths))
    assert sorted(away[many["row"]]) == sorted(away)[:4]
    assert one["row"][0] == many["row"][0]
    # The shortest come first in the loader, as rows of similar length share a batch.
    assert lengths.min() < len(one["input_ids"][0]) < lengths.max()


def test_where_there_are_too_few_some_come_again():
    data = made(augmentation=None)
    count = len(data.row_lengths()["test"])
    (batch,) = typical_batches(data, "test", (count + 2,))
    assert len(batch["row"]) == count + 2 and len(set(batch["row"].tolist())) == count


def test_of_data_without_numbers_they_are_the_first():
    class Plain(L.LightningDataModule):
        def test_dataloader(self):
            return loader(text_batches(2, rows=3))

    one, many = typical_batches(Plain(), "test", (1, 5))
    first = text_batches(1, rows=3)[0]
    assert torch.equal(one["input_ids"], first["input_ids"][:1])
    assert torch.equal(many["labels"], first["labels"][[0, 1, 2, 0, 1]])
