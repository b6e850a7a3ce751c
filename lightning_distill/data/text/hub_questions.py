"""Questions, contexts and answers from the Hugging Face hub, or a folder in its layout."""

from typing import Any

from .hub import Hub
from .questions import Questions


class HubQuestions(Questions, Hub):
    """Questions of a data set on the hub or a local folder, such as `rajpurkar/squad`.

    Args:
        path: the data set's name, or a folder.
        options: those of [`Hub`][], but for `glue`, and of [`Questions`][]. For
            `rajpurkar/squad_v2` set `no_answer`: its rows do not say `is_impossible`.

    Raises:
        FileNotFoundError: if the data set cannot be reached.
        ValueError: for an unknown split, and as [`Questions`][].
    """

    def __init__(self, path: str, **options: Any):
        super().__init__(path=path, **options)
