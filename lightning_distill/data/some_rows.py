"""Some rows of a split, for who looks at a few and does not train on them."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..models.batch import batch_size, repeated_rows
from .data import CACHING, DataFacts, defines

LOADER_OF = {"train": "train_dataloader", "validation": "val_dataloader", "test": "test_dataloader"}


def are_numbered(data: Any, split: str) -> bool:
    """Whether rows of a split can be asked for by number, however often.

    Args:
        data: a data module.
        split: `train`, `validation` or `test`.
    """
    numbered = all(defines(data, name) for name in CACHING)
    return numbered and not (split == "train" and DataFacts(data).is_streaming)


def some_batches(data: Any, split: str, rows: int, size: int = 32) -> Iterator[Any]:
    """Batches of so many rows of a split, or of all if there are fewer.

    Data that can be cached gives rows that are drawn at random, the same ones each time, and does
    not change them (no augmentation). Of other data the first batches of the loader are taken.

    Args:
        data: a data module that is set up.
        split: `train`, `validation` or `test`.
        rows: how many.
        size: rows of a batch, where rows can be asked for by number.
    """
    if not are_numbered(data, split):
        yield from _first_batches(getattr(data, LOADER_OF[split])(), rows)
        return
    lengths = np.asarray(data.row_lengths()[split])
    chosen = np.random.default_rng(0).permutation(_rows_of(data, split, len(lengths)))[:rows]
    # Rows of similar length share a batch.
    chosen = chosen[np.argsort(lengths[chosen], kind="stable")]
    plan = [(split, chosen[i : i + size].tolist(), None) for i in range(0, len(chosen), size)]
    yield from data.rows_dataloader(plan, 0)


def _rows_of(data: Any, split: str, count: int) -> np.ndarray:
    """Numbers of the rows of a split, in training without those that it leaves out."""
    trained = DataFacts(data).trained_rows if split == "train" else None
    return np.arange(count) if trained is None else np.asarray(trained)


def _first_batches(loader: Any, rows: int) -> Iterator[Any]:
    seen = 0
    for batch in loader:
        if seen >= rows:
            return
        seen += batch_size(batch)
        yield batch


def typical_batches(data: Any, split: str, sizes: Sequence[int]) -> list[Any]:
    """Batches of so many rows each, of about the median length, as training would give them.

    Of data whose rows cannot be asked for by number they are the first of its loader. Where there
    are too few rows, some come again.

    Args:
        data: a data module that is set up.
        split: `train`, `validation` or `test`.
        sizes: rows of each batch.
    """
    if not all(defines(data, name) for name in CACHING):
        first = next(iter(getattr(data, LOADER_OF[split])()))
        return [repeated_rows(first, size) for size in sizes]
    lengths = np.asarray(data.row_lengths()[split])
    rows = np.argsort(np.abs(lengths - np.median(lengths)), kind="stable")
    plan = [(split, np.resize(rows, size).tolist(), None) for size in sizes]
    return list(data.rows_dataloader(plan, 0))


def largest_batch(data: Any) -> Any:
    """The batch of the first epoch that is largest, in rows times the longest of them.

    Of data whose rows cannot be asked for by number, or are all alike, it is the first one.

    Args:
        data: a data module that is set up.
    """
    loader = data.train_dataloader()
    if not are_numbered(data, "train") or loader.batch_size is not None:
        return next(iter(loader))
    lengths = np.asarray(data.row_lengths()["train"])
    numbers = _rows_of(data, "train", len(lengths))
    plans = [numbers[list(rows)].tolist() for rows in loader.sampler]
    rows = max(plans, key=lambda rows: len(rows) * lengths[rows].max())
    return next(iter(data.rows_dataloader([("train", rows, None)], 0)))
