"""What the house may ask of a criterion, with the answers of one that has nothing to add."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import nn, Tensor

from ._check import UNLABELLED
from ._log_probabilities import WithGradient


class Criterion(nn.Module):
    """The mathematics of a difference: the mean of a value over entries that `counted` names.

    A subclass writes `forward(student, teacher, ...)`, which returns a scalar, and changes those of
    the members below that do not hold for it. Any other module or function that returns a scalar
    serves as well: a [`Term`][lightning_distill.Term] wraps it.

    Attributes:
        across_samples: the value of a sample depends on the other samples of the batch, so that the
            value of two batches as one is not the mean of theirs.
        gather: in training the value is that of the samples of all processes together. It is the
            same on each of them.
        needs_classes: it compares a softmax over the last dimension, which means nothing where
            labels are independent of each other, or numbers.
        compares_entries: it compares the entries of the last dimension with each other, such as the
            scores of a query's candidates, so that fewer than two say nothing.
        any_classes: student and teacher may predict other classes, such as tokens of different
            vocabularies.
        shift_labels: it takes labels for the tokens of the input itself, and compares position
            `i` with label `i + 1`.
        masked_by_labels: padding has no label, so a term that reads labels needs no mask.
        label_weight: what a cross-entropy with the labels within the same pass is multiplied by; it
            is a second mean, over what `counted_labels` names.
        encoding: in which encoding it reads a teacher's answers from a cache, `top_k` or
            `sampled`; `None` if it reads whole ones.
        encoding_temperature: at which temperature it reads them; `None` for any.
    """

    across_samples: bool = False
    gather: bool = False
    needs_classes: bool = False
    compares_entries: bool = False
    any_classes: bool = False
    shift_labels: bool = False
    masked_by_labels: bool = False
    label_weight: float = 0.0
    encoding: str | None = None
    encoding_temperature: float | None = None

    def counted(self, **inputs: Any) -> Tensor | None:
        """Over which entries the value is the mean, from what the term reads of the batch.

        It is asked before any model runs. By default: what has a label (not -100) and is true in
        `mask`, whichever of `labels` and `mask` the term reads.

        Args:
            inputs: what the term reads of the batch, by the names of `forward`'s arguments.

        Returns:
            A tensor whose sum is how much counts: booleans, or a weight for each entry; `None` if
            every row counts once.
        """
        labels, mask = inputs.get("labels"), inputs.get("mask")
        found = None if labels is None else labels != UNLABELLED
        return found if mask is None else both(found, mask)

    def counted_labels(self, **inputs: Any) -> Tensor | None:
        """As `counted`, of the cross-entropy that `label_weight` multiplies; `None` without one."""
        return None

    def parts(self) -> Mapping[str, "Part"]:
        """The means that it is the weighted sum of, by name; empty if it is one mean itself.

        A term makes a term of each, as every mean is divided by what counts in it.
        """
        return {}

    def prepare(self, *tensors: Any, **named: Any) -> None:
        """Build what is trained, for tensors of these sizes; called once, as `forward` is."""

    @property
    def builds_parts(self) -> bool:
        """Whether `prepare` builds something, so that each pair of layers needs its own."""
        return type(self).prepare is not Criterion.prepare

    def observe(self, value: Float[Tensor, ""]) -> None:
        """Hear the mean of the last training batch over all processes, to adapt to it."""

    def logged(self) -> dict[str, Tensor]:
        """What else is to be logged of the last call: scalars by name."""
        return {}

    def with_gradient(self) -> WithGradient | None:
        """A function from logits to values and their gradient, for a fused loss; or `None`."""
        return None

    @property
    def softened_at(self) -> float | None:
        """The temperature at which it compares distributions; `None` without a fixed one."""
        temperature = getattr(self, "temperature", None)
        return float(temperature) if isinstance(temperature, int | float) else None

    @property
    def class_name(self) -> str:
        """What an error calls it."""
        return type(self).__name__

    @property
    def signature(self) -> inspect.Signature:
        """The arguments that it takes."""
        return inspect.signature(self.forward)

    @property
    def takes_mask(self) -> bool:
        """Whether it takes a `mask` of the samples or tokens that count."""
        return "mask" in self.signature.parameters


def both(counted: Tensor | None, mask: Tensor) -> Tensor:
    """What counts and is true in a mask; a row's entry holds for all that the other has of it."""
    true = mask != 0
    if counted is None:
        return true
    deeper = max(counted.dim(), true.dim())
    counted, true = (x.reshape(*x.shape, *[1] * (deeper - x.dim())) for x in (counted, true))
    return counted & true


@dataclass(frozen=True)
class Part:
    """One mean of a criterion that is a weighted sum of several.

    Attributes:
        criterion: whose value it is.
        weight: what it is multiplied by.
        inputs: its arguments, and which argument of the whole each of them is.
    """

    criterion: Criterion
    weight: float
    inputs: Mapping[str, str]
