"""FLSW: samples on which student and teacher differ are compared at a lower temperature."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import nn, Tensor

from ._around import around


def flsw(
    student: Float[Tensor, "*batch classes"],
    teacher: Float[Tensor, "*batch classes"],
    gamma: float = 2.0,
) -> Float[Tensor, "*batch"]:
    r"""How hard a sample is: $(1 - \cos(s, t))^\gamma$ of the logits, from 0 to $2^\gamma$."""
    student, teacher = student.detach().float(), teacher.detach().float()
    return (1 - F.cosine_similarity(student, teacher, dim=-1)).clamp(min=0.0).pow(gamma)


class FLSW(nn.Module):
    r"""A temperature per sample: lower, so sharper, where the student is far from the teacher.

    $$\tau_i = \tau + \beta (\bar w - w_i), \quad w_i = (1 - \cos(s_i, t_i))^\gamma$$

    $\bar w$ is the mean over the samples that count. No gradient flows through it.

    Args:
        temperature: $\tau$, of a sample of mean difficulty.
        beta: how far temperatures spread.
        gamma: how much the hardest samples stand out.
        lowest: no temperature is below it.

    References:
        Wen, Lai and Qian, *Preparing Lessons: Improve Knowledge Distillation with Better
        Supervision*, 2019, https://arxiv.org/abs/1911.07471, section 3.3 ("focal loss style
        weights").
    """

    reads_logits = True

    def __init__(
        self, temperature: float = 4.0, beta: float = 1.0, gamma: float = 2.0, lowest: float = 1.0
    ):
        super().__init__()
        for name, value in (("temperature", temperature), ("lowest", lowest), ("gamma", gamma)):
            if not value > 0:
                raise ValueError(f"`{name}` must be positive, got {value}.")
        self.temperature, self.beta, self.gamma = temperature, beta, gamma
        self.lowest = lowest

    @torch.no_grad()
    def forward(
        self,
        student: Float[Tensor, "*batch classes"],
        teacher: Float[Tensor, "*batch classes"],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "*batch"]:
        """The temperature of every sample."""
        difficulty = flsw(student, teacher, self.gamma)
        return around(self.temperature, self.beta, difficulty, mask).clamp(min=self.lowest)

    def extra_repr(self) -> str:  # noqa: D102
        return f"{self.temperature}, beta={self.beta}, gamma={self.gamma}, lowest={self.lowest}"
