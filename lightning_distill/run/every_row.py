"""All rows of a data module in batches, in an order that depends on nothing but the rows."""

from typing import Any

import torch

from ..data.data import DataFacts

# A split, numbers of its rows, and the view under which training rows are augmented.
Batch = tuple[str, list[int], int]


def every_row(data: Any, batch_size: int) -> list[Batch]:
    """All rows of all splits, in every view, those of similar length together.

    Args:
        data: a module with `row_lengths()`, such as `TextDataModule`.
        batch_size: rows of a batch at most.
    """
    found: list[Batch] = []
    for split, lengths in data.row_lengths().items():
        order = torch.as_tensor(lengths).argsort(stable=True).tolist()
        views = DataFacts(data).views if split == "train" else 1
        for view in range(views):
            for start in range(0, len(order), batch_size):
                found.append((split, order[start : start + batch_size], view))
    return found


def check_keyed(data: Any) -> None:
    """Refuse rows of which no two epochs see the same.

    Raises:
        ValueError: that says which setting makes them the same.
    """
    if DataFacts(data).is_streaming:
        raise ValueError(
            "A stream reads its rows anew in each epoch and does not number them, so none could be "
            "found again in a cache. Set data.streaming=false, or use a live teacher."
        )
    if DataFacts(data).draws_anew:
        raise ValueError(
            "Augmentation draws anew in each epoch, and a cache holds what was drawn before. Let "
            "it go round among a number of views: data.views=N, for this job and for the training."
        )
