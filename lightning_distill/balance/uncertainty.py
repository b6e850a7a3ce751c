"""Uncertainty weights: each term's scale is learned beside the student."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import nn, Tensor


class Uncertainty(nn.Module):
    r"""Terms divided by variances that are learned.

    $$\sum_i w_i \Big( \frac{L_i}{\sigma_i^2} + \log \sigma_i \Big)$$

    $w_i$ are the terms' weights. $\log \sigma_i^2$ starts at 0, where this is the weighted sum; it
    goes to $\log 2 L_i$, so that a term counts the more the smaller it already is. A term that can
    fall to 0, such as a divergence from a teacher that the student can match, ends up counting
    without bound; `largest` is where that stops.

    Args:
        largest: of the factors $1 / \sigma_i^2$.

    References:
        Kendall, Gal and Cipolla, *Multi-Task Learning Using Uncertainty to Weigh Losses*, 2018,
        https://arxiv.org/abs/1705.07115, eq. 10, for terms of every kind.
    """

    def __init__(self, largest: float = 100.0):
        super().__init__()
        if not largest >= 1:
            raise ValueError(
                f"`largest` must be 1 or more, got {largest}; 1 is the factor at the start."
            )
        self.largest = largest
        self.names: list[str] = []

    def prepare(self, names: Sequence[str]) -> None:
        """Make one variance for each term."""
        self.names = list(names)
        self.log_variance = nn.Parameter(torch.zeros(len(self.names)))

    def forward(
        self,
        losses: Mapping[str, Float[Tensor, ""]],
        weights: Mapping[str, float],
        parameters: Mapping[str, nn.Parameter],
    ) -> Float[Tensor, ""]:
        """What is minimised; `parameters` are not looked at."""
        terms = torch.stack([losses[name] for name in self.names])
        weight = terms.new_tensor([weights[name] for name in self.names])
        # The parameter and not the factor, which then could not come back.
        self.log_variance.data.clamp_(min=-math.log(self.largest))
        return (weight * ((-self.log_variance).exp() * terms + self.log_variance / 2)).sum()

    def logged(self) -> dict[str, float]:
        """The factor of every term now."""
        factors = (-self.log_variance.detach()).exp()
        return dict(zip(self.names, factors.tolist(), strict=True))

    def extra_repr(self) -> str:  # noqa: D102
        return f"largest={self.largest}"
