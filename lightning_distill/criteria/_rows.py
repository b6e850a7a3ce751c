"""Samples as rows of a matrix, for criteria that compare samples with each other."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import in_full_precision
from ._gather import gather_rows

Mask = Bool[Tensor, "..."] | Int[Tensor, "..."] | None


def logit_rows(
    student: Float[Tensor, "*batch classes"],
    teacher: Float[Tensor, "*batch classes"],
    mask: Mask,
    gather: bool,
) -> tuple[Float[Tensor, "rows classes"], Float[Tensor, "rows classes"]]:
    """Every sample or token whose `mask` is true as a row; those of all processes if asked for."""
    return _rows(student, teacher, mask, student.shape[:-1], gather)


def feature_rows(
    student: Float[Tensor, "batch ..."],
    teacher: Float[Tensor, "batch ..."],
    mask: Mask,
    gather: bool,
) -> tuple[Float[Tensor, "rows _"], Float[Tensor, "rows _"]]:
    """One row per sample, or per entry of `mask` where that is true; widths may differ."""
    samples = student.shape[:1] if mask is None else mask.shape
    return _rows(student, teacher, mask, samples, gather)


def _rows(
    student: Tensor, teacher: Tensor, mask: Mask, samples: torch.Size, gather: bool
) -> tuple[Tensor, Tensor]:
    n = len(samples)
    if not student.shape[:n] == teacher.shape[:n] == samples:
        raise ValueError(
            "student, teacher and `mask` must have one entry per value, got shapes "
            f"{tuple(student.shape)} and {tuple(teacher.shape)} for {tuple(samples)} samples."
        )
    if mask is not None and mask.shape != samples:
        raise ValueError(
            f"`mask` must have one entry per value, shape {tuple(samples)}, got "
            f"{tuple(mask.shape)}. Do student and teacher have as many tokens as the mask?"
        )
    chosen = []
    for features in in_full_precision(student, teacher):
        rows = features.flatten(0, n - 1) if n else features.unsqueeze(0)
        if mask is not None:
            rows = rows[mask.flatten() != 0]
        rows = rows.unsqueeze(1) if rows.dim() == 1 else rows.flatten(1)
        chosen.append(gather_rows(rows) if gather else rows)
    return chosen[0], chosen[1]
