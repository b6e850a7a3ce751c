"""Pictures in arrays: npz files, and the digits of scikit-learn."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor

from ...extras import check_extra
from .picture_file import Arrays, Sources
from .picture_module import PictureDataModule


class PictureArrays(PictureDataModule):
    """Pictures of one size in npz files, held in memory.

    Args:
        train: an npz file with pictures (rows, height, width) or (rows, height, width, 1 or 3) in
            uint8 under the name `image`, and labels (rows,) under the name `label`.
        validation: the same; by default cut from the training rows.
        test: the same; by default the validation rows.
        options: those of [`PictureDataModule`][].

    Raises:
        FileNotFoundError: for files that are not there.
        ValueError: for arrays of other shapes or types.
    """

    def __init__(
        self, train: str, validation: str | None = None, test: str | None = None, **options: Any
    ):
        super().__init__(**options)
        self.files = {"train": train, "validation": validation, "test": test}
        self._arrays: dict[str, Tensor] = {}
        # A split that is cut from another one has that one's arrays.
        self._split_column = "array of"

    def load(self) -> dict[str, datasets.Dataset]:
        """Read every file that was named."""
        return {
            split: self._rows(split, *self._read(split, path))
            for split, path in self.files.items()
            if path is not None
        }

    def sources(self, rows: datasets.Dataset, split: str) -> Sources:
        """The arrays that rows stand for."""
        return Arrays(self._arrays[rows[self._split_column][0]], rows[self.image], split)

    def _read(self, split: str, given: str) -> tuple[np.ndarray, np.ndarray | None]:
        path = Path(given).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"There is no file {path} (data.{split}).")
        try:
            with np.load(path, allow_pickle=False) as found:
                arrays = {name: found[name] for name in found.files}
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"{path} (data.{split}) is no npz file: {error}") from error
        if self.image not in arrays:
            raise ValueError(
                f"{path} has no array {self.image!r} (data.image); it has {', '.join(arrays)}."
            )
        return arrays[self.image], arrays.get(self.label or "")

    def _rows(
        self, split: str, pictures: np.ndarray, labels: np.ndarray | None
    ) -> datasets.Dataset:
        grey = pictures.ndim == 3 or (pictures.ndim == 4 and pictures.shape[-1] == 1)
        fits = grey or (pictures.ndim == 4 and pictures.shape[-1] == 3)
        if not fits or pictures.dtype != np.uint8 or not pictures.size:
            raise ValueError(
                f"The pictures of the {split} data must be uint8 of shape (rows, height, width) "
                "or (rows, height, width, 3), with colours last, got "
                f"{pictures.dtype} {pictures.shape}."
            )
        pictures = pictures.reshape(*pictures.shape[:3], -1)
        if grey:
            pictures = pictures.repeat(3, axis=-1)
        held = torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy())
        self._arrays[split] = held
        columns: dict[str, Any] = {
            self.image: list(range(len(held))),
            self._split_column: [split] * len(held),
        }
        if labels is not None and self.label is not None:
            if len(labels) != len(held):
                raise ValueError(
                    f"The {split} data has {len(held)} pictures and {len(labels)} labels."
                )
            columns[self.label] = labels.tolist()
        return datasets.Dataset.from_dict(columns)


class Digits(PictureArrays):
    """Handwritten digits of 8 x 8 pixels, 1,797 of them, which come with scikit-learn.

    Args:
        test_rows: so many of them, drawn by `split_seed`, are test rows.
        split_seed: of this choice.
        options: those of [`PictureDataModule`][].

    Raises:
        ValueError: if scikit-learn is not installed.

    References:
        Alpaydin and Kaynak, *Optical Recognition of Handwritten Digits*, 1998,
        https://doi.org/10.24432/C50P49.
    """

    def __init__(self, test_rows: int = 500, split_seed: int = 0, **options: Any):
        super().__init__(train="", **options)
        if not 10 <= test_rows <= 1700:
            raise ValueError(f"`test_rows` lies between 10 and 1700, got {test_rows!r}.")
        self.test_rows, self.split_seed = test_rows, split_seed

    def load(self) -> dict[str, datasets.Dataset]:
        """Training and test rows."""
        check_extra("data=digits", "digits", "sklearn")
        from sklearn.datasets import load_digits

        found = load_digits()
        # They come as numbers from 0 to 16.
        pictures = (found.images * (255 / 16)).round().astype(np.uint8)
        order = np.random.default_rng(self.split_seed).permutation(len(pictures))
        chosen = {"train": order[self.test_rows :], "test": order[: self.test_rows]}
        return {
            split: self._rows(split, pictures[rows], found.target[rows])
            for split, rows in chosen.items()
        }
