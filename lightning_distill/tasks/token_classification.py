"""One class of many for each word, such as the names in a text."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from ..models.batch import entry
from ..models.source import Source
from .labels import label_name, label_or_none, numbers_by_name, UNLABELLED
from .language_modelling import PerToken

WORDS = Source("batch", "output", "word_mask")


class TokenClassification(PerToken):
    """Tags of words: int64 `(rows, tokens)`, -100 for all tokens but the first of each word.

    Terms that compare predictions count by the entry `word_mask` of a batch, which is true for the
    first token of each word, also where rows have no labels; without it by `attention_mask`.
    """

    name: ClassVar[str] = "token_classification"
    heads: ClassVar[Mapping[str, str]] = {
        "ForTokenClassification": "AutoModelForTokenClassification"
    }
    peft_task: ClassVar[str | None] = "TOKEN_CLS"
    metrics: ClassVar[tuple[str, ...]] = ("entity_f1", "agreement")
    measured_by: ClassVar[tuple[str, ...] | None] = ("EntityF1",)

    def mask(self, batch: Any) -> Source | None:
        """First tokens of words; else what is no padding; else what has a label."""
        if isinstance(entry(batch, "word_mask"), Tensor):
            return WORDS
        return self.padding(batch) or super().mask(batch)

    def classes_of(self, value: Any, split: str) -> list[Any]:
        """The tags of a row."""
        return [tag for tag in map(label_or_none, value) if tag is not None]

    def read_labels(self, values: Sequence[Any], names: Sequence[str], split: str) -> Any:
        """The number of each word's tag in every row, -100 without; no numbers in rows without.

        Args:
            values: the tags of every row, one for each word; `None` for a row without.
            names: of all tags in order.
            split: the data's, for an error.

        Raises:
            ValueError: for a tag that is none of them, naming its row and its word.
        """
        numbers = numbers_by_name(names)
        found = []
        for i, tags in enumerate(values):
            row = []
            for j, tag in enumerate(tags or ()):
                known = label_or_none(tag)
                number = UNLABELLED if known is None else numbers.get(label_name(known))
                if number is None:
                    raise ValueError(
                        f"Tag {tag!r} of word {j} in row {i} of the {split} data is none of "
                        f"{', '.join(names[:10])}. Correct the row, or list all in "
                        "data.label_names."
                    )
                row.append(number)
            found.append(row)
        return found
