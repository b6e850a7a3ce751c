"""The sources of Python's own standard library as a corpus: real text that needs no network."""

import hashlib
import tokenize
from collections.abc import Iterator
from typing import Any

import datasets

from ..stdlib_sources import stdlib_folder, stdlib_sources
from .language_model import LanguageModelData


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
        """Read the sources, and deal them to the splits."""
        return self.held_splits(("train", "validation", "test"), ("text",))

    def documents(self, split: str, epoch: int | None = None) -> Iterator[dict[str, Any]]:
        """The modules of a split, one after the other."""
        for path in self.in_order_of(self._paths()[split], epoch):
            try:
                with tokenize.open(path) as source:
                    text = source.read()
            except (OSError, SyntaxError, UnicodeDecodeError):
                # A test of Python's own, such as lib2to3's bad encodings.
                continue
            if text.strip():
                yield {"text": text}

    def _paths(self) -> dict[str, list[str]]:
        root = stdlib_folder()
        # By hash, so that a part of the library is a fair sample, not all that begins with "a".
        found = sorted(
            (int.from_bytes(hashlib.sha256(name.encode()).digest()), name)
            for name in (path.relative_to(root).as_posix() for path in stdlib_sources(root))
        )
        splits: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
        left = float("inf") if self.megabytes is None else self.megabytes * 1e6
        for number, name in found:
            path = root / name
            size = path.stat().st_size
            if size == 0:
                continue
            # The last digits, which have nothing to do with the order.
            share = number % 100
            split = "test" if share < 10 else "validation" if share < 15 else "train"
            splits[split].append(str(path))
            left -= size
            if left <= 0:
                break
        if not all(splits.values()):
            counts = ", ".join(f"{len(paths)} for {split}" for split, paths in splits.items())
            raise RuntimeError(
                f"Expected the standard library's sources (.py files) in {root}, found too few "
                f"({counts}): this Python carries its library as a zip or without sources, or "
                "data.megabytes is too small. Use a Python installed with its sources, or choose "
                "texts of your own with data=text_corpus."
            )
        return splits
