"""Centred kernel alignment: are the samples laid out alike, up to rotation and scale?"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import in_full_precision, without_autocast
from ._parts import learns
from ._rows import feature_rows
from .criterion import Criterion


def cka(student: Float[Tensor, "rows _"], teacher: Float[Tensor, "rows _"]) -> Float[Tensor, ""]:
    r"""One minus linear centred kernel alignment, from 0 to 1.

    $$1 - \frac{\lVert S^\top T \rVert_F^2}{\lVert S^\top S \rVert_F \lVert T^\top T \rVert_F}$$

    where the columns of $S$ and $T$ have mean 0. Widths may differ, and no adapter is needed.

    References:
        Kornblith et al., *Similarity of Neural Network Representations Revisited*, 2019,
        https://arxiv.org/abs/1905.00414, eq. 3; as a loss in Saha et al., *Distilling
        Representational Similarity using Centered Kernel Alignment*, 2022.
    """
    student, teacher = (x - x.mean(dim=0) for x in in_full_precision(student, teacher))
    with without_autocast(student):
        if max(student.shape[1], teacher.shape[1]) <= len(student):
            products = [a.T @ b for a, b in ((student, teacher), (student, student))]
            across, own = (x.square().sum() for x in products)
            of_teacher = (teacher.T @ teacher).square().sum()
        else:
            # Fewer rows than columns: the same numbers from the smaller Gram matrices.
            g_s, g_t = student @ student.T, teacher @ teacher.T
            across, own, of_teacher = (g_s * g_t).sum(), g_s.square().sum(), g_t.square().sum()
    # Without any spread there is nothing to align; 1 with a gradient of 0.
    return 1 - across / (own * of_teacher).clamp(min=1e-20).sqrt()


class CKA(Criterion):
    """[`cka`][] of the samples that count.

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
        return 0.0 * student.sum() if len(student) < 2 else cka(student, teacher)
