"""Similarity preserving: which samples of a batch are alike."""

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import in_full_precision, without_autocast
from ._parts import learns
from ._rows import feature_rows
from .criterion import Criterion


def similarity_preserving(
    student: Float[Tensor, "batch _"], teacher: Float[Tensor, "batch _"]
) -> Float[Tensor, ""]:
    r"""Squared difference of the row-normalised Gram matrices of a batch.

    $$\frac{1}{B^2} \lVert \tilde G_s - \tilde G_t \rVert_F^2, \quad G = F F^\top$$

    where each row of $\tilde G$ has Euclidean length 1. Widths of student and teacher may differ.
    It is what RepDistiller and mdistiller compute; torchdistill has rows of absolute sum 1.

    References:
        Tung and Mori, *Similarity-Preserving Knowledge Distillation*, 2019,
        https://arxiv.org/abs/1907.09682, eq. 2 to 4.
    """
    student, teacher = in_full_precision(student, teacher)
    with without_autocast(student):
        grams = [F.normalize(x @ x.T, dim=1) for x in (student, teacher)]
    return (grams[0] - grams[1]).square().mean()


class SimilarityPreserving(Criterion):
    """[`similarity_preserving`][] of the samples that count.

    Args:
        gather: in training, compare the samples of all processes with each other, not only those of
            one.
    """

    across_samples = True

    def __init__(self, gather: bool = False):
        super().__init__()
        self.gather = gather

    def forward(
        self,
        student: Float[Tensor, "batch ..."],
        teacher: Float[Tensor, "batch ..."],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The value over the samples for which `mask` is true; 0 if there are fewer than two.

        Samples are the first dimension, and the rest of each is flattened; with a mask, samples
        are its entries, such as the tokens of a `(batch, tokens)` mask.
        """
        student, teacher = feature_rows(student, teacher, mask, self.gather and learns(self))
        if len(student) < 2:
            return 0.0 * student.sum()
        return similarity_preserving(student, teacher)
