"""Words and their tags from the Hugging Face hub, or a folder in its layout."""

from typing import Any

from ...tasks import Task, TokenClassification
from .hub import Hub
from .tagged_words import TaggedWords


class HubTokens(TaggedWords, Hub):
    """Rows with lists of words and of tags, of a data set on the hub or a local folder.

    Where the data set numbers its tags, their names are read from it.

    Args:
        path: the data set's name, or a folder.
        words: column of the words.
        tags: column of the tags; a row may lack them.
        row_label: column of a label of the whole row, if there is one.
        task: [`TokenClassification`][], or one of your own that has a tag for each word.
        options: those of [`Hub`][], but for `glue`, and of [`TaggedWords`][].

    Raises:
        FileNotFoundError: if the data set cannot be reached.
        ValueError: for rows whose words and tags differ in number, and for an unknown split.
    """

    def __init__(
        self,
        path: str,
        words: str = "tokens",
        tags: str = "ner_tags",
        row_label: str | None = None,
        task: str | Task = TokenClassification.name,
        **options: Any,
    ):
        super().__init__(
            path=path, text=words, label=tags, row_label=row_label, task=task, **options
        )
