"""Pictures in folders that are named as their classes, or in a table of paths."""

from pathlib import Path

import datasets

from ..read_table import read_table, READERS, suffix
from .picture_file import ENDINGS
from .picture_module import PictureDataModule

# What the folders of splits are called.
NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}


class ImageFolder(PictureDataModule):
    """Pictures as `FOLDER/CLASS/picture.jpg`, or `FOLDER/SPLIT/CLASS/picture.jpg`.

    Pictures that lie in no folder of a class have no label. A table (csv, tsv, json, jsonl,
    parquet) has paths, from where the table lies, in the column `image`, and labels in `label`.

    Args:
        folder: with the folders of classes, or with those of splits (`train`, `validation` or
            `val`, `test`), each with folders of classes.
        train: the training pictures: a folder of classes, or a table; by default those of `folder`.
        validation: the same; by default cut from the training rows.
        test: the same; by default the validation rows.
        options: those of [`PictureDataModule`][].

    Raises:
        FileNotFoundError: for folders that are not there, or hold no picture.
    """

    def __init__(
        self,
        folder: str | None = None,
        train: str | None = None,
        validation: str | None = None,
        test: str | None = None,
        **options: object,
    ):
        super().__init__(**options)  # type: ignore[arg-type]
        if folder is None and train is None:
            raise ValueError("Name where the pictures lie: data.folder=DIR, or data.train=DIR.")
        self.folder = folder
        self.given = {"train": train, "validation": validation, "test": test}

    def load(self) -> dict[str, datasets.Dataset]:
        """The paths and classes of all pictures."""
        found = self._splits_of(self.folder) if self.folder is not None else {}
        found |= {split: Path(str(given)) for split, given in self.given.items() if given}
        return {split: self._read(split, path.expanduser()) for split, path in found.items()}

    def _splits_of(self, folder: str) -> dict[str, Path]:
        path = Path(folder).expanduser()
        if not path.is_dir():
            raise FileNotFoundError(f"There is no folder {folder} (data.folder).")
        found = {}
        for split, names in NAMES.items():
            there = [path / name for name in names if (path / name).is_dir()]
            if there:
                found[split] = there[0]
        return found if "train" in found else {"train": path}

    def _read(self, split: str, path: Path) -> datasets.Dataset:
        if path.is_file() and suffix(str(path)) in READERS:
            return self._read_table(path)
        if not path.is_dir():
            raise FileNotFoundError(
                f"There is no folder {path} (data.{split}); a table must end in "
                f"{', '.join(READERS)}."
            )
        files = [
            file
            for file in sorted(path.rglob("*"))
            if file.suffix.lower() in ENDINGS
            # A link to what is gone is a picture that is missing.
            and (file.is_file() or file.is_symlink())
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        ]
        if not files:
            raise FileNotFoundError(
                f"There is no picture in {path} (data.{split}), in a folder of its class or "
                f"without; pictures end in {', '.join(ENDINGS)}."
            )
        classes = [parts[0] if len(parts := f.relative_to(path).parts) > 1 else None for f in files]
        columns = {self.image: [str(file) for file in files]}
        if self.label is not None and any(classes):
            columns[self.label] = classes  # type: ignore[assignment]
        return datasets.Dataset.from_dict(columns)

    def _read_table(self, path: Path) -> datasets.Dataset:
        table = read_table([str(path)])
        if self.image not in table.column_names:
            # Who checks the rows says which columns there are.
            return table
        paths = [None if not p else str(path.parent / str(p)) for p in table[self.image]]
        return table.remove_columns(self.image).add_column(self.image, paths)
