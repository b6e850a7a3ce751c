"""How often the training texts use each token."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from rich.progress import track

from ..models.batch import entry, labels_of
from ..tasks import task_of
from .data import DataFacts, targets_of


def count_tokens(data: Any, size: int) -> Int[np.ndarray, " ids"]:
    """Count the tokens of all training rows, those that are to be predicted too.

    Rows that are held are counted at once, of others all batches of one epoch.

    Args:
        data: a data module that is set up.
        size: one more than the largest number of a token.

    Returns:
        By the number of a token how often it is used, shape (ids,).

    Raises:
        ValueError: if there is no token in the training rows.
    """
    counts = np.zeros(size, dtype=np.int64)
    held = DataFacts(data).splits.get("train")
    for ids in _batches(data) if held is None else _held(held, task_of(data).predicts_ids):
        there = ids[(ids >= 0) & (ids < size)]
        counts += np.bincount(there.astype(np.int64), minlength=size)
    if not counts.any():
        raise ValueError(
            "student.vocabulary counts the tokens of the training texts, and "
            f"{type(data).__name__} has none: no training row holds input_ids."
        )
    return counts


def _held(rows: Any, predicted: bool) -> Iterator[np.ndarray]:
    """The tokens of rows that lie in memory."""
    tokens = getattr(rows, "student", None) or {}
    for name in ("input_ids", "labels") if predicted else ("input_ids",):
        if name in tokens:
            yield tokens[name].values
    yield from (targets.values for targets in targets_of(rows))


def _batches(data: Any) -> Iterator[np.ndarray]:
    """The tokens of every batch of an epoch."""
    predicted = task_of(data).predicts_ids
    with torch.random.fork_rng(devices=[]):
        for batch in track(data.train_dataloader(), "counting tokens", transient=True):
            for ids in (entry(batch, "input_ids"), labels_of(batch) if predicted else None):
                if isinstance(ids, torch.Tensor) and not ids.is_floating_point():
                    yield ids.numpy().ravel()
