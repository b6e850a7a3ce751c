"""Hints: hidden tensors of the student close to hidden tensors of the teacher."""

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_choice, check_same_shape, in_full_precision, masked_mean
from ._weighing import in_force
from .criterion import Criterion
from .soft_target import soft_target

KINDS = ("mse", "l1", "cosine", "kl")
ELEMENTWISE = {"mse": F.mse_loss, "l1": F.l1_loss}


def hint(
    student: Float[Tensor, "..."],
    teacher: Float[Tensor, "..."],
    kind: str = "mse",
    dim: int = -1,
) -> Float[Tensor, "..."]:
    r"""Distance of hidden tensors, one value per position; dimension `dim` is compared.

    `mse` and `l1` are means of $(s - t)^2$ and $|s - t|$ over the features, `cosine` is
    $1 - \cos(s, t)$, and `kl` is $\mathrm{KL}(\sigma(t) \,\|\, \sigma(s))$ in nats.

    Args:
        student: any shape; an adapter has made it as wide as the teacher's.
        teacher: the same shape.
        kind: which distance.
        dim: the features: the last dimension of hidden states, 1 for maps (B, C, H, W).

    References:
        Romero et al., *FitNets: Hints for Thin Deep Nets*, 2015,
        https://arxiv.org/abs/1412.6550, section 2.2 (squared error).
        Sanh et al., *DistilBERT*, 2019, https://arxiv.org/abs/1910.01108 (cosine).
    """
    check_choice("kind", kind, KINDS)
    if kind in ELEMENTWISE:
        return _elementwise(student, teacher, kind).sum(dim=dim) / student.shape[dim]
    check_same_shape(student, teacher)
    student, teacher = in_full_precision(student, teacher)
    if kind == "cosine":
        return 1 - F.cosine_similarity(student, teacher, dim=dim)
    return soft_target(student.movedim(dim, -1), teacher.movedim(dim, -1), temperature=1.0)


def _elementwise(student: Tensor, teacher: Tensor, kind: str) -> Tensor:
    check_same_shape(student, teacher)
    student, teacher = in_full_precision(student, teacher)
    return ELEMENTWISE[kind](student, teacher, reduction="none")


class Hint(Criterion):
    """Mean of [`hint`][] over the positions that count.

    Args:
        kind: `mse`, `l1`, `cosine` or `kl`.
        dim: the features: -1 for hidden states (B, T, D), 1 for maps (B, C, H, W).
    """

    def __init__(self, kind: str = "mse", dim: int = -1):
        super().__init__()
        check_choice("kind", kind, KINDS)
        self.kind, self.dim = kind, dim

    def forward(
        self,
        student: Float[Tensor, "..."],
        teacher: Float[Tensor, "..."],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over positions; `mask` has the tensors' shape without `dim`, as (B, T)."""
        if mask is None and in_force() is None and self.kind in ELEMENTWISE:
            # The mean of the means, in one pass.
            return masked_mean(_elementwise(student, teacher, self.kind))
        return masked_mean(hint(student, teacher, self.kind, self.dim), mask)

    def extra_repr(self) -> str:  # noqa: D102
        return f"kind={self.kind!r}, dim={self.dim}"
