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
            "For logits: do both heads predict the same classes? For heads of one vocabulary, of "
            "which one is padded: criteria=[fused_linear_divergence] compares what they share. For "
            "features: set an adapter."
        )


def reads_logits(value: Any) -> bool:
    """Whether it is a module of `temperatures`, which is called on logits, and no schedule.

    A number has no members and a schedule may be any function, so this one is asked for by name.
    """
    return bool(getattr(value, "reads_logits", False))


def refuse_logits(name: str, value: Any) -> None:
    """Refuse a number that depends on the logits, where one is needed for all samples."""
    if reads_logits(value):
        raise ValueError(
            f"`{name}` must be a number or a schedule for this criterion, and "
            f"{type(value).__name__} may give each sample its own."
        )


def check_positive(name: str, value: Number | Tensor) -> None:
    """Refuse a number that is not positive; a schedule is looked at when it is called."""
    refuse_logits(name, value)
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
    refuse_logits(name, value)
    number = value() if callable(value) else value
    check_positive(name, number)
    return number


def check_temperature(value: Number) -> None:
    """Refuse a number that is not positive; one that depends on logits is looked at with them."""
    if not reads_logits(value):
        check_positive("temperature", value)


def temperature_of(
    value: Number, student: Tensor, teacher: Tensor, mask: Tensor | None
) -> float | Tensor:
    """The temperature now: a number, or what a module makes of the logits, one for each sample."""
    if not reads_logits(value):
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

    It is the mean of this batch in this process. What a batch counts beside the others of a step,
    of all processes, is the [`Objective`][]'s to say, by what [`Criterion.counted`][] names.

    Within [`SampleWeighted`][] it is the weighted mean.

    Args:
        values: one per sample or token.
        mask: of the same shape; true (or not 0) counts. All count by default.

    Raises:
        ValueError: if the shapes differ.
    """
    weights = in_force()
    if mask is None:
        if weights is not None:
            return weights.mean(values, None)
        return values.sum() / max(values.numel(), 1)
    if mask.shape != values.shape:
        raise ValueError(
            f"`mask` must have one entry per value, shape {tuple(values.shape)}, got "
            f"{tuple(mask.shape)}. Do student and teacher have as many tokens as the mask?"
        )
    counted = mask if mask.dtype == torch.bool else mask != 0
    if weights is not None:
        return weights.mean(values, counted)
    # Selected and not multiplied: 0 times NaN is NaN, in the value and in the gradient.
    return mean_of(torch.where(counted, values, 0.0).sum(), counted.sum())


def mean_of(total: Float[Tensor, ""], count: Int[Tensor, ""]) -> Float[Tensor, ""]:
    """As `masked_mean`, of the sum of the values and how many they are.

    Raises:
        ValueError: within [`SampleWeighted`][], as a sum has no values left to weigh.
    """
    if in_force() is not None:
        raise ValueError("A sum over samples cannot be weighed; take masked_mean of the values.")
    return total / count.clamp(min=1)
