"""Losses of torch, functions, and modules of anyone's, as criteria."""

import copy
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn, Tensor

from ._check import masked_mean
from ._log_probabilities import WithGradient
from .criterion import both, Criterion

# What a module may say about itself without deriving from Criterion.
ATTRIBUTES = [name for name in Criterion.__annotations__ if not name.startswith("_")]


def as_criterion(given: Any) -> Criterion:
    """The criterion itself, or a criterion that computes what a module or a function does.

    Raises:
        ValueError: for what cannot be called, and for losses of torch that take no mean.
    """
    return given if isinstance(given, Criterion) else Plain(given)


class Plain(Criterion):
    """What a module or a function computes, which need not know of [`Criterion`][].

    Its value is a scalar; of a function it may be one value per sample, of which the mean is taken.
    It is a mean over the samples that have a label (`labels`, not -100) and are true in `mask`, as
    far as it takes these, or by `weight`. Losses of torch with an `ignore_index` leave out the
    targets that equal it, and divide by the weights of the classes, if they have them. A module
    that has a member of [`Criterion`][] is asked for it.

    Args:
        loss: such as `torch.nn.CrossEntropyLoss()` or `torch.nn.functional.mse_loss`.
    """

    def __init__(self, loss: Callable[..., Any]):
        super().__init__()
        if not callable(loss):
            raise ValueError(
                "A criterion is a module or a function that returns a scalar, got "
                f"{type(loss).__name__}."
            )
        self.loss = loss
        try:
            signature = self.signature
        except ValueError as error:
            raise ValueError(
                f"{self.class_name} does not say which arguments it takes; wrap it in a function "
                "of your own, as in def loss(student, teacher): ..."
            ) from error
        self._ignored = self._setting(signature, "ignore_index")
        reduction = self._setting(signature, "reduction")
        if reduction in ("sum", "none"):
            raise ValueError(
                f"{self.class_name} has reduction={reduction!r}, and a term is one mean: over more "
                "rows a sum is larger. Take reduction='mean', and raise the term's `weight`."
            )
        for name in ATTRIBUTES:
            if isinstance(loss, nn.Module) and hasattr(loss, name):
                setattr(self, name, getattr(loss, name))

    @property
    def class_name(self) -> str:
        """What an error calls it: the module's class, or the function."""
        inner = self.loss.func if isinstance(self.loss, partial) else self.loss
        return getattr(inner, "__name__", type(inner).__name__)

    @property
    def signature(self) -> inspect.Signature:
        """The arguments of what is wrapped."""
        module = isinstance(self.loss, nn.Module)
        return inspect.signature(self.loss.forward if module else self.loss)  # type: ignore[attr-defined]

    @property
    def _is_module(self) -> bool:
        return isinstance(self.loss, nn.Module)

    def _setting(self, signature: inspect.Signature, name: str) -> Any:
        """A setting of torch's losses: of a module its attribute, of a function its default."""
        if self._is_module:
            return getattr(self.loss, name, None)
        found = signature.parameters.get(name)
        return None if found is None or found.default is found.empty else found.default

    def forward(self, *tensors: Any, **named: Any) -> Tensor:
        """What the module or function computes; 0 with a connected graph if no target counts."""
        arguments = self.signature.bind(*tensors, **named).arguments
        counted = self._targets(arguments.get("target"))
        if counted is None:
            value: Tensor = self.loss(*tensors, **named)
            if value.dim() == 0 or self._is_module:
                return value
            return masked_mean(value, self.counted(**arguments))
        # Its own mean over no target is NaN, in the value and in the gradient.
        count = counted.sum()
        return self._summed(*tensors, **named) / torch.where(count > 0, count, 1)

    def _summed(self, *tensors: Any, **named: Any) -> Tensor:
        if not self._is_module:
            return self.loss(*tensors, **named, reduction="sum")  # type: ignore[no-any-return]
        summed = copy.copy(self.loss)
        summed.reduction = "sum"  # type: ignore[attr-defined]
        return summed(*tensors, **named)  # type: ignore[no-any-return]

    def _targets(self, target: Any) -> Tensor | None:
        """Which targets count, or how much; `None` where none is ever left out."""
        if self._ignored is None or not isinstance(target, Tensor) or target.is_floating_point():
            return None
        counted = target != self._ignored
        weight = self._setting(self.signature, "weight")
        if weight is None:
            return counted
        return weight.to(target.device)[target.masked_fill(~counted, 0)] * counted

    def counted(self, **inputs: Any) -> Tensor | None:
        """What the loss leaves nothing out of, or what the module says itself."""
        if self._has("counted"):
            return self.loss.counted(**inputs)  # type: ignore[no-any-return,attr-defined]
        found = self._targets(inputs.get("target"))
        if found is not None:
            return found
        labels, weight = inputs.get("labels"), inputs.get("weight")
        if isinstance(labels, Tensor) and labels.is_floating_point():
            known = (labels != -100) & ~labels.isnan()
            # Several labels of one row, of which one is unknown.
            known = known.flatten(1).all(1) if known.dim() > 1 else known
            inputs["labels"] = torch.where(known, 0, -100)
        found = super().counted(**inputs)
        return found if weight is None or not weight.dim() else weighed(found, weight)

    def _has(self, name: str) -> bool:
        return self._is_module and hasattr(self.loss, name)

    @property
    def builds_parts(self) -> bool:
        """Whether the module has a method `prepare`."""
        return self._has("prepare")

    def prepare(self, *tensors: Any, **named: Any) -> None:
        """The module's."""
        if self._has("prepare"):
            self.loss.prepare(*tensors, **named)  # type: ignore[attr-defined]

    def observe(self, value: Tensor) -> None:
        """The module's."""
        if self._has("observe"):
            self.loss.observe(value)  # type: ignore[attr-defined]

    def logged(self) -> dict[str, Tensor]:
        """The module's."""
        return self.loss.logged() if self._has("logged") else {}  # type: ignore[attr-defined]

    def with_gradient(self) -> WithGradient | None:
        """The module's."""
        return self.loss.with_gradient() if self._has("with_gradient") else None  # type: ignore[attr-defined]

    def extra_repr(self) -> str:
        return "" if self._is_module else self.class_name


def weighed(counted: Tensor | None, weight: Tensor) -> Tensor:
    """How much counts of what is counted, by a weight for each row or for each entry."""
    weight = weight.float()
    if counted is None:
        return weight
    heavy = both(counted, torch.ones_like(weight))
    spread = weight.reshape(*weight.shape, *[1] * (heavy.dim() - weight.dim())).expand(heavy.shape)
    return torch.where(heavy, spread, 0.0)
