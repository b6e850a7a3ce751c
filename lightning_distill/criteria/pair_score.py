"""Pair scores: cosines of two vectors close to a score, for models of sentences."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import in_full_precision, masked_mean
from .criterion import both, Criterion


def firsts(place: Int[Tensor, " texts"]) -> Int[Tensor, " texts"]:
    """For each text the number of the first of its row: the last before it whose place is 0.

    Raises:
        ValueError: if the texts begin within a row.
    """
    begins = place == 0
    if len(place) and not bool(begins[0]):
        raise ValueError(
            f"The first text of a batch must have place 0, got {int(place[0])}: texts of a row "
            "stand one after the other, as those of data=embedding_files."
        )
    numbers = torch.arange(len(place), device=place.device)
    return numbers.where(begins, 0).cummax(0).values if len(place) else numbers


def cosines(
    student: Float[Tensor, "texts width"], place: Int[Tensor, " texts"]
) -> Float[Tensor, " texts"]:
    """The cosine of each text with the first of its row, and NaN for that itself.

    Args:
        student: vectors.
        place: of each text in its row, 0 for the first.
    """
    (student,) = in_full_precision(student)
    found = F.cosine_similarity(student, student[firsts(place)], dim=-1)
    return found.where(place != 0, math.nan)


def pair_score(
    student: Float[Tensor, "texts width"],
    labels: Float[Tensor, " texts"],
    place: Int[Tensor, " texts"],
) -> Float[Tensor, " texts"]:
    r"""Squared difference of cosine and score for each text that has one, else 0.

    $$\big(\cos(u, v) - y\big)^2$$

    Args:
        student: vectors of the texts of all rows, one row after the other.
        labels: the score of each text with the first of its row, as a cosine, from -1 to 1; NaN
            without.
        place: of each text in its row, 0 for the first.

    References:
        Reimers and Gurevych, *Sentence-BERT*, 2019, https://arxiv.org/abs/1908.10084, section 3
        (regression objective function).
    """
    if not student.shape[0] == labels.shape[0] == place.shape[0]:
        raise ValueError(
            f"There must be a label and a place for each text, got vectors of shape "
            f"{tuple(student.shape)}, labels {tuple(labels.shape)} and places {tuple(place.shape)}."
        )
    counted = _counted(labels, place)
    (student,) = in_full_precision(student)
    # Not NaN where nothing counts: its gradient would be NaN too.
    found = F.cosine_similarity(student, student[firsts(place)], dim=-1)
    return (found - labels.to(found.dtype).where(counted, 0.0)).square().where(counted, 0.0)


def _counted(labels: Tensor, place: Tensor) -> Tensor:
    return ~labels.isnan() & (place != 0)


class PairScore(Criterion):
    """Mean of [`pair_score`][] over the texts that have a score."""

    masked_by_labels = True

    def counted(self, **inputs: Tensor) -> Tensor | None:
        """Texts with a score that are not the first of their row."""
        found = _counted(inputs["labels"], inputs["place"])
        return both(found, inputs["mask"]) if inputs.get("mask") is not None else found

    def forward(
        self,
        student: Float[Tensor, "texts width"],
        labels: Float[Tensor, " texts"],
        place: Int[Tensor, " texts"],
        mask: Bool[Tensor, " texts"] | Int[Tensor, " texts"] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over texts that have a score and for which `mask` is true."""
        counted = _counted(labels, place)
        counted = counted if mask is None else counted & (mask != 0)
        return masked_mean(pair_score(student, labels, place), counted)
