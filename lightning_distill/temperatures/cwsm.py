"""CWSM: samples of which the student is unsure are compared at a lower temperature."""

import torch
from jaxtyping import Bool, Float, Int
from torch import nn, Tensor

from ._around import around


def cwsm(student: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch"]:
    r"""How unsure the student is: $1 / \max_c \sigma(s)_c$, from 1 to the number of classes."""
    return 1 / student.detach().float().softmax(dim=-1).amax(dim=-1)


class CWSM(nn.Module):
    r"""A temperature per sample: lower, so sharper, where the student is unsure.

    $$\tau_i = \tau + \beta (\bar w - w_i), \quad w_i = \frac{1}{\max_c \sigma(s_i)_c}$$

    $\bar w$ is the mean over the samples that count. No gradient flows through it.

    Args:
        temperature: $\tau$, of a sample of mean difficulty.
        beta: how far temperatures spread.
        lowest: no temperature is below it.

    References:
        Wen, Lai and Qian, *Preparing Lessons: Improve Knowledge Distillation with Better
        Supervision*, 2019, https://arxiv.org/abs/1911.07471, section 3.3 ("confidence weighted by
        student max").
    """

    reads_logits = True

    def __init__(self, temperature: float = 4.0, beta: float = 1.0, lowest: float = 1.0):
        super().__init__()
        for name, value in (("temperature", temperature), ("lowest", lowest)):
            if not value > 0:
                raise ValueError(f"`{name}` must be positive, got {value}.")
        self.temperature, self.beta, self.lowest = temperature, beta, lowest

    @torch.no_grad()
    def forward(
        self,
        student: Float[Tensor, "*batch classes"],
        teacher: Float[Tensor, "*batch classes"],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "*batch"]:
        """The temperature of every sample; the teacher is not looked at."""
        return around(self.temperature, self.beta, cwsm(student), mask).clamp(min=self.lowest)

    def extra_repr(self) -> str:  # noqa: D102
        return f"{self.temperature}, beta={self.beta}, lowest={self.lowest}"
