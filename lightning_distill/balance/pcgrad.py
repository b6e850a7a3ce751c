"""PCGrad: where two terms pull in opposite directions, neither undoes the other."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import nn, Tensor

from ._gradients import gradients


class PCGrad(nn.Module):
    r"""Gradients of the terms, each without its part against another.

    $$g_i \leftarrow g_i - \frac{g_i^\top g_j}{\lVert g_j \rVert^2} g_j
    \quad \text{where} \quad g_i^\top g_j < 0$$

    for every $i$ over the others $j$ in a random order, of the weighted terms' gradients over all
    of the student's parameters; the student follows their sum. That sum is a combination of the
    terms' gradients, so what is minimised is the same combination of the terms, and adapters learn
    from it too. Costs one more backward pass per term, and memory for their gradients.

    References:
        Yu et al., *Gradient Surgery for Multi-Task Learning*, 2020,
        https://arxiv.org/abs/2001.06782, algorithm 1.
    """

    step: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self._factors: list[float] = []

    def prepare(self, names: Sequence[str]) -> None:
        """Start to count the steps, which set the order."""
        self.names = list(names)
        self._factors = [1.0] * len(self.names)
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def forward(
        self,
        losses: Mapping[str, Float[Tensor, ""]],
        weights: Mapping[str, float],
        parameters: Mapping[str, nn.Parameter],
    ) -> Float[Tensor, ""]:
        """What is minimised: the combination of the terms whose gradient is that sum."""
        terms = torch.stack([weights[name] * losses[name] for name in self.names])
        found = gradients(terms, list(parameters.values()))
        factors = surgery((found @ found.T).double(), int(self.step))
        if self.training:
            self.step += 1
            self._factors = factors.tolist()
        return (factors.to(terms) * terms).sum()

    def logged(self) -> dict[str, float]:
        """What every term was multiplied by in the last step; 1 where nothing was against it."""
        return dict(zip(self.names, self._factors, strict=True))


def surgery(products: Float[Tensor, "terms terms"], seed: int) -> Float[Tensor, " terms"]:
    """How often each gradient counts in the sum of all after projection.

    Args:
        products: inner products of the terms' gradients.
        seed: of the order in which the others are looked at.
    """
    # The same order on every rank.
    generator = torch.Generator().manual_seed(seed)
    products = products.cpu()
    parts = torch.eye(len(products), dtype=products.dtype)
    for i in range(len(products)):
        for j in torch.randperm(len(products), generator=generator).tolist():
            against = parts[i] @ products[:, j]
            if i != j and against < 0 and products[j, j] > 0:
                parts[i, j] -= against / products[j, j]
    return parts.sum(dim=0)
