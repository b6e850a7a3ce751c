"""The sources of Python's own standard library as a corpus: real text that needs no network."""

import hashlib
import tokenize
from typing import Any

import datasets

from .language_model import LanguageModelData
from .stdlib_sources import stdlib_folder, stdlib_sources


class StandardLibrary(LanguageModelData):
    """A language model of Python: every module of the standard library is a document.

    They lie beside the running interpreter; nothing is imported and nothing downloaded. About a
    tenth of the modules is for testing and a twentieth for validation, chosen by a hash of a
    module's path, so that a module is in the same split on every machine. Which modules there are,
    and what is in them, differs between versions of Python.

    Args:
        megabytes: read so many of them; all by default, some 12.
        options: those of [`LanguageModelData`][].

    Raises:
        RuntimeError: if this Python has no sources.
    """

    def __init__(self, megabytes: float | None = None, **options: Any):
        super().__init__(**options)
        if megabytes is not None and (
            isinstance(megabytes, bool) or not isinstance(megabytes, int | float) or megabytes <= 0
        ):
            raise ValueError(f"`megabytes` must be a number above 0, got {megabytes!r}.")
        self.megabytes = megabytes

    def load(self) -> dict[str, datasets.Dataset]:
        """Read the sources, those with the smallest hash first, and deal them to the splits."""
        root = stdlib_folder()
        # By hash, so that a part of the library is a fair sample, not all that begins with "a".
        found = sorted(
            (_hash(name), name, path)
            for path in stdlib_sources(root)
            for name in [path.relative_to(root).as_posix()]
        )
        splits: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
        left = float("inf") if self.megabytes is None else self.megabytes * 1e6
        for number, _, path in found:
            if left <= 0:
                break
            try:
                with tokenize.open(path) as source:
                    text = source.read()
            except (OSError, SyntaxError, UnicodeDecodeError):
                continue
            if not text.strip():
                continue
            left -= len(text.encode())
            # Another part of the hash than that which orders them.
            share = number % 100
            split = "test" if share < 10 else "validation" if share < 15 else "train"
            splits[split].append(text)
        if not all(splits.values()):
            counts = ", ".join(f"{len(texts)} for {split}" for split, texts in splits.items())
            raise RuntimeError(
                f"Expected the standard library's sources (.py files) in {root}, found too few "
                f"({counts}): this Python carries its library as a zip or without sources, or "
                "data.megabytes is too small. Use a Python installed with its sources, or choose "
                "texts of your own with data=text_corpus."
            )
        return {
            split: datasets.Dataset.from_dict({"text": texts}) for split, texts in splits.items()
        }


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest())
