"""Questions from the Hugging Face hub, or a folder in its layout."""

from typing import Any

from .hub import Hub
from .questions import QuestionData


class HubQuestions(QuestionData, Hub):
    """Questions of a data set on the hub or a local folder, such as `squad` and `squad_v2`.

    Args:
        path: the data set's name, or a folder.
        options: those of [`Hub`][], but for `glue`, and of [`QuestionData`][].

    Raises:
        FileNotFoundError: if the data set cannot be reached.
        ValueError: for answers that do not stand where they are said to, and an unknown split.
    """

    def __init__(self, path: str, **options: Any):
        super().__init__(path=path, **options)
