"""Listwise KL: the teacher's distribution over the candidates of a query, for rankers."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_positive, masked_mean, Number, positive
from ._log_probabilities import kl, log_probabilities
from .criterion import Criterion


def listwise_kl(
    student: Float[Tensor, "*batch candidates"],
    teacher: Float[Tensor, "*batch candidates"],
    temperature: float = 1.0,
    candidates: Bool[Tensor, "*batch candidates"] | Int[Tensor, "*batch candidates"] | None = None,
) -> Float[Tensor, "*batch"]:
    r"""KL between the softmax of the scores per query, in nats.

    $$\tau^2 \, \mathrm{KL}\big(\sigma(t / \tau) \,\Vert\, \sigma(s / \tau)\big)$$

    over the candidates of one query; `candidates` is true for those that are there, where lists
    differ in length. A query without any gives 0.

    References:
        Lin, Yang and Lin, *Distilling Dense Representations for Ranking using Tightly-Coupled
        Teachers*, 2020, https://arxiv.org/abs/2010.11386, section 3.
    """
    if candidates is not None:
        absent = candidates == 0
        # Masked before the softmax, so that an absent score may be anything.
        none = absent.all(dim=-1, keepdim=True)
        student, teacher = (
            x.masked_fill(absent, -torch.inf).masked_fill(none, 0.0) for x in (student, teacher)
        )
    log_q, log_p = log_probabilities(student, teacher, temperature)
    return kl(log_p, log_q) * temperature**2


class ListwiseKL(Criterion):
    """Mean of [`listwise_kl`][] over the queries that count.

    Args:
        temperature: flattens both distributions before they are compared; a positive number
            or a schedule.
    """

    compares_entries = True

    def __init__(self, temperature: Number = 1.0):
        super().__init__()
        check_positive("temperature", temperature)
        self.temperature = temperature

    def forward(
        self,
        student: Float[Tensor, "*batch candidates"],
        teacher: Float[Tensor, "*batch candidates"],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
        candidates: Bool[Tensor, "*batch candidates"]
        | Int[Tensor, "*batch candidates"]
        | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over the queries for which `mask` is true, in nats."""
        temperature = positive("temperature", self.temperature)
        return masked_mean(listwise_kl(student, teacher, temperature, candidates), mask)

    def extra_repr(self) -> str:  # noqa: D102
        return f"temperature={self.temperature}"
