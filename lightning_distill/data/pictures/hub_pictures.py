"""Pictures of a data set of the Hugging Face hub, or of a local folder in its layout."""

from typing import Any

import datasets

from ..load_from_hub import load_splits
from .picture_module import PictureDataModule


class HubPictures(PictureDataModule):
    """Rows of a data set on the hub with a column of pictures, or of a folder that has such.

    Args:
        path: the data set's name, as `uoft-cs/cifar10`, or a local folder, such as one that
            `save_to_disk` wrote.
        name: its configuration, if it has several.
        revision: a commit or tag, so that the data stay what they were.
        train: name of the split.
        validation: name of the split; `None`, or no split `validation`, cuts it from the
            training rows.
        test: name of the split; `None`, or no split `test`, uses the validation rows.
        options: those of [`PictureDataModule`][].

    Raises:
        FileNotFoundError: if the data set cannot be reached.
        ValueError: for a split that there is not, and a column that holds no pictures.
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
        return {split: self._checked(rows, split) for split, rows in found.items()}

    def _checked(self, rows: datasets.Dataset, split: str) -> datasets.Dataset:
        pictures = [n for n, kind in rows.features.items() if isinstance(kind, datasets.Image)]
        if self.image not in pictures:
            raise ValueError(
                f"The {split} data has no column {self.image!r} of pictures (data.image); its "
                f"pictures are in: {', '.join(pictures) or 'none'}."
            )
        return rows
