"""Checks and means that every criterion shares."""

import math
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._weighing import in_force

# What a constructor takes: a number, a schedule, or a module that reads logits (temperatures).
Number = float | int | Callable[..., Any]
# What a function takes: one for all samples, or one for each.
Temperature = float | Float[Tensor, ""] | Float[Tensor, "*batch"]
UNLABELLED = -100


def check_same_shape(student: Tensor, teacher: Tensor) -> None:
    """Refuse tensors that would broadcast: a silent broadcast is a wrong loss."""
    if student.shape != teacher.shape:
        raise ValueError(
            "student and teacher must have the same shape, got "
            f"{tuple(student.shape)} and {tuple(teacher.shape)}. "
            "For logits: do both heads predict the same classes? For features: set an adapter."
        )


def check_positive(name: str, value: Number | Tensor) -> None:
    """Refuse a number that is not positive; a schedule is looked at when it is called."""
    if getattr(value, "reads_logits", False):
        raise ValueError(
            f"`{name}` must be a number or a schedule for this criterion, and "
            f"{type(value).__name__} may give each sample its own."
        )
    if callable(value):
        return
    if isinstance(value, Tensor):
        # One for each sample, of which there may be none.
        value = float(value.detach().min()) if value.numel() else 1.0
    _check_finite(name, value)
    if not value > 0:
        raise ValueError(f"`{name}` must be positive, got {value}.")


def positive(name: str, value: Number) -> float:
    """The number now, if it is a schedule, checked."""
    number = value() if callable(value) else value
    check_positive(name, number)
    return number


def check_temperature(value: Number) -> None:
    """Refuse a number that is not positive; one that depends on logits is looked at with them."""
    if not getattr(value, "reads_logits", False):
        check_positive("temperature", value)


def temperature_of(
    value: Number, student: Tensor, teacher: Tensor, mask: Tensor | None
) -> float | Tensor:
    """The temperature now: a number, or what a module makes of the logits, one for each sample."""
    if not getattr(value, "reads_logits", False):
        return positive("temperature", value)
    found = value(student, teacher, mask)  # type: ignore[operator,call-arg]
    if mask is not None and found.shape == mask.shape:
        # The gradient of what is masked may be NaN, and must not reach what is learned.
        found = found.where(mask != 0, 1.0)
    return found


def check_share(name: str, value: Number) -> None:
    """Refuse a number outside of 0 to 1; a schedule is looked at when it is called."""
    if callable(value):
        return
    _check_finite(name, value)
    if not 0 <= value <= 1:
        raise ValueError(f"`{name}` must lie between 0 and 1, got {value}.")


def _check_finite(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"`{name}` must be a number, got {value!r}.")
    if not math.isfinite(value):
        raise ValueError(f"`{name}` must be a finite number, got {value}.")


def share(name: str, value: Number) -> float:
    """The number now, if it is a schedule, checked to be a share."""
    number = value() if callable(value) else value
    check_share(name, number)
    return number


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a word that is not among the choices."""
    if value not in choices:
        near = get_close_matches(str(value), choices, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"`{name}` must be one of {', '.join(choices)}, got {value!r}.{hint}")


def in_full_precision(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in float32 at least: a divergence over many classes is lost in 16 bits."""
    return tuple(
        t if t.dtype in (torch.float32, torch.float64) or not t.is_floating_point() else t.float()
        for t in tensors
    )


def without_autocast(tensor: Tensor) -> Any:
    """A context in which matrix products keep the precision of what they are given."""
    return torch.autocast(tensor.device.type, enabled=False)


def labelled(
    labels: Int[Tensor, "*batch"], mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None
) -> tuple[Int[Tensor, "*batch"], Bool[Tensor, "*batch"]]:
    """Labels to index with, and which samples have one (not -100) and count by `mask`."""
    counted = labels != UNLABELLED
    if mask is not None:
        if mask.shape != labels.shape:
            raise ValueError(
                f"`mask` must have one entry per value, shape {tuple(labels.shape)}, got "
                f"{tuple(mask.shape)}."
            )
        counted = counted & (mask != 0)
    return labels.masked_fill(~counted, 0), counted


def masked_mean(
    values: Float[Tensor, "*batch"],
    mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | Float[Tensor, "..."] | None = None,
) -> Float[Tensor, ""]:
    """Mean of the values that count; 0 with a connected graph if none does.

    While training in several processes the mean is that over all of them: each divides by
    its share of the count of all, so that the average of the gradients, which DDP takes, is the
    gradient of one process with the whole batch, also where the ranks count unequally many.
    Every rank must call it equally often.

    Within [`SampleWeighted`][] it is the weighted mean.

    Args:
        values: one per sample or token.
        mask: of the same shape; true (or not 0) counts. All count by default.

    Raises:
        ValueError: if the shapes differ.
    """
    weights = in_force()
    if mask is None and weights is not None:
        return _over_ranks(*weights.sums(values, None))
    if mask is None:
        if _training_ranks() == 1:
            return values.sum() / max(values.numel(), 1)
        return _over_ranks(values.sum(), torch.tensor(values.numel(), device=values.device))
    if mask.shape != values.shape:
        raise ValueError(
            f"`mask` must have one entry per value, shape {tuple(values.shape)}, got "
            f"{tuple(mask.shape)}. Do student and teacher have as many tokens as the mask?"
        )
    counted = mask if mask.dtype == torch.bool else mask != 0
    if weights is not None:
        return _over_ranks(*weights.sums(values, counted))
    # Selected and not multiplied: 0 times NaN is NaN, in the value and in the gradient.
    return _over_ranks(torch.where(counted, values, 0.0).sum(), counted.sum())


def mean_of(total: Float[Tensor, ""], count: Int[Tensor, ""]) -> Float[Tensor, ""]:
    """As `masked_mean`, of the sum of the values and how many they are.

    Raises:
        ValueError: within [`SampleWeighted`][], as a sum has no values left to weigh.
    """
    if in_force() is not None:
        raise ValueError("A sum over samples cannot be weighed; take masked_mean of the values.")
    return _over_ranks(total, count)


def _over_ranks(total: Tensor, count: Tensor) -> Tensor:
    world = _training_ranks()
    if world > 1:
        own, count = count, count.detach().clone()
        torch.distributed.all_reduce(count)
        if own.requires_grad:
            # Weights that are learned change the divisor of every rank's values.
            whole = total.detach().clone()
            torch.distributed.all_reduce(whole)
            total = total - whole / _divisor(count) * (own - own.detach())
        total = total * world
    return total / _divisor(count)


def sum_over_ranks(count: Tensor) -> Tensor:
    """Of all processes while training; every rank must call it equally often."""
    if _training_ranks() > 1:
        count = count.detach().clone()
        torch.distributed.all_reduce(count)
    return count


def _divisor(count: Tensor) -> Tensor:
    return count.clamp(min=1) if not count.is_floating_point() else count.masked_fill(count == 0, 1)


def _training_ranks() -> int:
    return ranks() if torch.is_grad_enabled() else 1


def ranks() -> int:
    """How many processes train together."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    return 1
