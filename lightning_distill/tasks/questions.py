"""What is asked of texts, and what is right."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Questions:
    """What is asked, by the number of the question.

    Attributes:
        contexts: the text that each is asked of.
        answers: the right answers to each; none if the text does not answer it, `None` without a
            label.
    """

    contexts: list[str] = field(default_factory=list)
    answers: list[Sequence[str] | None] = field(default_factory=list)

    @property
    def some_have_none(self) -> bool:
        """Whether some text does not answer its question, so that no answer is one."""
        return any(answers is not None and not answers for answers in self.answers)

    def __deepcopy__(self, memo: Any) -> "Questions":
        # Metrics are copied for each stage, and what is asked stays what it is.
        return self
