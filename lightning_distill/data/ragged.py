"""Rows of unequal length in one array: small, shared by worker processes, quick to pad."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch


class Ragged:
    """Rows of whole numbers, held as all values one after the other and where each row begins.

    A list of lists takes some 40 bytes for a row and 8 for a value, and every touch of a value
    counts a reference, which copies the memory of a forked process. This takes 8 and 4, or 8 and 1.

    Args:
        values: of all rows, shape (values,).
        offsets: where each row begins, and the end of the last, shape (rows + 1,).
    """

    def __init__(self, values: np.ndarray, offsets: np.ndarray):
        self.values, self.offsets = values, offsets

    @classmethod
    def of(cls, rows: Sequence[Any]) -> "Ragged":
        """From lists or arrays."""
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        values = [np.asarray(row, dtype=np.int64) for row in rows]
        return cls.split(np.concatenate(values) if values else np.zeros(0, np.int64), lengths)

    @classmethod
    def split(cls, values: np.ndarray, lengths: np.ndarray) -> "Ragged":
        """From values and the length of each row, shape (rows,)."""
        offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return cls(values, offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        row = range(len(self))[row]
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[row] for row in range(len(self)))

    @property
    def lengths(self) -> np.ndarray:
        """Of every row, shape (rows,)."""
        return np.diff(self.offsets)

    def contents(self) -> Iterator[bytes]:
        """Offsets and values, in one form whatever types they are held in."""
        yield self.offsets.astype("<i8").tobytes()
        yield self.values.astype("<i4").tobytes()

    def take(self, rows: np.ndarray) -> "Ragged":
        """A copy of these rows, in this order."""
        starts, lengths = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        taken = Ragged.split(np.zeros(0), lengths)
        places = np.arange(taken.offsets[-1]) + np.repeat(starts - taken.offsets[:-1], lengths)
        taken.values = self.values[places]
        return taken

    def followed_by(self, other: "Ragged") -> "Ragged":
        """These rows and others after them."""
        offsets = np.concatenate([self.offsets, self.offsets[-1] + other.offsets[1:]])
        return Ragged(np.concatenate([self.values, other.values]), offsets)

    def padded(self, fill: int, left: bool = False, width: int = 0) -> torch.Tensor:
        """Filled up to the longest row, or further.

        Args:
            fill: what stands where a row has nothing.
            left: put it before the row.
            width: fill up to so many at least.

        Returns:
            int64, shape (rows, longest or `width`).
        """
        lengths = self.lengths
        longest = int(lengths.max(initial=width))
        filled = np.full((len(self), longest), fill, dtype=np.int64)
        places = np.arange(longest)
        there = lengths[:, None]
        filled[places >= longest - there if left else places < there] = self.values
        return torch.from_numpy(filled)
