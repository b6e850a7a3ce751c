"""GradNorm: terms that pull at the student with gradients of a set size."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import nn, Tensor

from ..models.source import nearest
from ._gradients import gradients, mean_over_ranks


class GradNorm(nn.Module):
    r"""Terms weighed so that the sizes of their gradients have a set proportion.

    $$\lVert \nabla f_i L_i \rVert \propto w_i \, r_i^\alpha, \quad
    r_i = \frac{L_i / L_i(0)}{\mathrm{mean}_j \, L_j / L_j(0)}$$

    where $w_i$ are the terms' weights, and the factors $f_i$ are such that the sizes add up to what
    they are with $f_i = w_i$. Terms that fall slowly are helped; with $\alpha = 0$ the weights
    alone set the proportion. The paper moves its weights towards this by steps of Adam; here the
    solution itself is taken, as a moving mean over the steps. Costs one more backward pass per
    term, unless `shared` names the last parameters that all terms share.

    Args:
        alpha: how strongly slow terms are helped.
        momentum: of the moving mean.
        shared: where gradients are measured: the student's parameters whose names start so, such as
            `bert.encoder.layer.1`; all by default.

    References:
        Chen et al., *GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask
        Networks*, 2018, https://arxiv.org/abs/1711.02257, eq. 2.
    """

    factors: Tensor
    first: Tensor

    def __init__(self, alpha: float = 1.5, momentum: float = 0.9, shared: str | None = None):
        super().__init__()
        if alpha < 0:
            raise ValueError(f"`alpha` must not be negative, got {alpha}.")
        if not 0 <= momentum < 1:
            raise ValueError(f"`momentum` must be from 0 to below 1, got {momentum}.")
        self.alpha, self.momentum, self.shared = alpha, momentum, shared
        self.names: list[str] = []

    def prepare(self, names: Sequence[str]) -> None:
        """Make room for the factor and the first loss of each term."""
        self.names = list(names)
        self.register_buffer("factors", torch.full((len(self.names),), torch.nan))
        self.register_buffer("first", torch.full((len(self.names),), torch.nan))

    def forward(
        self,
        losses: Mapping[str, Float[Tensor, ""]],
        weights: Mapping[str, float],
        parameters: Mapping[str, nn.Parameter],
    ) -> Float[Tensor, ""]:
        """What is minimised: the terms times their factors.

        Raises:
            ValueError: if no parameter's name starts as `shared` says.
        """
        terms = torch.stack([losses[name] for name in self.names])
        chosen = [p for n, p in parameters.items() if n.startswith(self.shared or "")]
        if not chosen:
            raise ValueError(
                f"`shared` of GradNorm is {self.shared!r}, but no trained parameter of the student "
                f"starts so. {nearest(str(self.shared), parameters)}"
            )
        now = self._solution(terms, terms.new_tensor([weights[n] for n in self.names]), chosen)
        if self.training:
            self.factors.copy_(now)
        return (now * terms).sum()

    def _solution(self, terms: Tensor, weight: Tensor, chosen: Sequence[Tensor]) -> Tensor:
        sizes = gradients(terms, chosen).norm(dim=1)
        levels = mean_over_ranks(terms.detach())
        first = torch.where(self.first.isnan(), levels, self.first)
        if self.training:
            self.first.copy_(first)
        rates = levels / first.clamp(min=1e-12)
        rates = rates / rates.mean().clamp(min=1e-12)
        wanted = weight * rates.clamp(min=0.0).pow(self.alpha)
        total = (weight * sizes).sum()
        solution = wanted / wanted.sum().clamp(min=1e-12) * total / sizes.clamp(min=1e-12)
        # A term without a gradient now is left at its weight, and cannot blow up later.
        solution = torch.where(sizes > 1e-12, solution, weight)
        before = torch.where(self.factors.isnan(), solution, self.factors)
        return torch.lerp(solution, before, self.momentum)

    def logged(self) -> dict[str, float]:
        """The factor of every term now."""
        return dict(zip(self.names, self.factors.tolist(), strict=True))

    def extra_repr(self) -> str:  # noqa: D102
        return f"alpha={self.alpha}, momentum={self.momentum}, shared={self.shared!r}"
