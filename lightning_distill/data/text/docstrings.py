"""The built-in data: docstrings of Python's standard library, and which package each is from."""

from typing import Any

import datasets
import torch

from .stdlib_docstrings import stdlib_docstrings
from .text import TextDataModule


class Docstrings(TextDataModule):
    """Which package of the standard library was this docstring written for?

    Real text that every Python installation carries, so that the default run needs no network. A
    fifth of each package's rows is for testing, a tenth for validation.

    Args:
        packages: how many, the largest first.
        options: those of [`TextDataModule`][].
    """

    def __init__(self, packages: int = 16, **options: Any):
        super().__init__(**options)
        if packages < 2:
            raise ValueError(f"`packages` must be at least 2, got {packages}.")
        self.packages = packages

    def load(self) -> dict[str, datasets.Dataset]:
        """Read the sources of the standard library and split their docstrings."""
        texts, names = stdlib_docstrings(self.packages)
        generator = torch.Generator().manual_seed(0)
        chosen: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
        for name in sorted(set(names)):
            rows = [i for i, n in enumerate(names) if n == name]
            order = [rows[i] for i in torch.randperm(len(rows), generator=generator).tolist()]
            test, validation = round(0.2 * len(rows)), round(0.1 * len(rows))
            chosen["test"] += order[:test]
            chosen["validation"] += order[test : test + validation]
            chosen["train"] += order[test + validation :]
        return {
            split: datasets.Dataset.from_dict(
                {
                    self.text: [texts[i] for i in rows],
                    self.label or "label": [names[i] for i in rows],
                }
            )
            for split, rows in chosen.items()
        }
