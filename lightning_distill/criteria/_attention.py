"""Checks and masks that criteria between attention maps share."""

from jaxtyping import Bool
from torch import Tensor


def check_heads(student: Tensor, teacher: Tensor) -> None:
    """Refuse maps of which one has more heads or tokens than the other."""
    if student.shape != teacher.shape:
        raise ValueError(
            "student and teacher must have the same number of heads and tokens, got attention "
            f"of shape {tuple(student.shape)} and {tuple(teacher.shape)}. With other heads, "
            "compare relations instead (MiniLMRelation)."
        )


def pairs(mask: Tensor) -> Bool[Tensor, "batch queries keys"]:
    """For which pairs of tokens both count; those of a mask `(batch, queries, keys)` are said."""
    counted = mask != 0
    if counted.dim() == 3:
        return counted
    return counted.unsqueeze(2) & counted.unsqueeze(1)
