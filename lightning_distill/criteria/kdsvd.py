"""Singular vectors of feature maps: how the main direction turns from layer to layer."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ._check import in_full_precision, masked_mean, without_autocast
from ._maps import check_layers
from ._samples import counted_samples, Mask
from .criterion import Criterion


def kdsvd(
    student: Sequence[Float[Tensor, "batch ..."]],
    teacher: Sequence[Float[Tensor, "batch ..."]],
    k: int = 1,
) -> Float[Tensor, " batch"]:
    r"""Squared distance of the kernels between the singular vectors of consecutive layers.

    $$\sum_l \sum_{rij} \big( \kappa(s^l_{ri}, s^{l+1}_{rj}) - \kappa(t^l_{ri}, t^{l+1}_{rj})
    \big)^2, \quad \kappa(a, b) = e^{-(a - b)^2 / 8}$$

    per sample, where $t^l_r$, $r \le k$, is a right singular vector of the teacher's map as a
    matrix of places by channels, times its singular value, these scaled to length 1; $s^l_r$ is
    that of the student's first $k + 1$ vectors that is most parallel to it, with its sign and
    times the same value. Vectors have no sign of their own: the teacher's get a sum that is not
    negative. The gradient stays finite where singular values are equal or 0.

    The authors' program has half of this, times $\sqrt k$, and sums over the batch; RepDistiller
    this, with $k + 3$ candidates. mdistiller takes channels by rows of a map as places, so that
    its vectors are as long as a map is wide. They leave the signs as they come.

    Args:
        student: maps of two or more layers, in order.
        teacher: those of as many layers with the same channels; maps may differ in size.
        k: how many singular vectors.

    References:
        Lee, Kim and Song, *Self-supervised Knowledge Distillation Using Singular Value
        Decomposition*, 2018, https://arxiv.org/abs/1807.06819, section 3.
    """
    _check_k(k)
    check_layers("KDSVD", student, teacher)
    vectors = [_aligned(s, t, k) for s, t in zip(student, teacher, strict=True)]
    values = []
    for first, second in pairwise(vectors):
        many = min(first[0].shape[2], second[0].shape[2])
        s, t = (_kernel(a[..., :many], b[..., :many]) for a, b in zip(first, second, strict=True))
        values.append((s - t).square().flatten(1).sum(dim=1))
    return torch.stack(values).sum(dim=0)


def _check_k(k: int) -> None:
    if k < 1:
        raise ValueError(f"`k` must be 1 or more singular vectors, got {k}.")


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (-(a.unsqueeze(2) - b.unsqueeze(1)).square() / 8).exp()


def _aligned(student: Tensor, teacher: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The vectors of both, as columns, in the order and with the signs of the teacher's."""
    student, teacher = in_full_precision(student, teacher)
    with without_autocast(teacher):
        s, _ = _singular(student, k + 1)
        t, weights = _singular(teacher.detach(), k)
        total = t.sum(dim=1, keepdim=True)
        t = torch.where(total < 0, -t, t)
        cosines = s.detach().transpose(1, 2) @ t
    nearest = cosines.abs().argmax(dim=1, keepdim=True)
    s = s.gather(2, nearest.expand(-1, s.shape[1], -1))
    s = torch.where(cosines.gather(1, nearest) < 0, -s, s)
    weights = F.normalize(weights, dim=1).unsqueeze(1)
    return s * weights, t * weights


def _singular(maps: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The first right singular vectors, as columns, and their values relative to all of them."""
    x = maps.flatten(2).transpose(1, 2)
    # Vectors do not depend on the scale, and differences of squared values would.
    x = x / torch.linalg.matrix_norm(x.detach(), keepdim=True).clamp(min=1e-12)
    _, values, rows = torch.linalg.svd(x.detach(), full_matrices=False)
    every = rows.transpose(1, 2)
    first, squares = every[..., :k], values.square()
    if not x.requires_grad:
        return first, values[:, :k]
    # The exact first-order change of the vectors with the Gram matrix, at the value 0. The usual
    # gradient divides by differences of squared values, which may be 0.
    change = x.transpose(1, 2) @ (x @ first)
    change = change - change.detach()
    inside = every.transpose(1, 2) @ change
    within = every @ (inside * _inverse(squares[:, None, :k] - squares[:, :, None]))
    outside = (change - every @ inside) * _inverse(squares[:, None, :k])
    return first + within + outside, values[:, :k]


def _inverse(x: Tensor) -> Tensor:
    return x / (x.square() + 1e-12)


class KDSVD(Criterion):
    """Mean of [`kdsvd`][] over the samples that count.

    In a term, name several layers of each model and set `mapping=together`.

    Args:
        k: how many singular vectors.
    """

    def __init__(self, k: int = 1):
        super().__init__()
        _check_k(k)
        self.k = k

    def forward(
        self,
        student: Sequence[Float[Tensor, "batch ..."]],
        teacher: Sequence[Float[Tensor, "batch ..."]],
        mask: Mask = None,
    ) -> Float[Tensor, ""]:
        """The mean over the samples for which `mask` is true."""
        # A decomposition of NaN is refused, so what does not count must be left out before.
        maps = counted_samples(mask, *student, *teacher)
        student, teacher = maps[: len(student)], maps[len(student) :]
        return masked_mean(kdsvd(student, teacher, self.k))

    def extra_repr(self) -> str:  # noqa: D102
        return f"k={self.k}"
