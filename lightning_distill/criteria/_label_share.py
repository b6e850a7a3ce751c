"""The cross-entropy within a fused loss: how often it counts in a step, and what it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor


class LabelShare:
    """Of one call of a criterion that takes a second mean in the same pass (`label_weight`).

    The gradient of both is found at once, so what the second counts beside the first has to be
    known before. What it was is kept, as it is logged by a count of its own.

    Attributes:
        share: what the second mean is multiplied by.
    """

    def __init__(self, share: float | Tensor = 1.0):
        self.share = share
        self._means: list[Tensor] = []

    def keep(self, mean: Tensor) -> None:
        """Note the second mean times `label_weight`, without its share."""
        self._means.append(mean.detach())

    @property
    def mean(self) -> Tensor | None:
        """Of all calls, such as those for several pairs of layers; `None` without a call."""
        return torch.stack(self._means).mean() if self._means else None


_NOW: ContextVar[LabelShare | None] = ContextVar("label_share", default=None)


def label_share() -> LabelShare:
    """That in force; 1 outside of training."""
    return _NOW.get() or LabelShare()


@contextmanager
def sharing_labels(share: float | Tensor) -> Iterator[LabelShare]:
    """Within it, a cross-entropy within a fused loss counts so often; what is given notes it."""
    found = LabelShare(share)
    token = _NOW.set(found)
    try:
        yield found
    finally:
        _NOW.reset(token)
