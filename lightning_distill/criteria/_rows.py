"""Samples as rows of a matrix, for criteria that compare samples with each other."""

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_same_shape


def counted_rows(
    student: Float[Tensor, "*batch features"],
    teacher: Float[Tensor, "*batch features"],
    mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None,
) -> tuple[Float[Tensor, "rows features"], Float[Tensor, "rows features"]]:
    """The samples for which `mask` is true, below each other; both must have the same shape."""
    check_same_shape(student, teacher)
    if mask is None:
        return student.flatten(0, -2), teacher.flatten(0, -2)
    if mask.shape != student.shape[:-1]:
        raise ValueError(
            f"`mask` must have one entry per value, shape {tuple(student.shape[:-1])}, got "
            f"{tuple(mask.shape)}. Do student and teacher have as many tokens as the mask?"
        )
    return student[mask != 0], teacher[mask != 0]
