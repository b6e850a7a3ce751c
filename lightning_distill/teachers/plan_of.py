"""What is kept of a teacher's answers, found by asking it one batch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..cache import Plan, token_count
from ..cache.answer import Encoding
from ..models.forward import kept_heads
from ..models.source import Source
from .answers import describe, raw_values, without_last_token
from .teacher import Asker, Teacher


def plan_of(
    teacher: Teacher,
    asker: Asker,
    batch: Any,
    sources: Sequence[Source],
    encodings: Callable[[str], Encoding],
    precision: str,
    data: Mapping[str, Any],
    answered: tuple[Any, Mapping[Source, Any]] | None = None,
) -> Plan:
    """What is kept of each row.

    Args:
        teacher: a live one.
        asker: who says what it is given.
        batch: as its loader gave it.
        sources: of the teacher.
        encodings: from the name of an answer to how it is written.
        precision: the trainer's, under which answers will be made.
        data: what is known of the rows.
        answered: what the teacher returned for the batch, if it was asked already.

    Raises:
        ValueError: for answers that cannot be kept.
    """
    how = "skipped" if kept_heads(sources) else "whole"
    outputs, values = answered or teacher.answers(batch, sources, asker, how)
    shorter = None
    if (cut := without_last_token(batch)) is not None:
        shorter = raw_values(sources, *teacher.answers(cut, sources, asker, how))
    tokens = token_count(asker.teacher_inputs(batch))
    answers = describe(raw_values(sources, outputs, values), shorter, tokens, encodings)
    heads = sorted({source.name for source in sources if source.kind == "head"})
    return Plan(teacher.about(outputs), precision, answers, heads, data)
