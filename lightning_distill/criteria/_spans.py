"""Spans: groups of tokens of student and teacher that stand for the same stretch of text.

A span number per position says to which span the token belongs that this position predicts, as
labels are, so nothing is shifted here. -1 is no span.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def check_spans(
    student: Float[Tensor, "..."],
    teacher: Float[Tensor, "..."],
    student_spans: Int[Tensor, "..."],
    teacher_spans: Int[Tensor, "..."],
) -> None:
    """Refuse spans that do not go with the logits."""
    for role, logits, spans in (
        ("student", student, student_spans),
        ("teacher", teacher, teacher_spans),
    ):
        if logits.dim() != 3 or spans.shape != logits.shape[:-1]:
            raise ValueError(
                f"The {role}'s logits must be (rows, tokens, vocabulary) and its spans "
                f"(rows, tokens), got {tuple(logits.shape)} and {tuple(spans.shape)}."
            )
        if spans.is_floating_point() or spans.dtype == torch.bool:
            raise ValueError(
                f"`{role}_spans` must be whole numbers (int64), and -1 where there is none, got "
                f"{spans.dtype}."
            )
    if len(student) != len(teacher):
        raise ValueError(
            "student and teacher must read the same rows, got "
            f"{len(student)} and {len(teacher)} rows."
        )


def span_count(*spans: Int[Tensor, "rows _"]) -> int:
    """One more than the largest number of a span, and at least 1."""
    return max([1, *(int(s.max()) + 1 for s in spans if s.numel())])


def first_positions(
    spans: Int[Tensor, "rows tokens"], count: int
) -> tuple[Int[Tensor, "rows spans"], Bool[Tensor, "rows spans"]]:
    """The position that predicts the first token of every span, and which spans there are."""
    rows, tokens = spans.shape
    places = torch.arange(tokens, device=spans.device).expand(rows, tokens)
    # A column more, for positions without a span.
    first = spans.new_full((rows, count + 1), tokens, dtype=torch.int64)
    column = torch.where(spans < 0, count, spans).long()
    first = first.scatter_reduce(1, column, places, "amin")[:, :count]
    there = first < tokens
    return first.masked_fill(~there, 0), there


def spans_of_both(
    student_spans: Int[Tensor, "rows student_tokens"],
    teacher_spans: Int[Tensor, "rows teacher_tokens"],
) -> Bool[Tensor, "rows student_tokens"]:
    """Where the student predicts the first token of a span that the teacher has too."""
    count = span_count(student_spans, teacher_spans)
    first, have = first_positions(student_spans, count)
    _, given = first_positions(teacher_spans, count)
    found = torch.zeros_like(student_spans, dtype=torch.int64)
    return found.scatter_add(1, first, (have & given).long()) > 0
