"""What all fused losses share: their settings, which tokens count, and two means in one pass."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_positive, in_full_precision, masked_mean, mean_of, without_autocast
from ._fused_linear import FusedLinear, MIB, Target, Work
from ._heads import parts, side_of
from ._label_share import label_share
from ._weighing import in_force
from .criterion import both, Criterion
from .hard_label import hard_label, UNLABELLED


class FusedCriterion(Criterion):
    """A mean over tokens, found from hidden states and heads without whole logits.

    Args:
        label_weight: of the cross-entropy with the labels in the same pass.
        shared_vocab: how many ids both models share; those that both have by default.
        shift_labels: position `i` is to say label `i + 1`.
        chunk_mb: MiB for the logits of a chunk.
        fused: false computes the same from whole logits with plain autograd.
    """

    needs_classes = True
    # Padding has no label.
    masked_by_labels = True

    def __init__(
        self,
        label_weight: float = 0.0,
        shared_vocab: int | None = None,
        shift_labels: bool = False,
        chunk_mb: float | None = None,
        fused: bool = True,
    ):
        super().__init__()
        check_settings(label_weight, shared_vocab, chunk_mb)
        self.label_weight, self.shared_vocab = float(label_weight), shared_vocab
        self.shift_labels, self.chunk_mb, self.fused = shift_labels, chunk_mb, fused

    def counted(self, **inputs: Any) -> Tensor | None:
        """The tokens that are true in the mask, or without one those that have a label."""
        labels, mask = inputs.get("labels"), inputs.get("mask")
        if mask is not None:
            return mask != 0
        return None if labels is None else self._placed(labels) != UNLABELLED

    def counted_labels(self, **inputs: Any) -> Tensor | None:
        """The tokens that have a label, of those that count."""
        labels, mask = inputs.get("labels"), inputs.get("mask")
        if labels is None or not self.label_weight:
            return None
        labelled = self._placed(labels) != UNLABELLED
        return labelled if mask is None else both(labelled, mask)

    def plus_labels(
        self,
        loss: Float[Tensor, ""],
        logits: Callable[[], Float[Tensor, "... classes"]],
        labels: Int[Tensor, "..."] | None,
    ) -> Float[Tensor, ""]:
        """The loss and the cross-entropy of the labels, of whole logits."""
        if labels is None:
            return loss
        mean = self.label_weight * masked_mean(hard_label(logits(), labels), labels != UNLABELLED)
        share = label_share()
        share.keep(mean)
        return loss + share.share * mean

    def _placed(self, labels: Tensor) -> Tensor:
        return shifted(labels) if self.shift_labels else labels


def shifted(labels: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """Labels that are the input's own tokens, moved to where they are predicted."""
    return F.pad(labels[..., 1:], (0, 1), value=UNLABELLED)


def mean_over_chunks(
    student: Float[Tensor, "... width"],
    head: Any,
    shared: int,
    counted: Bool[Tensor, "..."],
    target: Callable[[Callable[[Tensor], Tensor], torch.dtype | None], Target],
    labels: Int[Tensor, "..."] | None = None,
    label_weight: float = 0.0,
    chunk_mb: float | None = None,
) -> tuple[Float[Tensor, ""], Float[Tensor, " counted"]]:
    """The mean over the tokens that count, with its gradient, and their values.

    Args:
        student: what the student's head is given.
        head: the student's.
        shared: how many of its classes are compared.
        counted: which tokens count.
        target: makes what they are compared with, from a function that selects the tokens that
            count, and the type in which autocast takes products.
        labels: -100 where there is none, and where a token does not count.
        label_weight: of the cross-entropy with them.
        chunk_mb: MiB for the logits of a chunk.
    """
    whole = bool(counted.all())

    def select(values: Tensor) -> Tensor:
        return values.flatten(0, counted.dim() - 1) if whole else values[counted]

    student = select(student)
    labels = None if labels is None else select(labels)
    count = torch.tensor(len(student), device=student.device)
    of_label: Tensor | float = 0.0
    if labels is not None:
        # The sum is divided by the number of tokens, this part of it by that of labels.
        labelled = (labels != UNLABELLED).sum().clamp(min=1)
        share = label_share()
        of_label = label_weight * share.share * count.to(in_full_precision(student)[0]) / labelled
    weight, bias, _, _ = parts(head)
    learns = [
        torch.is_grad_enabled() and x is not None and x.requires_grad
        for x in (student, weight, bias)
    ]
    device = student.device.type
    chunk_mb = chunk_mb or (36 if device == "cpu" else 1024)
    lower = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    with without_autocast(student):
        work = Work(
            student=side_of("student", student, head, shared, lower),
            target=target(select, lower),
            labels=labels,
            label_weight=of_label,
            chunk_bytes=int(chunk_mb * MIB),
            hidden=learns[0],
            weight=learns[1],
            bias=learns[2],
            vocabulary=len(weight),
        )
        total, values, of_labels = FusedLinear.apply(student, weight, bias, work)
        if labels is not None:
            share.keep(label_weight * of_labels / labelled)
        return mean_of(total, count), values


def check_settings(label_weight: float, shared_vocab: int | None, chunk_mb: float | None) -> None:
    """Refuse what a fused criterion cannot be set to."""
    if isinstance(label_weight, bool) or not 0 <= label_weight < float("inf"):
        raise ValueError(f"`label_weight` must be finite and not negative, got {label_weight!r}.")
    if chunk_mb is not None:
        check_positive("chunk_mb", chunk_mb)
    if shared_vocab is not None and shared_vocab < 1:
        raise ValueError(f"`shared_vocab` must be at least 1, got {shared_vocab}.")


def refuse_weights(criterion: Any, instead: str) -> None:
    """Refuse to be weighed by sample: the values of tokens are summed while they are found."""
    if in_force() is not None:
        raise ValueError(
            f"{type(criterion).__name__} cannot be weighed by sample: it sums over the tokens "
            f"while it computes them. Use {instead} on the logits."
        )


def tokens_that_count(
    student: Float[Tensor, "... width"],
    mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None,
    labels: Int[Tensor, "..."] | None,
    label_weight: float,
    shift_labels: bool,
) -> tuple[Bool[Tensor, "..."], Int[Tensor, "..."] | None]:
    """Which tokens count, and the labels of those for the cross-entropy, if it has a weight.

    Raises:
        ValueError: for a mask or labels of another shape, or a weight without labels.
    """
    if label_weight and labels is None:
        raise ValueError(
            f"`label_weight` is {label_weight:.4g} and there are no labels: add "
            "labels=batch.labels to the term's inputs, or set `label_weight` to 0."
        )
    tokens = student.shape[:-1]
    if labels is not None:
        if labels.shape != tokens:
            raise ValueError(
                f"`labels` must have one entry per token, shape {tuple(tokens)}, "
                f"got {tuple(labels.shape)}."
            )
        labels = shifted(labels) if shift_labels else labels
    if mask is not None:
        if mask.shape != tokens:
            raise ValueError(
                f"`mask` must have one entry per token, shape {tuple(tokens)}, got "
                f"{tuple(mask.shape)}."
            )
        counted = mask != 0
    elif labels is not None:
        counted = labels != UNLABELLED
    else:
        counted = torch.ones(tokens, dtype=torch.bool, device=student.device)
    if labels is None or not label_weight:
        return counted, None
    return counted, labels.masked_fill(~counted, UNLABELLED)
