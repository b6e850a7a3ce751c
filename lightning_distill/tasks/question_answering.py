"""The stretch of a text that answers a question."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from ..models.batch import entry
from ..models.source import Source
from .task import Task

# The logit of padding: its probability is 0, and criteria that subtract logits find no difference.
PADDING = -1e4


class QuestionAnswering(Task):
    """Where an answer begins and ends: int64 `(rows, 2)`, places of tokens; -100 without a label.

    A text without the answer has both at the first token. Logits are `(rows, 2, tokens)`, the first
    for the begin and the second for the end, so that every criterion on logits compares two
    distributions over the tokens of a row, each of which counts alike. All tokens but padding take
    part in them.

    References:
        Devlin et al., *BERT*, 2019, https://arxiv.org/abs/1810.04805, sections 4.2 and 4.3.
    """

    name: ClassVar[str] = "question_answering"
    heads: ClassVar[Mapping[str, str]] = {"ForQuestionAnswering": "AutoModelForQuestionAnswering"}
    peft_task: ClassVar[str | None] = "QUESTION_ANS"
    metrics: ClassVar[tuple[str, ...]] = ("answer_f1", "answer_exact_match", "agreement")
    measured_by: ClassVar[tuple[str, ...] | None] = ("Answer",)
    has_names: ClassVar[bool] = False
    hides_padding: ClassVar[bool] = True

    def predicted_from(self, role: str, sources: Sequence[Source]) -> Source | None:
        """The logits of begin and end together."""
        return Source(role, "output", "logits")

    def predictions(self, outputs: Any) -> Float[Tensor, "rows 2 tokens"]:
        """The logits as they are arranged."""
        found = entry(outputs, "vectors")
        if not isinstance(found, Tensor):
            raise ValueError(
                "task=question_answering needs models that return `start_logits` and `end_logits` "
                "of shape (rows, tokens), such as AutoModelForQuestionAnswering."
            )
        return found

    def arranged(self, logits: Tensor, batch: Any) -> Float[Tensor, "rows 2 tokens"]:
        """Begin and end apart, and padding out of question.

        Raises:
            ValueError: for logits of another shape than `(rows, tokens, 2)`.
        """
        mask = entry(batch, "attention_mask")
        if logits.dim() != 3 or logits.shape[-1] != 2:
            raise ValueError(
                "task=question_answering takes logits of shape (rows, tokens, 2), for begin and "
                f"end, got {tuple(logits.shape)}."
            )
        apart = logits.transpose(1, 2)
        if not isinstance(mask, Tensor):
            return apart
        return apart.masked_fill(~mask.bool().to(apart.device)[:, None], PADDING)

    def labelled(self, labels: Tensor) -> Bool[Tensor, " rows"]:
        """Which rows have a label."""
        return super().labelled(labels).all(-1)

    def read_labels(self, values: Sequence[Any], names: Sequence[str], split: str) -> Any:
        """Refused: an answer is no label of a text.

        Raises:
            ValueError: naming the data that reads questions.
        """
        raise ValueError(
            "task=question_answering has answers that stand in a text, and no labels: they are "
            "read by data=question_files, or data=hub_questions."
        )

    def measured_labels(self, labels: Tensor) -> Tensor:
        """As they are."""
        return labels

    def agree(self, student: Tensor, teacher: Tensor, tolerance: float) -> Bool[Tensor, " rows"]:
        """Where begin and end are the same."""
        return super().agree(student, teacher, tolerance).all(-1)


__all__ = ["QuestionAnswering"]
