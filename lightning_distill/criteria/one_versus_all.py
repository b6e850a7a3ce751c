"""One versus all: independent labels, each as a choice between two classes."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import nn, Tensor

from ._check import check_same_shape, masked_mean, Number, positive, UNLABELLED
from ._log_probabilities import at_temperature
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


class OneVersusAll(nn.Module):
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
        super().__init__()
        if isinstance(criterion, BETWEEN_CLASSES):
            raise ValueError(
                f"{type(criterion).__name__} compares the classes of a sample with one another, "
                "and a label on its own has two. Take SoftTarget, or LogitMSE without a wrapper."
            )
        self.criterion = SoftTarget(temperature=1.0) if criterion is None else criterion

    def forward(
        self,
        student: Float[Tensor, "*batch labels"],
        teacher: Float[Tensor, "*batch labels"],
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
        check_same_shape(student, teacher)
        if mask is not None:
            mask = _one_per_logit("mask", mask, student)
        if labels is None and type(self.criterion) is SoftTarget:
            temperature = self.criterion.temperature
            if not getattr(temperature, "reads_logits", False):
                return masked_mean(_between_sigmoids(student, teacher, temperature), mask)
        named: dict[str, Tensor] = {}
        if labels is not None:
            unknown = labels.isnan() if labels.is_floating_point() else labels < 0
            classes = labels.masked_fill(unknown | (labels < 0), UNLABELLED).long()
            named["labels"] = _one_per_logit("labels", classes, student)
        if mask is not None:
            named["mask"] = mask
        return self.criterion(one_versus_all(student), one_versus_all(teacher), **named)


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


def _one_per_logit(name: str, values: Tensor, logits: Tensor) -> Tensor:
    if values.shape == logits.shape:
        return values
    if values.shape != logits.shape[:-1] or (name == "labels" and logits.shape[-1] != 1):
        raise ValueError(
            f"`{name}` must have one entry per logit, shape {tuple(logits.shape)}, got "
            f"{tuple(values.shape)}."
        )
    return values.unsqueeze(-1).expand(logits.shape)
