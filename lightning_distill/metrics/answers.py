"""Answers that are stretches of a text, put together from windows and compared as SQuAD does."""

from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.text import squad
from torchmetrics.utilities.data import dim_zero_cat

from ..tasks import Questions


class _Answers(Metric):
    """The best answer over all windows of each question, compared with the right ones.

    An answer is the stretch of the context with the largest sum of its begin's and its end's logits
    among those of at most `max_answer_length` tokens. Where some questions have no answer, there is
    none if the sum at the first token, of the window where that is smallest, is larger (Rajpurkar
    et al., 2018, https://arxiv.org/abs/1806.03822, and Devlin et al., 2019, section 4.3).

    Args:
        questions: what is asked; that of the data by default.
        max_answer_length: of an answer, in tokens.
        no_answer_threshold: how much larger the sum of no answer must be.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    batch_entries = ("question", "begins", "ends")
    share: ClassVar[str]

    def __init__(
        self,
        questions: Questions,
        max_answer_length: int = 30,
        no_answer_threshold: float = 0.0,
    ):
        super().__init__()
        if max_answer_length < 1:
            raise ValueError(f"`max_answer_length` must be at least 1, got {max_answer_length}.")
        self.questions = questions
        self.max_answer_length = max_answer_length
        self.no_answer_threshold = no_answer_threshold
        # Question, begin and end in the context; sums of the best stretch and of none.
        self.places: list[Tensor]
        self.sums: list[Tensor]
        self.add_state("places", default=[], dist_reduce_fx="cat")
        self.add_state("sums", default=[], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """Forget all windows."""
        super().reset()
        # Ranks put theirs together, and one that has none must have as many columns.
        self.places.append(torch.zeros(0, 3, dtype=torch.long, device=self.device))
        self.sums.append(torch.zeros(0, 2, device=self.device))

    def update(
        self,
        predicted: Float[Tensor, "rows 2 tokens"],
        labels: Int[Tensor, "rows 2"],
        question: Int[Tensor, " rows"],
        begins: Int[Tensor, "rows tokens"],
        ends: Int[Tensor, "rows tokens"],
    ) -> None:
        """Add the windows of one batch.

        Args:
            predicted: logits of begin and end.
            labels: are not read; the answers are known by the question.
            question: the number of each window's question.
            begins: where in the context each token begins, counted from 1; 0 for tokens that are
                not of it.
            ends: where each ends.
        """
        start, end = predicted.double().unbind(1)
        context = begins > 0
        lowest = torch.finfo(torch.double).min / 4
        sums = start.masked_fill(~context, lowest)[:, :, None]
        sums = sums + end.masked_fill(~context, lowest)[:, None, :]
        tokens = torch.arange(predicted.shape[-1], device=predicted.device)
        length = tokens[None, :] - tokens[:, None]
        allowed = (length >= 0) & (length < self.max_answer_length)
        best, place = sums.masked_fill(~allowed, 2 * lowest).flatten(1).max(1)
        first, last = place // len(tokens), place % len(tokens)
        rows = torch.arange(len(place), device=place.device)
        found = torch.stack([question, begins[rows, first], ends[rows, last]], dim=-1)
        none = start[:, 0] + end[:, 0]
        # A window without any token of the context has no answer.
        self.places.append(torch.where(context.any(1)[:, None], found, found * 0 - 1))
        self.places[-1][:, 0] = question
        self.sums.append(torch.stack([best, none], dim=-1).float())

    def answers(self) -> dict[int, str]:
        """The answer to each question that was measured, by its number."""
        places, sums = dim_zero_cat(self.places).tolist(), dim_zero_cat(self.sums).tolist()
        best: dict[int, tuple[float, int, int]] = {}
        none: dict[int, float] = {}
        for (number, begin, end), (score, null) in zip(places, sums, strict=True):
            none[number] = min(null, none.get(number, null))
            if begin > 0 and (number not in best or score > best[number][0]):
                best[number] = score, begin, end
        found = {}
        for number, null in none.items():
            score, begin, end = best.get(number, (float("-inf"), 1, 0))
            is_none = self.questions.some_have_none and null - score > self.no_answer_threshold
            text = self.questions.contexts[number]
            found[number] = "" if is_none else text[begin - 1 : end]
        return found

    def compute(self) -> Float[Tensor, ""]:
        """The mean over all questions that have a label, from 0 to 1."""
        given, right = [], []
        for number, text in self.answers().items():
            answers = self.questions.answers[number]
            if answers is None:
                continue
            texts = list(answers) or [""]
            given.append({"id": str(number), "prediction_text": text})
            starts = [0] * len(texts)
            right.append({"id": str(number), "answers": {"text": texts, "answer_start": starts}})
        if not given:
            return torch.tensor(float("nan"), device=self.device)
        return squad(given, right)[self.share].to(self.device) / 100


class AnswerF1(_Answers):
    """F1 of the words of answers, as the script of SQuAD computes it (Rajpurkar et al., 2016).

    Of the right answers to a question the nearest counts; articles and punctuation do not.
    https://arxiv.org/abs/1606.05250
    """

    share = "f1"


class AnswerExactMatch(_Answers):
    """The share of answers that are right word for word, as the script of SQuAD computes it.

    Articles and punctuation do not count. Rajpurkar et al., 2016, https://arxiv.org/abs/1606.05250
    """

    share = "exact_match"
