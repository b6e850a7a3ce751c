"""Pairs of texts that every Python installation carries: halves of docstrings."""

from typing import Any

import datasets
import torch

from .sentences import SCORE, Sentences, TEXTS
from .stdlib_docstrings import stdlib_docstrings

# Words of the shortest halves.
SHORTEST = 4


class DocstringPairs(Sentences):
    """Halves of docstrings of the standard library: does the second go on where the first ends?

    Half of the pairs are the two halves of one docstring, with a score of 1; the others are halves
    of two of the same package, with a score of 0. Real text that needs no network. A fifth of the
    rows is for testing, a tenth for validation; no docstring is in two splits.

    Args:
        rows: how many pairs at most.
        packages: the docstrings of so many packages, the largest first.
        options: those of [`Sentences`][].

    Raises:
        ValueError: for fewer than 20 rows.
    """

    def __init__(self, rows: int = 1200, packages: int = 16, **options: Any):
        super().__init__(**options)
        if isinstance(rows, bool) or not isinstance(rows, int) or rows < 20:
            raise ValueError(f"`rows` must be a whole number of at least 20, got {rows!r}.")
        self.rows, self.packages = rows, packages

    def load(self) -> dict[str, datasets.Dataset]:
        """Read the sources of the standard library and cut their docstrings in two."""
        texts, names = stdlib_docstrings(self.packages)
        halves = [(h, name) for t, name in zip(texts, names, strict=True) if (h := _halves(t))]
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(len(halves), generator=generator).tolist()[: self.rows]
        chosen = [halves[i] for i in order]
        test, validation = round(0.2 * len(chosen)), round(0.1 * len(chosen))
        parts = {
            "test": chosen[:test],
            "validation": chosen[test : test + validation],
            "train": chosen[test + validation :],
        }
        return {name: datasets.Dataset.from_dict(_pairs(rows)) for name, rows in parts.items()}

    def preprocessing(self) -> dict[str, Any]:
        """What decides which tokens the models are given, as plain values."""
        return {**super().preprocessing(), "text": f"docstrings of {self.packages} packages"}


def _halves(text: str) -> tuple[str, str] | None:
    words = text.split()
    middle = len(words) // 2
    if middle < SHORTEST:
        return None
    return " ".join(words[:middle]), " ".join(words[middle:])


def _pairs(rows: list[tuple[tuple[str, str], str]]) -> dict[str, list[Any]]:
    """Every other row as it is, and the rest with the end of the row before of their package."""
    last: dict[str, str] = {}
    found: dict[str, list[Any]] = {TEXTS: [], SCORE: []}
    for i, ((first, second), package) in enumerate(rows):
        foreign = last.get(package) if i % 2 else None
        found[TEXTS].append([first, second if foreign is None else foreign])
        found[SCORE].append(1.0 if foreign is None else 0.0)
        last[package] = second
    return found
