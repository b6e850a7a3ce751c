"""Checks and masks that criteria between attention maps share."""

from jaxtyping import Bool, Int
from torch import Tensor


def check_heads(student: Tensor, teacher: Tensor) -> None:
    """Refuse maps of which one has more heads or tokens than the other."""
    if student.shape != teacher.shape:
        raise ValueError(
            "student and teacher must have the same number of heads and tokens, got attention "
            f"of shape {tuple(student.shape)} and {tuple(teacher.shape)}. With other heads, "
            "compare relations instead (MiniLMRelation)."
        )


def pairs(
    mask: Bool[Tensor, "batch tokens"] | Int[Tensor, "batch tokens"],
) -> Bool[Tensor, "batch tokens tokens"]:
    """For which pairs of tokens both count."""
    counted = mask != 0
    return counted.unsqueeze(2) & counted.unsqueeze(1)
