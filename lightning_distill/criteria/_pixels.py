"""Criteria over pixels: every pixel that counts is a sample."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import UNLABELLED
from ._wrapper import Wrapper
from .criterion import Criterion


def has_class(labels: Int[Tensor, "..."], ignore: int) -> Bool[Tensor, "..."]:
    """Which pixels count: those that are neither -100 nor `ignore`."""
    return (labels != UNLABELLED) & (labels != ignore)


def resized(
    maps: Float[Tensor, "rows c h w"], size: Sequence[int]
) -> Float[Tensor, "rows c h2 w2"]:
    """Maps in the size of their labels, bilinear between the middles of the pixels.

    As the models of transformers do before they compare logits with labels.
    """
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)


class OverPixels(Wrapper):
    """Any criterion of logits `(samples, classes)`, given the pixels that count as its samples.

    Args:
        criterion: compares logits, and may read labels.
        logits: the names of its arguments that are maps of logits, `(rows, classes, h, w)`.
        labels: the names of those that are classes of pixels, `(rows, height, width)`.
        ignore: a class that stands for none, beside -100.
    """

    def __init__(
        self, criterion: Any, logits: Sequence[str], labels: Sequence[str] = (), ignore: int = 255
    ):
        super().__init__(criterion)
        self.logits, self.labels, self.ignore = tuple(logits), tuple(labels), ignore

    def around(self, criterion: Criterion) -> "OverPixels":
        """The same pixels for another criterion."""
        return OverPixels(criterion, self.logits, self.labels, self.ignore)

    def counted(self, *, pixels: Tensor | None = None, **inputs: Any) -> Tensor | None:
        """The pixels that count, if the labels say it, else all rows alike."""
        return None if pixels is None else has_class(pixels, self.ignore)

    def forward(self, *, pixels: Tensor | None = None, **inputs: Any) -> Float[Tensor, ""]:
        """The criterion's mean over the pixels that count; 0 if none does.

        Args:
            pixels: the class of each, `(rows, height, width)`, in whose size maps are compared;
                `None` compares all pixels, in the size of the largest map.
            inputs: arguments of the criterion.
        """
        maps = [inputs[name] for name in self.logits]
        for found in maps:
            if found.dim() != 4:
                raise ValueError(
                    "Logits of pixels have shape (rows, classes, height, width), got "
                    f"{tuple(found.shape)}. Is data.task=segmentation right for these models?"
                )
        size = max(found.shape[-2:] for found in maps) if pixels is None else pixels.shape[1:]
        if pixels is None:
            there = torch.ones((len(maps[0]), *size), dtype=torch.bool, device=maps[0].device)
        else:
            if pixels.dim() != 3 or len(pixels) != len(maps[0]):
                raise ValueError(
                    f"Labels of pixels have shape (rows, height, width), got {tuple(pixels.shape)} "
                    f"beside logits of shape {tuple(maps[0].shape)}."
                )
            there = has_class(pixels, self.ignore)
        given = dict(inputs)
        for name, found in zip(self.logits, maps, strict=True):
            given[name] = resized(found, size).movedim(1, -1)[there]
        for name in self.labels:
            given[name] = inputs[name][there]
        # A mean over nothing may be NaN.
        return self.criterion(**given) if bool(there.any()) else maps[0].sum() * 0.0

    def extra_repr(self) -> str:
        return f"logits={self.logits}, ignore={self.ignore}"
