"""Classes drawn from the teacher's distribution, and how often each was."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class Sampled:
    r"""`draws` classes, drawn with replacement at a temperature.

    The share of the draws is an estimate of the teacher's probability without bias: the gradient
    of a cross-entropy or a KL divergence from it is, on average, that from the whole distribution,
    which is not so for the `k` largest without their tail. It is read as logits
    $\tau\log(n_c / n)$; classes that were not drawn are ruled out, $-\infty$, so that it is for
    criteria that compare probabilities. What is drawn depends on the row alone.

    Attributes:
        draws: how many.
        temperature: of the distribution that is drawn from.

    References:
        Anshumann et al., *Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs*,
        2025, https://arxiv.org/abs/2503.16870.
    """

    draws: int
    temperature: float = 1.0

    def __post_init__(self) -> None:
        most = torch.iinfo(torch.int16).max
        whole = isinstance(self.draws, int) and not isinstance(self.draws, bool)
        if not whole or not 1 <= self.draws <= most:
            raise ValueError(
                f"`draws` must be a whole number from 1 to {most}, got {self.draws!r}."
            )
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise ValueError(f"`temperature` must be positive, got {self.temperature}.")

    def encode(
        self, values: Float[Tensor, "count ..."], ids: Int64[Tensor, "count 2"]
    ) -> dict[str, Tensor]:
        """What is written for these logits."""
        shape = values.shape
        if len(shape) < 2 or (values.amax(dim=-1).isinf().any() if values.numel() else False):
            raise ValueError(
                "Classes are drawn from a distribution: logits must be (rows, classes), the "
                f"largest finite, got shape {tuple(shape)}. Write them all, with logits=full."
            )
        flat = (values.float() / self.temperature).softmax(dim=-1)
        flat = flat.reshape(len(values), math.prod(shape[1:-1]), shape[-1])
        if flat.shape[1] == 0 or len(flat) == 0:
            drawn = torch.zeros(len(flat), flat.shape[1], self.draws, dtype=torch.long)
        else:
            drawn = torch.stack(
                [self._draw(p, int(i)) for p, i in zip(flat, ids[:, 0], strict=True)]
            )
        drawn = drawn.sort(dim=-1).values.reshape(*shape[:-1], self.draws)
        # Each class once, with its count; what is left of the places has a count of zero.
        first = torch.ones_like(drawn, dtype=torch.bool)
        first[..., 1:] = drawn[..., 1:] != drawn[..., :-1]
        place = first.cumsum(dim=-1) - 1
        counts = torch.zeros_like(drawn).scatter_add_(-1, place, torch.ones_like(drawn))
        classes = torch.zeros_like(drawn).scatter_(-1, place, drawn)
        return {"classes": classes.int(), "counts": counts.short()}

    def _draw(self, probabilities: Tensor, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.multinomial(probabilities.cpu(), self.draws, True, generator=generator)

    def decode(self, fields: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
        """Logits of all classes, in float32."""
        classes, counts = fields["classes"].long(), fields["counts"].float()
        shares = torch.zeros(*classes.shape[:-1], shape[-1], device=counts.device)
        shares.scatter_add_(-1, classes, counts / self.draws)
        return self.temperature * shares.log()

    def settings(self) -> dict[str, Any]:
        """As a manifest keeps it."""
        return {"kind": "sampled", "draws": self.draws, "temperature": self.temperature}
