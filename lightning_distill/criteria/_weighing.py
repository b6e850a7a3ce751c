"""Weights of samples, in force while a criterion takes its mean."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._gather import gather_rows

Weights = Float[Tensor, "..."] | Int[Tensor, "..."] | Bool[Tensor, "..."]


class Weighing:
    """Weights of samples, and whether a mean was taken under them."""

    def __init__(self, weights: Weights, normalize: bool, gather: bool = False):
        if weights.dim() == 0:
            raise ValueError(
                "Weights must be one per sample, got a single number; to weigh the whole term, set "
                "the term's `weight`."
            )
        self.weights, self.normalize, self.gather = weights, normalize, gather
        self.used = False

    def keep(self, kept: Bool[Tensor, " batch"]) -> None:
        """Drop the weights of samples that the criterion drops before it takes the mean."""
        if self.weights.shape[0] != len(kept):
            raise ValueError(
                f"Weights must be one per sample, for {len(kept)} samples, got shape "
                f"{tuple(self.weights.shape)}."
            )
        self.weights = self.weights[kept]

    def mean(self, values: Tensor, counted: Tensor | None) -> Tensor:
        """The mean of the weighed values; 0 with a connected graph if nothing counts."""
        total, count = self._sums(values, counted)
        if self.gather:
            # Of all processes, as the weights that divide it are.
            total, count = gather_rows(torch.stack([total, count.to(total)]).unsqueeze(0)).sum(0)
        return total / count.masked_fill(count == 0, 1)

    def _sums(self, values: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor]:
        self.used = True
        weights = self._like(values)
        if counted is not None:
            weights = torch.where(counted, weights, 0.0)
            values = torch.where(counted, values, 0.0)
        wrong = ~((weights >= 0) & weights.isfinite())
        if wrong.any():
            raise ValueError(
                "Weights of samples must be finite and not negative, got "
                f"{weights[wrong][0].item():.4g}."
            )
        # 0 times NaN is NaN; what is finite stays, as a weight that is learned may grow from 0.
        values = torch.where((weights > 0) | values.isfinite(), values, 0.0)
        total = (weights * values).sum()
        if self.normalize:
            return total, weights.sum()
        if counted is not None:
            return total, counted.sum()
        return total, torch.tensor(values.numel(), device=values.device)

    def _like(self, values: Tensor) -> Tensor:
        n = self.weights.dim()
        if values.shape[:n] != self.weights.shape:
            raise ValueError(
                f"Weights of shape {tuple(self.weights.shape)} do not fit the criterion's values "
                f"of shape {tuple(values.shape)}: there must be one weight per sample, (B,), or "
                "one per token, (B, T), if the criterion has a value for each."
            )
        weights = self.weights.to(values.dtype)
        return weights.reshape(*weights.shape, *[1] * (values.dim() - n)).expand(values.shape)


_IN_FORCE: ContextVar[Weighing | None] = ContextVar("weighing", default=None)


def in_force() -> Weighing | None:
    """The weights that a mean must be taken with now, if there are any."""
    return _IN_FORCE.get()


@contextmanager
def weighing(weights: Weights, normalize: bool = True, gather: bool = False) -> Iterator[Weighing]:
    """Within it, `masked_mean` takes the weighted mean; `used` of what it gives says if it did.

    Args:
        weights: one per sample, finite and not negative; values that have more dimensions than
            the weights share them, as the tokens of a row do. What is masked may be anything.
        normalize: divide by the sum of the weights of what counts, not by how many count.
        gather: take both sums over all processes; each of them must take as many means.

    Raises:
        ValueError: if weights are in force already, or do not fit.
    """
    if in_force() is not None:
        raise ValueError(
            "Weights within weights: one SampleWeighted is inside another. Use one of them, whose "
            "weight is the product."
        )
    token = _IN_FORCE.set(Weighing(weights, normalize, gather))
    try:
        yield _IN_FORCE.get()  # type: ignore[misc]
    finally:
        _IN_FORCE.reset(token)
