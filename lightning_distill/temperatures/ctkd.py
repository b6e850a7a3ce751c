"""CTKD: a temperature that is learned against the student, from easy to hard."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import nn, Tensor


class CTKD(nn.Module):
    r"""A learned temperature, whose gradient is reversed: it makes the loss larger.

    $$\tau = a + b \, \sigma(x)$$

    where $x$ is one learned number, or comes from a small network that sees both logits of a
    sample. The student lowers the loss, and the temperature raises it, the more so the greater
    `strength` is, which the paper lets grow from 0 to 1 over the first ten epochs.

    Args:
        strength: by what the reversed gradient is multiplied: a number or a schedule, such as
            `Cosine(0.0, 1.0)`.
        per_sample: one temperature for each sample, from a network of two layers, instead of one
            for all.
        lowest: $a$.
        span: $b$.
        width: of the network's hidden layer.

    References:
        Li et al., *Curriculum Temperature for Knowledge Distillation*, 2023,
        https://arxiv.org/abs/2211.16231, section 3.
    """

    reads_logits = True

    def __init__(
        self,
        strength: float | Callable[[], float] = 1.0,
        per_sample: bool = False,
        lowest: float = 1.0,
        span: float = 20.0,
        width: int = 64,
    ):
        super().__init__()
        for name, value in (("lowest", lowest), ("span", span), ("width", width)):
            if not value > 0:
                raise ValueError(f"`{name}` must be positive, got {value}.")
        if not callable(strength) and not strength >= 0:
            raise ValueError(f"`strength` must not be negative, got {strength}.")
        self.strength, self.per_sample = strength, per_sample
        self.lowest, self.span = lowest, span
        if per_sample:
            # The number of classes is known when the first logits come, before any optimizer.
            self.network = nn.Sequential(nn.LazyLinear(width), nn.ReLU(), nn.Linear(width, 1))
        else:
            self.value = nn.Parameter(torch.zeros(()))

    def forward(
        self,
        student: Float[Tensor, "*batch classes"],
        teacher: Float[Tensor, "*batch classes"],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "..."]:
        """The temperature of every sample, or one for all (no dimensions)."""
        if self.per_sample:
            both = torch.cat([student.detach(), teacher.detach()], dim=-1).float()
            # Not from masked positions, where logits may be NaN, of which no gradient is finite.
            if mask is not None and mask.shape == both.shape[:-1]:
                both = both.masked_fill((mask == 0).unsqueeze(-1), 0.0)
            x = self.network(both).squeeze(-1)
        else:
            x = self.value
        strength = self.strength() if callable(self.strength) else self.strength
        return self.lowest + self.span * _Reversed.apply(x, strength).sigmoid()

    def extra_repr(self) -> str:  # noqa: D102
        return f"per_sample={self.per_sample}, lowest={self.lowest}, span={self.span}"


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None
