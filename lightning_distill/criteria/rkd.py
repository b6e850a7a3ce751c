"""Relational knowledge distillation: distances and angles between the samples of a batch."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import in_full_precision, without_autocast
from ._parts import learns
from ._rows import feature_rows
from .criterion import Criterion


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
    d_s, d_t = (_distances(x) for x in (student, teacher))
    if distance:
        total = total + distance * F.smooth_l1_loss(_relative(d_s), _relative(d_t))
    if angle:
        total = total + angle * F.smooth_l1_loss(_cosines(d_s), _cosines(d_t))
    return total


def _distances(x: Tensor) -> Tensor:
    # By differences: a matrix product would lose the distance of samples that lie close together.
    with without_autocast(x):
        return torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")


def _relative(distances: Tensor) -> Tensor:
    pairs = (distances > 0).sum().clamp(min=1)
    return distances / (distances.sum() / pairs).clamp(min=1e-12)


def _cosines(distances: Tensor) -> Tensor:
    """Of the angle at j between i and k in entry (j, i, k); 0 where j equals one of them."""
    equal = distances == 0
    inverse = distances.masked_fill(equal, 1.0).reciprocal().masked_fill(equal, 0.0)
    # The law of cosines, with lengths relative to the longest lest their squares underflow.
    longest = distances.detach().max().clamp(min=1e-30)
    squares, inverse = (distances / longest).square(), inverse * longest
    sides = squares.unsqueeze(2) + squares.unsqueeze(1) - squares.unsqueeze(0)
    return sides * (inverse.unsqueeze(2) * (inverse / 2).unsqueeze(1))


class RKD(Criterion):
    """[`rkd`][] of the samples that count.

    Args:
        distance: weight of the distances.
        angle: weight of the angles.
        gather: in training, compare the samples of all processes with each other, not only those of
            one.
    """

    across_samples = True

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
        student, teacher = feature_rows(student, teacher, mask, self.gather and learns(self))
        if len(student) < 2:
            return 0.0 * student.sum()
        return rkd(student, teacher, self.distance, self.angle)

    def extra_repr(self) -> str:  # noqa: D102
        return f"distance={self.distance}, angle={self.angle}"
