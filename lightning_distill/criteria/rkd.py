"""Relational knowledge distillation: distances and angles between the samples of a batch."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import nn, Tensor

from ._check import in_full_precision, without_autocast
from ._rows import feature_rows


def rkd(
    student: Float[Tensor, "batch _"],
    teacher: Float[Tensor, "batch _"],
    distance: float = 25.0,
    angle: float = 50.0,
) -> Float[Tensor, ""]:
    r"""Huber loss between the distances of all pairs, and the angles of all triples.

    $$\lambda_D \, \mathrm{mean}_{ij} \, \ell\Big( \frac{\lVert t_i - t_j \rVert}{\mu_t},
    \frac{\lVert s_i - s_j \rVert}{\mu_s} \Big) + \lambda_A \, \mathrm{mean}_{ijk} \,
    \ell\big( \cos \angle t_i t_j t_k, \cos \angle s_i s_j s_k \big)$$

    where $\mu$ is the mean distance of all pairs. Means are over all $B^2$ and $B^3$ entries, as in
    the authors' program; the paper writes sums. Angles need memory for $B^3$ numbers.

    References:
        Park et al., *Relational Knowledge Distillation*, 2019, https://arxiv.org/abs/1904.05068,
        section 3.2.
    """
    student, teacher = in_full_precision(student, teacher)
    total = student.new_zeros(())
    with without_autocast(student):
        if distance:
            d_s, d_t = (_relative_distances(x) for x in (student, teacher))
            total = total + distance * F.smooth_l1_loss(d_s, d_t)
        if angle:
            a_s, a_t = (_cosines(x) for x in (student, teacher))
            total = total + angle * F.smooth_l1_loss(a_s, a_t)
    return total


def _relative_distances(x: Tensor) -> Tensor:
    squared = (x[:, None] - x[None]).square().sum(dim=-1)
    # Equal samples have distance 0, where the square root has no gradient.
    equal = squared <= 0
    distances = squared.masked_fill(equal, 1.0).sqrt().masked_fill(equal, 0.0)
    pairs = (~equal).sum().clamp(min=1)
    return distances / (distances.sum() / pairs).clamp(min=1e-12)


def _cosines(x: Tensor) -> Tensor:
    # directions[j, i] goes from sample j to sample i.
    difference = x[None] - x[:, None]
    directions = F.normalize(difference, dim=-1, eps=1e-12)
    return torch.bmm(directions, directions.transpose(1, 2))


class RKD(nn.Module):
    """[`rkd`][] of the samples that count.

    Args:
        distance: weight of the distances.
        angle: weight of the angles.
        gather: compare the samples of all processes with each other, not only those of one.
    """

    def __init__(self, distance: float = 25.0, angle: float = 50.0, gather: bool = False):
        super().__init__()
        if distance < 0 or angle < 0 or distance + angle == 0:
            raise ValueError(
                "`distance` and `angle` must not be negative, nor both 0; got "
                f"{distance} and {angle}."
            )
        self.distance, self.angle = distance, angle
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
        student, teacher = feature_rows(student, teacher, mask, self.gather)
        if len(student) < 2:
            return 0.0 * student.sum()
        return rkd(student, teacher, self.distance, self.angle)

    def extra_repr(self) -> str:  # noqa: D102
        return f"distance={self.distance}, angle={self.angle}"
