"""The built-in words with tags: what does a name in a line of Python stand for?"""

from collections.abc import Sequence
from typing import Any

import datasets

from ...tasks import TokenClassification
from .stdlib_names import stdlib_names, TAGS
from .tagged_words import TaggedWords


class StandardLibraryNames(TaggedWords):
    """What a name in a line of Python stands for: a function, a variable, a module and more.

    Real text that every Python installation carries, in BIO: the sources of the standard library,
    with tags from its syntax trees. Dotted names have several words, as `os`, `.`, `getcwd`. A
    fifth of the files is for testing, a tenth for validation; no file is in two splits.

    Args:
        rows: how many lines in all, at most.
        label_names: all tags in order; by default the 13 that there are.
        options: those of [`TaggedWords`][]; words and tags are in `words` and `tags`.

    Raises:
        ValueError: for fewer than 100 rows.
        RuntimeError: if this Python has no sources.
    """

    def __init__(self, rows: int = 3000, label_names: Sequence[str] | None = None, **options: Any):
        own = {"text": "words", "label": "tags", "task": TokenClassification.name}
        names = TAGS if label_names is None else label_names
        super().__init__(label_names=names, **{**own, **options})
        if isinstance(rows, bool) or not isinstance(rows, int) or rows < 100:
            raise ValueError(f"`rows` must be a whole number of at least 100, got {rows!r}.")
        self.rows = rows

    def load(self) -> dict[str, datasets.Dataset]:
        """Read the sources of the standard library and tag their names."""
        return {
            split: datasets.Dataset.from_dict(
                {
                    self.text: [list(words) for words, _ in lines],
                    str(self.label): [list(tags) for _, tags in lines],
                }
            )
            for split, lines in stdlib_names(self.rows).items()
        }
