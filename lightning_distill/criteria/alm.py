"""Approximate likelihood matching: how likely the same stretch of text is to either model."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_positive, in_full_precision, masked_mean, Number, positive, UNLABELLED
from ._spans import check_spans, span_count, spans_of_both
from .criterion import Criterion


def alm(
    student: Float[Tensor, "*batch"],
    teacher: Float[Tensor, "*batch"],
    temperature: float = 100.0,
) -> Float[Tensor, "*batch"]:
    r"""Divergence of "this text, or any other" per span, in nats.

    $$\mathrm{KL}\big(\mathrm{Bernoulli}(p^{1/\tau}) \,\|\, \mathrm{Bernoulli}(q^{1/\tau})\big)
    = p^{1/\tau} \log\frac{p^{1/\tau}}{q^{1/\tau}}
    + (1 - p^{1/\tau}) \log\frac{1 - p^{1/\tau}}{1 - q^{1/\tau}}$$

    where $p$ and $q$ are the probabilities that teacher and student give a span of text: the
    products of those of its tokens. There is no factor $\tau^2$. For a large $\tau$ the value falls
    as $\frac1\tau$, and $\tau$ times the value nears $b - a + a \log\frac ab$ with $a = -\log p$
    and $b = -\log q$, which also learns from spans that both find unlikely. A span that the
    student rules out and the teacher does not is infinite.

    Args:
        student: log-probabilities of the spans, in nats.
        teacher: the same.
        temperature: $\tau$.

    References:
        Minixhofer, Vulić and Ponti, *Universal Cross-Tokenizer Distillation via Approximate
        Likelihood Matching*, 2025, https://arxiv.org/abs/2503.20083.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            "student and teacher must have the same shape, a log-probability per span, got "
            f"{tuple(student.shape)} and {tuple(teacher.shape)}."
        )
    check_positive("temperature", temperature)
    student, teacher = in_full_precision(student, teacher)
    # What is certain in this precision is held to be nearly so: the loss stays finite. And 0 times
    # minus infinity is NaN.
    kind = torch.finfo(student.dtype)
    log_q, log_p = (
        (x.clamp(max=-kind.eps) / temperature).clamp(min=kind.min / 4) for x in (student, teacher)
    )
    p = log_p.exp()
    values = p * (log_p - log_q) - torch.expm1(log_p) * (_log_rest(log_p) - _log_rest(log_q))
    return values.masked_fill(student.isneginf() & (p > 0), torch.inf)


def _log_rest(log_p: Tensor) -> Tensor:
    """Logarithm of 1 - p, from that of p, below 0."""
    near = log_p > -math.log(2)
    # The branch that is not taken must not give the gradient a NaN.
    small, large = log_p.masked_fill(~near, -0.5), log_p.masked_fill(near, -1.0)
    return torch.where(near, (-torch.expm1(small)).log(), torch.log1p(-large.exp()))


class ALM(Criterion):
    """Mean of [`alm`][] over the spans: stretches of text that both models have tokens for.

    For models with different tokenizers: both are asked how likely they find the same text after
    the same text before it, however many tokens either takes for it.

    Left out of the paper: its correction of spans that end where a tokenizer would rarely end
    (outcome debiasing, by the probability that a new word begins), the choice of spans whose
    tokenizations are comparable, other f-divergences than KL, and hidden states. So a span that one
    model's tokens end within a word says a little less there than the text alone: "no", to a model
    that could have written "not" with one token, is unlikely by as much.
    Special tokens are in no span, so the end of a text is learnt from the labels alone
    ([`HardLabel`][]).

    Args:
        temperature: of the spans' probabilities; a positive number or a schedule. The loss falls as
            it grows, so the term's weight should be of its size; 1 compares plain probabilities,
            which says little of spans of many tokens. The authors' code has 100.
    """

    needs_classes = True

    # The classes of student and teacher need not be the same.
    any_classes = True

    def __init__(self, temperature: Number = 100.0):
        super().__init__()
        check_positive("temperature", temperature)
        self.temperature = temperature

    def forward(
        self,
        student: Float[Tensor, "rows student_tokens student_classes"],
        teacher: Float[Tensor, "teacher_rows teacher_tokens teacher_classes"],
        student_labels: Int[Tensor, "..."],
        teacher_labels: Int[Tensor, "..."],
        student_spans: Int[Tensor, "..."],
        teacher_spans: Int[Tensor, "..."],
    ) -> Float[Tensor, ""]:
        """The mean over the spans that both have, in nats.

        Args:
            student: its logits.
            teacher: its logits.
            student_labels: the token that follows each position, `(rows, student_tokens)`; -100
                where there is none.
            teacher_labels: the same of the teacher, in its own ids.
            student_spans: per position of the student's rows, `(rows, student_tokens)`, the number
                of the span that its label belongs to; -1 where there is none.
                `lightning_distill.data.TokenAlignment` makes them.
            teacher_spans: the same of the teacher, `(rows, teacher_tokens)`.

        Raises:
            ValueError: for shapes that do not go together, and spans without a label.
        """
        check_spans(student, teacher, student_spans, teacher_spans)
        temperature = positive("temperature", self.temperature)
        count = span_count(student_spans, teacher_spans)
        log_q, have = _of_spans("student", student, student_labels, student_spans, count)
        log_p, given = _of_spans("teacher", teacher.detach(), teacher_labels, teacher_spans, count)
        both = have & given
        # Selected before anything is computed: what does not count may be infinite.
        log_q, log_p = log_q.masked_fill(~both, -1.0), log_p.masked_fill(~both, -1.0)
        return masked_mean(alm(log_q, log_p, temperature), both)

    def counted(self, **inputs: Any) -> Tensor | None:
        """As many positions as there are spans that the loss is the mean of; `None` if unknown."""
        mine, others = inputs.get("student_spans"), inputs.get("teacher_spans")
        return None if mine is None or others is None else spans_of_both(mine, others)

    def extra_repr(self) -> str:  # noqa: D102
        return f"temperature={self.temperature}"


def _of_spans(
    role: str, logits: Tensor, labels: Tensor, spans: Tensor, count: int
) -> tuple[Float[Tensor, "rows spans"], Bool[Tensor, "rows spans"]]:
    """Log-probability of every span, and which spans there are."""
    if labels.shape != spans.shape:
        raise ValueError(
            f"`{role}_labels` must have one entry per token, shape {tuple(spans.shape)}, got "
            f"{tuple(labels.shape)}."
        )
    row, place = (spans >= 0).nonzero(as_tuple=True)
    rows, tokens = spans.shape
    at = row * tokens + place
    wanted = labels.flatten()[at]
    if spans.device.type == "cpu" and ((wanted < 0) | (wanted >= logits.shape[-1])).any():
        wrong = wanted[(wanted < 0) | (wanted >= logits.shape[-1])][0]
        told = "no label (-100)" if wrong == UNLABELLED else f"label {int(wrong)}"
        raise ValueError(
            f"A position of the {role} has a span and {told}, and its vocabulary has "
            f"{logits.shape[-1]} tokens: labels and spans must stand where their token is "
            "predicted, and be of the tokenizer of that model."
        )
    (chosen,) = in_full_precision(logits.flatten(0, 1).index_select(0, at))
    log_p = -F.cross_entropy(chosen, wanted.long(), reduction="none")
    index = row * count + spans.flatten()[at].long()
    sums = log_p.new_zeros(rows * count).index_add(0, index, log_p)
    there = torch.zeros(rows * count, dtype=torch.bool, device=spans.device).index_fill(
        0, index, True
    )
    return sums.view(rows, count), there.view(rows, count)
