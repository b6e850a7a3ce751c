"""Hard labels: the ordinary loss of the task, on the rows that have a label."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_choice, in_full_precision, masked_mean, mean_of
from ._weighing import in_force
from .criterion import Criterion

KINDS = ("cross_entropy", "binary_cross_entropy", "mse")
UNLABELLED = -100


def is_labelled(
    labels: Float[Tensor, "..."] | Int[Tensor, "..."], kind: str = "cross_entropy"
) -> Bool[Tensor, "*batch"]:
    """Which samples have a label: not -100, nor NaN in regression; one entry per sample."""
    if kind == "binary_cross_entropy":
        return (labels != UNLABELLED).all(dim=-1)
    return ~labels.isnan() if kind == "mse" else labels != UNLABELLED


def hard_label(
    student: Float[Tensor, "..."],
    labels: Float[Tensor, "..."] | Int[Tensor, "..."],
    kind: str = "cross_entropy",
    label_smoothing: float = 0.0,
) -> Float[Tensor, "*batch"]:
    r"""The label loss per sample; 0 for samples without a label.

    Args:
        student: logits `(*batch, classes)`; for `mse` predictions `(*batch)` or `(*batch, 1)`.
        labels: `cross_entropy`: class numbers `(*batch)`, -100 where there is none;
            `binary_cross_entropy`: probabilities `(*batch, labels)`, -100 in a row that has none;
            `mse`: numbers `(*batch)`, NaN where there is none.
        kind: `cross_entropy` $-\log\sigma(s)_y$ in nats, `binary_cross_entropy`, the mean over
            independent labels in nats, or `mse` $(s - y)^2$.
        label_smoothing: share of the label's probability that is spread over all classes
            (Szegedy et al., 2016, https://arxiv.org/abs/1512.00567, section 7).

    Raises:
        ValueError: for labels of the wrong type, shape or range.
    """
    check_choice("kind", kind, KINDS)
    (student,) = in_full_precision(student)
    if kind == "cross_entropy":
        return _cross_entropy(student, labels, label_smoothing)
    (labels,) = in_full_precision(labels)
    if kind == "mse" and student.dim() == labels.dim() + 1 and student.shape[-1] == 1:
        student = student.squeeze(-1)
    if student.shape != labels.shape or not labels.is_floating_point():
        raise ValueError(
            f"`labels` for {kind} must be floating point numbers of shape {tuple(student.shape)}, "
            f"as the student's predictions, got {labels.dtype} of shape {tuple(labels.shape)}."
        )
    labelled = is_labelled(labels, kind)
    if kind == "mse":
        return (student - labels.nan_to_num()).square().masked_fill(~labelled, 0.0)
    targets = labels.masked_fill(~labelled[..., None], 0.0)
    if targets.device.type == "cpu" and ((targets < 0) | (targets > 1)).any():
        raise ValueError(
            "`labels` for binary_cross_entropy lie between 0 and 1 (a row without labels is all "
            f"-100), got {targets.min():.4g} to {targets.max():.4g}."
        )
    targets = targets * (1 - label_smoothing) + label_smoothing / 2
    values = F.binary_cross_entropy_with_logits(student, targets, reduction="none").mean(dim=-1)
    return values.masked_fill(~labelled, 0.0)


def _cross_entropy(
    student: Tensor, labels: Tensor, label_smoothing: float, reduction: str = "none"
) -> Tensor:
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(
            f"`labels` for cross_entropy must be whole numbers (int64), got {labels.dtype}. "
            "For numbers use kind=mse, for independent labels kind=binary_cross_entropy."
        )
    if labels.shape != student.shape[:-1]:
        raise ValueError(
            f"`labels` must have the shape of the student's logits without the classes, "
            f"{tuple(student.shape[:-1])}, got {tuple(labels.shape)}."
        )
    classes = student.shape[-1]
    try:
        values = F.cross_entropy(
            student.reshape(-1, classes),
            labels.reshape(-1).long(),
            ignore_index=UNLABELLED,
            label_smoothing=label_smoothing,
            reduction=reduction,
        )
    except IndexError as error:
        # On other devices than the CPU torch's own assertion fires, later.
        outside = labels[(labels != UNLABELLED) & ((labels < 0) | (labels >= classes))]
        raise ValueError(
            f"Label {int(outside[0])} does not exist: the student has {classes} classes, "
            f"numbered 0 to {classes - 1}, and {UNLABELLED} means unlabelled. Do the data and "
            "the student have the same number of labels?"
        ) from error
    return values.reshape(labels.shape) if reduction == "none" else values


def mean_hard_label(
    student: Float[Tensor, "..."],
    labels: Float[Tensor, "..."] | Int[Tensor, "..."],
    kind: str,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """The mean over labelled samples."""
    counted = is_labelled(labels, kind)
    if kind == "cross_entropy" and in_force() is None:
        (student,) = in_full_precision(student)
        return mean_of(_cross_entropy(student, labels, label_smoothing, "sum"), counted.sum())
    return masked_mean(hard_label(student, labels, kind, label_smoothing), counted)


class HardLabel(Criterion):
    """Mean of [`hard_label`][] over the samples that have a label; 0 if none has.

    Args:
        kind: `cross_entropy` (one class of many), `binary_cross_entropy` (independent labels) or
            `mse` (regression).
        label_smoothing: from 0 to below 1.
    """

    def __init__(self, kind: str = "cross_entropy", label_smoothing: float = 0.0):
        super().__init__()
        check_choice("kind", kind, KINDS)
        if not 0 <= label_smoothing < 1:
            raise ValueError(
                f"`label_smoothing` must be at least 0 and below 1, got {label_smoothing}."
            )
        self.kind, self.label_smoothing = kind, label_smoothing

    def forward(
        self,
        student: Float[Tensor, "..."],
        labels: Float[Tensor, "..."] | Int[Tensor, "..."],
    ) -> Float[Tensor, ""]:
        """The mean over labelled samples."""
        return mean_hard_label(student, labels, self.kind, self.label_smoothing)

    def counted(self, **inputs: Any) -> Tensor | None:
        """The samples that have a label."""
        labels = inputs.get("labels")
        return None if labels is None else is_labelled(labels, self.kind)

    def extra_repr(self) -> str:  # noqa: D102
        return f"kind={self.kind!r}, label_smoothing={self.label_smoothing}"
