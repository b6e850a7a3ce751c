"""Class subset: only some of the classes, and wherever the classes are."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import nn, Tensor

from ._check import UNLABELLED
from ._wrapper import Wrapper
from .criterion import Criterion
from .soft_target import SoftTarget


def class_subset(
    logits: Float[Tensor, "..."], classes: Sequence[int] | None = None, dim: int = -1
) -> Float[Tensor, "*batch classes"]:
    """The logits of those classes, moved from dimension `dim` to the last.

    What is left is a distribution over the classes kept, as a softmax over them alone makes it.

    Args:
        logits: of any shape.
        classes: numbers of the classes to keep, in order; `None` keeps all.
        dim: the classes: -1 for (B, C) and (B, T, V), 1 for maps (B, C, H, W).

    Raises:
        ValueError: for a class or a dimension that does not exist.
    """
    if not -logits.dim() <= dim < logits.dim():
        raise ValueError(f"`dim` is {dim}, but the logits have shape {tuple(logits.shape)}.")
    logits = logits.movedim(dim, -1)
    if classes is None:
        return logits
    if max(classes) >= logits.shape[-1]:
        raise ValueError(
            f"`classes` names class {max(classes)}, but there are {logits.shape[-1]}, numbered "
            f"from 0, in dimension {dim}."
        )
    return logits[..., torch.tensor(classes, device=logits.device)]


class ClassSubset(Wrapper):
    """Any criterion between logits, on some classes, or on maps of logits.

    Student and teacher may have heads of different sizes: each has classes of its own to keep.

    Args:
        criterion: called as `criterion(student, teacher, ...)`; [`SoftTarget`][] by default.
        classes: numbers of the student's classes to keep, in order; `None` keeps all. Samples with
            another label than these count as unlabelled.
        teacher_classes: which of the teacher's classes these are; the same numbers by default.
        dim: the classes: -1 for (B, C) and (B, T, V), 1 for maps (B, C, H, W), whose labels and
            mask have shape (B, H, W).

    Raises:
        ValueError: for fewer than two classes, one listed twice, or lists of unequal length.
    """

    def __init__(
        self,
        criterion: nn.Module | None = None,
        classes: Sequence[int] | None = None,
        teacher_classes: Sequence[int] | None = None,
        dim: int = -1,
    ):
        super().__init__(SoftTarget() if criterion is None else criterion)
        self.classes = _checked("classes", classes)
        self.teacher_classes = _checked("teacher_classes", teacher_classes) or self.classes
        self.dim = dim
        kept = [c for c in (self.classes, self.teacher_classes) if c is not None]
        if self.classes is None and teacher_classes is not None:
            raise ValueError("`teacher_classes` says which of the teacher's classes `classes` are.")
        if len({len(c) for c in kept}) > 1:
            raise ValueError(
                f"`classes` and `teacher_classes` must name equally many, got {len(kept[0])} and "
                f"{len(kept[1])}."
            )

    def around(self, criterion: Criterion) -> "ClassSubset":
        """The same classes for another criterion."""
        return ClassSubset(criterion, self.classes, self.teacher_classes, self.dim)

    def counted(self, **inputs: Any) -> Tensor | None:
        """What counts in the criterion; samples with a label of another class have none."""
        return self.criterion.counted(**self._with_places(inputs))

    def prepare(self, student: Tensor, teacher: Tensor | None = None, **named: Any) -> None:
        """The criterion's, for those classes."""
        self.criterion.prepare(*self._kept(student, teacher), **self._with_places(named))

    def forward(
        self,
        student: Float[Tensor, "..."],
        teacher: Float[Tensor, "..."] | None = None,
        **named: Any,
    ) -> Float[Tensor, ""]:
        """What the criterion says of those classes; other arguments go to it as they are."""
        return self.criterion(*self._kept(student, teacher), **self._with_places(named))

    def _kept(self, student: Tensor, teacher: Tensor | None) -> list[Tensor]:
        found = [class_subset(student, self.classes, self.dim)]
        if teacher is not None:
            found.append(class_subset(teacher, self.teacher_classes, self.dim))
        return found

    def _with_places(self, named: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments with labels that are numbers of the classes kept."""
        labels = named.get("labels")
        if labels is None or self.classes is None:
            return dict(named)
        kept = torch.tensor(self.classes, device=labels.device)
        found = labels.unsqueeze(-1) == kept
        place = found.long().argmax(dim=-1)
        return {**named, "labels": place.masked_fill(~found.any(dim=-1), UNLABELLED)}

    def extra_repr(self) -> str:  # noqa: D102
        return f"classes={self.classes}, dim={self.dim}"


def _checked(name: str, classes: Sequence[int] | None) -> list[int] | None:
    if classes is None:
        return None
    chosen = list(classes)
    if len(chosen) < 2 or len(set(chosen)) != len(chosen) or min(chosen) < 0:
        raise ValueError(
            f"`{name}` must list two or more different classes, numbered from 0, got {chosen}."
        )
    return chosen
