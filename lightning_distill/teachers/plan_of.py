"""What is kept of a teacher's answers, found by asking it one batch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..cache import has_decoder, Plan, token_count
from ..cache.answer import Encoding
from ..models.forward import kept_heads
from ..models.source import Source
from .answers import describe, raw_values, without_last_target, without_last_token
from .refusals import NotKeptError
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
    inputs, shorter = asker.teacher_inputs(batch), None
    two = has_decoder(inputs)
    if (cut := without_last_target(batch) if two else without_last_token(batch)) is not None:
        shorter = raw_values(sources, *teacher.answers(cut, sources, asker, how))
    tokens = token_count(inputs)
    if two:
        _check_targets(raw_values(sources, outputs, values), inputs)
    answers = describe(raw_values(sources, outputs, values), shorter, tokens, encodings)
    heads = sorted({source.name for source in sources if source.kind == "head"})
    return Plan(teacher.about(outputs), precision, answers, heads, data)


def _check_targets(values: Mapping[str, Any], inputs: Any) -> None:
    """Refuse what is of the source's tokens: rows are cut by those of the target.

    Raises:
        ValueError: naming the answer.
    """
    tokens = token_count(inputs)
    for name, value in values.items():
        if value.dim() > 2 and value.shape[1] != tokens:
            raise NotKeptError(
                f"teacher.{name} has shape {tuple(value.shape)}: it is no tensor of the target's "
                f"{tokens} tokens, and of an encoder-decoder a cache keeps those alone.",
                "Leave its term out, or use a live teacher.",
            )
