"""Distributions over classes, kept as logarithms so that nothing is lost far from the maximum."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ._check import check_positive, check_same_shape, in_full_precision


def log_probabilities(
    student: Float[Tensor, "*batch classes"],
    teacher: Float[Tensor, "*batch classes"],
    temperature: float,
) -> tuple[Float[Tensor, "*batch classes"], Float[Tensor, "*batch classes"]]:
    """Log-softmax of both at a temperature, in float32 at least: (student's, teacher's)."""
    check_same_shape(student, teacher)
    check_positive("temperature", temperature)
    student, teacher = in_full_precision(student, teacher)
    return (
        F.log_softmax(student / temperature, dim=-1),
        F.log_softmax(teacher / temperature, dim=-1),
    )


def kl(
    log_p: Float[Tensor, "*batch classes"], log_q: Float[Tensor, "*batch classes"]
) -> Float[Tensor, "*batch"]:
    """KL(p, q) in nats; classes that p rules out add nothing, whatever q says of them."""
    ruled_out = torch.isneginf(log_p)
    log_p, log_q = log_p.masked_fill(ruled_out, 0.0), log_q.masked_fill(ruled_out, 0.0)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def log_mixture(
    log_p: Float[Tensor, "*batch classes"],
    log_q: Float[Tensor, "*batch classes"],
    share: float,
) -> Float[Tensor, "*batch classes"]:
    """Logarithm of `share` p + (1 - `share`) q, for a share from 0 to 1."""
    if share in (0, 1):
        return log_p if share else log_q
    weights = torch.tensor([share, 1 - share], dtype=log_p.dtype, device=log_p.device).log()
    return torch.logaddexp(log_p + weights[0], log_q + weights[1])


def without_label(
    log_p: Float[Tensor, "*batch classes"], labels: Int[Tensor, "*batch"]
) -> Float[Tensor, "*batch classes"]:
    """The distribution over the classes other than the label's, which has -inf."""
    others = log_p.scatter(-1, labels.unsqueeze(-1), -torch.inf)
    return F.log_softmax(others, dim=-1)
