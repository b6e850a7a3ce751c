"""Sources and targets from the Hugging Face hub, or a folder in its layout."""

from typing import Any

import datasets

from ..load_from_hub import load_splits
from .pairs import PairDataModule


class HubPairs(PairDataModule):
    """Rows of a data set on the hub or of a local folder, such as `cnn_dailymail` or `wmt16`.

    A column that holds several texts, as `{"translation": {"en": ..., "de": ...}}`, is taken apart:
    its parts are called `translation.en` and `translation.de`, or `en` and `de` where no other
    column is called so.

    Args:
        path: the data set's name, or a folder.
        name: its configuration, if it has several.
        revision: a commit or tag, so that the data stay what they were.
        train: name of the split.
        validation: name of the split; `None`, or no split `validation`, cuts it from the training
            rows.
        test: name of the split; `None`, or no split `test`, uses the validation rows.
        options: those of [`PairDataModule`][lightning_distill.data.PairDataModule].

    Raises:
        FileNotFoundError: if the data set cannot be reached.
        ValueError: for an unknown split or column, and rows without a source or a target.
    """

    def __init__(
        self,
        path: str,
        name: str | None = None,
        revision: str | None = None,
        train: str = "train",
        validation: str | None = "validation",
        test: str | None = "test",
        **options: Any,
    ):
        super().__init__(**options)
        self.path, self.name, self.revision = path, name, revision
        self.split_names = {"train": train, "validation": validation, "test": test}

    def load(self) -> dict[str, datasets.Dataset]:
        """Load the named splits."""
        found = load_splits(self.path, self.name, self.revision, self.split_names)
        return {split: self._taken_apart(rows) for split, rows in found.items()}

    def origin(self, split: str) -> str:
        """The split, and the data set."""
        return f"the {split} data ({self.path})"

    def _taken_apart(self, split: datasets.Dataset) -> datasets.Dataset:
        flat = split.flatten()
        for column in (self.source, self.target):
            parts = [name for name in flat.column_names if name.endswith(f".{column}")]
            if column not in flat.column_names and len(parts) == 1:
                flat = flat.rename_column(parts[0], column)
        return flat
