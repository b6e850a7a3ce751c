"""A teacher's answer in fewer numbers, as a cache keeps it, or the logits to choose them from."""

from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._heads import parts

# Logits of a live teacher; or from a cache the fields of an encoding with its settings.
SparseAnswer = Tensor | Mapping[str, Any]


def check_answer(
    teacher: SparseAnswer, kind: str, temperature: float, student: Float[Tensor, "... width"]
) -> None:
    """Refuse an answer of another encoding, at another temperature, or to other tokens."""
    if isinstance(teacher, Mapping):
        if teacher.get("kind", kind) != kind:
            raise ValueError(
                f"The teacher's logits were kept as {teacher['kind']}, and this criterion reads "
                f"{kind}. Make a cache with job.logits={kind}."
            )
        kept = teacher.get("temperature", 1.0)
        if kept != temperature:
            raise ValueError(
                f"The cache keeps {kind} at temperature {kept:.4g}, and this criterion compares at "
                f"{temperature:.4g}: what is left of the teacher's distribution there is not known "
                f"any more. Make a cache with job.temperature={temperature:.4g}, or set the "
                f"criterion's `temperature` to {kept:.4g}."
            )
    shape = (teacher["classes"] if isinstance(teacher, Mapping) else teacher).shape
    if shape[:-1] != student.shape[:-1]:
        raise ValueError(
            "student and teacher must be of the same tokens, got hidden states of shape "
            f"{tuple(student.shape)} and answers of shape {tuple(shape)}. Do both read the same "
            "text with the same tokenizer?"
        )


def shared_classes(teacher: SparseAnswer, head: Any, shared_vocab: int | None) -> int:
    """How many classes are compared: those that both have, or fewer if so many are named."""
    own = len(parts(head)[0])
    theirs = teacher.get("vocabulary", own) if isinstance(teacher, Mapping) else teacher.shape[-1]
    if shared_vocab is not None and shared_vocab > min(own, theirs):
        raise ValueError(
            f"`shared_vocab` is {shared_vocab}, and there are {own} (student) and {theirs} "
            "(teacher) classes; leave it null to compare all that both have."
        )
    return min(own, theirs) if shared_vocab is None else shared_vocab


def of_tokens(answer: SparseAnswer, select: Callable[[Tensor], Tensor]) -> SparseAnswer:
    """The answer to some of the tokens; settings are those of all."""
    if isinstance(answer, Mapping):
        return {k: select(v) if isinstance(v, Tensor) else v for k, v in answer.items()}
    return select(answer)


def within(
    classes: Int[Tensor, "*tokens k"], shared: int
) -> tuple[Int[Tensor, "*tokens k"], Bool[Tensor, "*tokens k"]]:
    """Classes to index with, and which of them are compared; others stand for one that is."""
    classes = classes.long()
    inside = classes < shared
    first = classes.gather(-1, inside.int().argmax(-1, keepdim=True)).clamp(max=shared - 1)
    return classes.where(inside, first), inside
