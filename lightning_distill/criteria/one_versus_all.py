"""One versus all: independent labels, each as a choice between two classes."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import nn, Tensor

from ._check import check_same_shape, masked_mean, Number, positive, reads_logits, UNLABELLED
from ._log_probabilities import at_temperature
from ._wrapper import Wrapper
from .criterion import Criterion
from .dist import DIST
from .listwise_kl import ListwiseKL
from .logit_standardization import LogitStandardization
from .margin_mse import MarginMSE
from .mlkd import MLKD
from .soft_target import SoftTarget

# Each says how the classes of a sample lie to one another, of which two have nothing to say.
BETWEEN_CLASSES = (DIST, ListwiseKL, LogitStandardization, MarginMSE, MLKD)


def one_versus_all(logits: Float[Tensor, "*batch labels"]) -> Float[Tensor, "*batch labels 2"]:
    r"""Logits of two classes per label, of which class 1 is that the label holds.

    $$z \mapsto (0, z), \quad \text{since} \quad \sigma\big((0, z) / \tau\big)_1
    = \frac{1}{1 + e^{-z / \tau}}$$

    References:
        Yang et al., *Multi-Label Knowledge Distillation*, 2023,
        https://arxiv.org/abs/2308.06453, section 3.2.
    """
    return torch.stack([torch.zeros_like(logits), logits], dim=-1)


class OneVersusAll(Wrapper):
    """Any criterion between classes, on each of several independent labels, or on a binary one.

    With [`SoftTarget`][] it is the divergence between the sigmoids, at a temperature.

    Args:
        criterion: called as `criterion(student, teacher, ...)` with one position more than the
            labels have; [`SoftTarget`][] at temperature 1 by default.

    Raises:
        ValueError: for criteria that compare the classes of a sample with one another, such as
            [`DIST`][] and [`LogitStandardization`][].
    """

    def __init__(self, criterion: nn.Module | None = None):
        if isinstance(criterion, BETWEEN_CLASSES):
            raise ValueError(
                f"{type(criterion).__name__} compares the classes of a sample with one another, "
                "and a label on its own has two. Take SoftTarget, or LogitMSE without a wrapper."
            )
        super().__init__(SoftTarget(temperature=1.0) if criterion is None else criterion)
        # Each label has two classes of its own.
        self.needs_classes = False

    def around(self, criterion: Criterion) -> "OneVersusAll":
        """The same for another criterion."""
        return OneVersusAll(criterion)

    def counted(self, **inputs: Any) -> Tensor | None:
        """What counts in the criterion, of the labels or of the samples."""
        labels = inputs.get("labels")
        if labels is not None:
            inputs["labels"] = _as_classes(labels)
        return self.criterion.counted(**inputs)

    def prepare(self, student: Tensor, teacher: Tensor | None = None, **named: Any) -> None:
        """The criterion's, for logits of two classes."""
        both = [student] if teacher is None else [student, teacher]
        self.criterion.prepare(*(one_versus_all(x) for x in both), **named)

    def forward(
        self,
        student: Float[Tensor, "*batch labels"],
        teacher: Float[Tensor, "*batch labels"] | None = None,
        labels: Int[Tensor, "..."] | Float[Tensor, "..."] | None = None,
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over the labels of the samples for which `mask` is true.

        Args:
            student: one logit per label; a binary head has one.
            teacher: likewise.
            labels: 0 or 1, shaped as the logits, or as the samples of a binary head; -100 and NaN
                are unknown. Only for criteria that take labels.
            mask: of the shape of the samples or of the logits.
        """
        if teacher is not None:
            check_same_shape(student, teacher)
        if mask is not None:
            mask = _one_per_logit("mask", mask, student)
        if labels is None and teacher is not None and type(self.criterion) is SoftTarget:
            temperature = self.criterion.temperature
            if not reads_logits(temperature):
                return masked_mean(_between_sigmoids(student, teacher, temperature), mask)
        named: dict[str, Tensor] = {}
        if labels is not None:
            named["labels"] = _one_per_logit("labels", _as_classes(labels), student)
        if mask is not None:
            named["mask"] = mask
        both = [student] if teacher is None else [student, teacher]
        return self.criterion(*(one_versus_all(x) for x in both), **named)


def _between_sigmoids(student: Tensor, teacher: Tensor, temperature: Number) -> Tensor:
    """What [`soft_target`][] says of the two classes of each label, without making them."""
    tau = positive("temperature", temperature)
    # Minus infinity times a probability of 0 would be NaN.
    lowest = torch.finfo(torch.float32).min
    student, teacher = (x.clamp(min=lowest) for x in at_temperature(student, teacher, tau))
    p = teacher.sigmoid()
    of_student, of_teacher = (
        F.binary_cross_entropy_with_logits(x, p, reduction="none") for x in (student, teacher)
    )
    values = of_student - of_teacher
    return values.masked_fill(values > 1e30, torch.inf) * tau**2


def _as_classes(labels: Tensor) -> Tensor:
    unknown = labels.isnan() if labels.is_floating_point() else labels < 0
    return labels.masked_fill(unknown | (labels < 0), UNLABELLED).long()


def _one_per_logit(name: str, values: Tensor, logits: Tensor) -> Tensor:
    if values.shape == logits.shape:
        return values
    if values.shape != logits.shape[:-1] or (name == "labels" and logits.shape[-1] != 1):
        raise ValueError(
            f"`{name}` must have one entry per logit, shape {tuple(logits.shape)}, got "
            f"{tuple(values.shape)}."
        )
    return values.unsqueeze(-1).expand(logits.shape)
