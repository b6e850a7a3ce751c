"""The best answer to each question among all windows of its context."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchmetrics import Metric

from ..tasks import References

# What is kept of a question: the score of its best answer, how right that is, the window that it
# is in, and the least score of no answer.
SCORE, VALUE, WINDOW, NULL = range(4)


def best_spans(
    start: Float[Tensor, "rows tokens"],
    end: Float[Tensor, "rows tokens"],
    inside: Bool[Tensor, "rows tokens"],
    longest: int,
) -> tuple[Float[Tensor, " rows"], Int[Tensor, " rows"], Int[Tensor, " rows"]]:
    """The spans with the largest sum of both logits, of all that are not too long.

    Args:
        start: logits of the first token.
        end: of the last.
        inside: where a span may begin and end.
        longest: of a span, in tokens.

    Returns:
        The sum, -inf where there is no span, and first and last token. Of equal ones the first.
    """
    start, end = (x.float().masked_fill(~inside, -math.inf) for x in (start, end))
    tokens = start.shape[1]
    longest = min(longest, tokens)
    # (rows, tokens, longest): the end logits of each token and of those that follow it.
    ends = F.pad(end, (0, longest - 1), value=-math.inf).unfold(1, longest, 1)
    scores, at = (start[..., None] + ends).flatten(1).max(dim=1)
    return scores, at // longest, at // longest + at % longest


class OfAnswers(Metric):
    """The mean over questions of how right their best answers are.

    The best answer to a question is the span of at most `max_answer_length` tokens with the largest
    sum of start and end logits, over all windows of the context. Where there may be no answer, none
    is given if the score of the token that stands for it, the least over the windows, exceeds that
    of the span by more than `null_threshold`; as the script of transformers does.

    Args:
        references: the questions and their right answers; the data module has them.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    batch_entries: ClassVar[tuple[str, ...]] = ("window",)
    of_texts: ClassVar[Callable[[References, int, str], float]]
    # Of each question how right its answer is, and 1, once it has been computed.
    units: Tensor | None = None

    def __init__(self, references: References | None = None):
        super().__init__()
        self.references = references
        count = 0 if references is None else len(references)
        self.best: Tensor
        nothing = torch.tensor([-math.inf, 0.0, -1.0, math.inf]).repeat(count, 1)
        self.add_state("best", default=nothing, dist_reduce_fx=merged)

    def update(
        self,
        predicted: Float[Tensor, "rows 2 tokens"],
        labels: Int[Tensor, "rows 2"],
        window: Int[Tensor, " rows"],
    ) -> None:
        """Add the windows of one batch.

        Args:
            predicted: logits of first and last token.
            labels: not looked at, as all right answers are known.
            window: the number of each window among those of all splits.

        Raises:
            ValueError: without references.
        """
        known = self.references
        if known is None:
            raise ValueError(
                f"{type(self).__name__} compares texts, which a batch does not hold: give it those "
                f"of the data module, as in {type(self).__name__}(data.references)."
            )
        numbers = window.tolist()
        inside = torch.zeros(predicted[:, 0].shape, dtype=torch.bool)
        for i, number in enumerate(numbers):
            own = torch.as_tensor(known.starts[number] >= 0)
            inside[i, : len(own)] = own
            inside[i, known.nulls[number]] = False
        inside = inside.to(predicted.device)
        start, end = predicted.unbind(dim=1)
        scores, first, last = best_spans(start, end, inside, known.max_answer_length)
        at = torch.tensor([known.nulls[number] for number in numbers], device=predicted.device)
        none = (start + end).float().gather(1, at[:, None]).squeeze(1)
        rows = zip(
            numbers, scores.tolist(), first.tolist(), last.tolist(), none.tolist(), strict=True
        )
        seen: dict[int, list[float]] = {}
        for number, score, begin, stop, null in rows:
            question = known.questions[number]
            text = known.text(number, begin, stop) if score > -math.inf else ""
            value = type(self).of_texts(known, question, text)
            own_row = [score, value, float(number), null]
            before = seen.get(question)
            seen[question] = own_row if before is None else _better(before, own_row)
        asked = torch.tensor(list(seen), device=self.best.device)
        found = torch.tensor(list(seen.values()), device=self.best.device)
        self.best[asked] = merged(torch.stack([self.best[asked], found]))

    def compute(self) -> Float[Tensor, ""]:
        """The mean over all questions that were asked, of all ranks; from 0 to 1."""
        known = self.references
        asked = (self.best[:, NULL] < math.inf).nonzero().flatten().tolist()
        if known is None or not asked:
            return torch.zeros((), device=self.best.device)
        values = []
        for question, row in zip(asked, self.best[asked].tolist(), strict=True):
            empty = known.no_answer and row[NULL] - row[SCORE] > known.null_threshold
            values.append(type(self).of_texts(known, question, "") if empty else row[VALUE])
        self.units = torch.tensor([[value, 1.0] for value in values], device=self.best.device)
        return torch.tensor(sum(values) / len(values), device=self.best.device)


def _better(one: list[float], other: list[float]) -> list[float]:
    return merged(torch.tensor([[one], [other]]))[0].tolist()


def merged(rows: Float[Tensor, "parts questions 4"]) -> Float[Tensor, "questions 4"]:
    """What is known of each question from all parts; of equal scores that of the first window."""
    found: Any = rows[0].clone()
    for part in rows[1:]:
        ahead = part[:, SCORE] > found[:, SCORE]
        equal = (part[:, SCORE] == found[:, SCORE]) & (part[:, WINDOW] >= 0)
        ahead |= equal & ((part[:, WINDOW] < found[:, WINDOW]) | (found[:, WINDOW] < 0))
        null = torch.minimum(part[:, NULL], found[:, NULL])
        found = torch.where(ahead[:, None], part, found)
        found[:, NULL] = null
    return found
