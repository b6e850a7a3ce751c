"""Distributions over classes, kept as logarithms so that nothing is lost far from the maximum."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ._check import check_positive, check_same_shape, in_full_precision, Temperature

# From logits of student and teacher to a divergence per sample, and its gradient with respect to
# the student's logits.
WithGradient = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def log_probabilities(
    student: Float[Tensor, "*batch classes"],
    teacher: Float[Tensor, "*batch classes"],
    temperature: Temperature,
) -> tuple[Float[Tensor, "*batch classes"], Float[Tensor, "*batch classes"]]:
    """Log-softmax of both at a temperature, in float32 at least: (student's, teacher's)."""
    student, teacher = at_temperature(student, teacher, temperature)
    return log_softmax(student), log_softmax(teacher)


def log_softmax(logits: Float[Tensor, "*batch classes"]) -> Float[Tensor, "*batch classes"]:
    """Log-softmax, with the lowest number in place of minus infinity, which times 0 is NaN."""
    found = F.log_softmax(logits, dim=-1)
    lowest = torch.finfo(found.dtype).min
    try:
        # Unseen by autograd, which saves a pass: the gradient takes exp of this, 0 for either.
        found.data.clamp_min_(lowest)
    except RuntimeError:  # vmap lets no one at the data
        found = found.clamp(min=lowest)
    return found


def probabilities(
    student: Float[Tensor, "*batch classes"],
    teacher: Float[Tensor, "*batch classes"],
    temperature: Temperature,
) -> tuple[Float[Tensor, "*batch classes"], Float[Tensor, "*batch classes"]]:
    """Softmax of both at a temperature, in float32 at least: (student's, teacher's)."""
    student, teacher = at_temperature(student, teacher, temperature)
    return F.softmax(student, dim=-1), F.softmax(teacher, dim=-1)


def at_temperature(
    student: Float[Tensor, "*batch classes"],
    teacher: Float[Tensor, "*batch classes"],
    temperature: Temperature,
) -> tuple[Float[Tensor, "*batch classes"], Float[Tensor, "*batch classes"]]:
    """Logits of both over a temperature, checked, in float32 at least: (student's, teacher's)."""
    check_same_shape(student, teacher)
    check_positive("temperature", temperature)
    student, teacher = in_full_precision(student, teacher)
    if isinstance(temperature, Tensor):
        temperature = temperature.unsqueeze(-1) if temperature.dim() else temperature
    elif temperature == 1:
        return student, teacher
    return student / temperature, teacher / temperature


def log_softmax_and_softmax(
    student: Float[Tensor, "*batch classes"],
    teacher: Float[Tensor, "*batch classes"],
    temperature: Temperature,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of both at a temperature, in float32 at least: log q, q, log p, p."""
    student, teacher = at_temperature(student, teacher, temperature)
    return *_both(student), *_both(teacher)


def kl_and_softmax(
    student: Float[Tensor, "*batch classes"],
    teacher: Float[Tensor, "*batch classes"],
    temperature: Temperature,
) -> tuple[Tensor, Tensor, Tensor]:
    """KL(p, q) in nats, q and p, at a temperature, in float32 at least; nothing is differentiated.

    As [`kl`][] of [`log_softmax`][], in fewer passes over the classes: the logarithms are not made.
    """
    student, teacher = at_temperature(student, teacher, temperature)
    q, p = student.softmax(-1), teacher.softmax(-1)
    # Where p is 0, its logit may be minus infinity, and where q is 0 alone, this becomes infinite.
    apart = (teacher - student).nan_to_num_().mul_(p).sum(dim=-1)
    # The logarithm of the sum of exp; at the maximum softmax is one over it.
    normal = teacher.amax(-1) - student.amax(-1) - (p.amax(-1) / q.amax(-1)).log()
    return _or_infinite(apart - normal), q, p


def _both(logits: Tensor) -> tuple[Tensor, Tensor]:
    probabilities = logits.softmax(-1)
    # One exp for both: at the maximum, where nothing is lost, softmax is one over its sum.
    log = (logits - logits.amax(-1, keepdim=True)).add_(probabilities.amax(-1, keepdim=True).log())
    return log.clamp_(min=torch.finfo(logits.dtype).min), probabilities


def kl(
    log_p: Float[Tensor, "*batch classes"],
    log_q: Float[Tensor, "*batch classes"],
    p: Float[Tensor, "*batch classes"] | None = None,
) -> Float[Tensor, "*batch"]:
    """KL(p, q) in nats; classes that p rules out add nothing, whatever q says of them.

    The logarithms as [`log_softmax`][] gives them; p itself, where it is known and nothing is
    differentiated.
    """
    if p is not None:
        return _or_infinite((log_p - log_q).mul_(p).sum(dim=-1))
    p = log_p.exp()
    # Not times 0: the gradient of exp is the difference, which times anything above 1 is infinite
    # where p has the lowest number, and that times 0 is NaN.
    difference = (log_p - log_q).masked_fill(p == 0, 0.0)
    return _or_infinite((p * difference).sum(dim=-1))


def cross_entropy(
    p: Float[Tensor, "*batch classes"], log_q: Float[Tensor, "*batch classes"]
) -> Float[Tensor, "*batch"]:
    """Of q under p, in nats; classes that p rules out add nothing, whatever q says of them.

    The logarithms as [`log_softmax`][] gives them.
    """
    return _or_infinite(-(p * log_q).sum(dim=-1))


def kl_to_mixture(
    p: Float[Tensor, "*batch classes"], mixture: Float[Tensor, "*batch classes"]
) -> Float[Tensor, "*batch"]:
    """KL(p, mixture) in nats, of probabilities, where p has a share in the mixture."""
    return (p * log_ratio(p, mixture)).sum(dim=-1)


def log_ratio(
    p: Float[Tensor, "*batch classes"], mixture: Float[Tensor, "*batch classes"]
) -> Float[Tensor, "*batch classes"]:
    """Logarithm of p over the mixture, of probabilities, where p has a share in the mixture."""
    # What both rule out has ratio 1; what p finds likely the mixture does too.
    tiny = torch.finfo(p.dtype).tiny
    return ((p + tiny) / (mixture + tiny)).log()


def through_softmax(
    q: Float[Tensor, "*batch classes"], slope: Float[Tensor, "*batch classes"], scale: float
) -> Float[Tensor, "*batch classes"]:
    r"""Gradient with respect to the logits of q, of what has the gradient `slope` in q, scaled.

    $$q_c \, (g_c - \textstyle\sum_k q_k g_k)$$
    """
    mean = (q * slope).sum(dim=-1, keepdim=True)
    return (slope - mean).mul_(q).mul_(scale)


def _or_infinite(values: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    # Only the lowest number comes here: a class that p holds possible and q rules out.
    return values.masked_fill(values > 1e30, torch.inf)


def without_label(
    log_p: Float[Tensor, "*batch classes"], labels: Int[Tensor, "*batch"]
) -> Float[Tensor, "*batch classes"]:
    """The distribution over the classes other than the label's, which has the lowest number."""
    others = log_p.scatter(-1, labels.unsqueeze(-1), -torch.inf)
    return log_softmax(others)
