"""A temperature for every sample, around a given one."""

from jaxtyping import Bool, Float, Int
from torch import Tensor


def around(
    temperature: float,
    beta: float,
    difficulty: Float[Tensor, "*batch"],
    mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None,
) -> Float[Tensor, "*batch"]:
    """`temperature` where the difficulty is the mean over what counts, lower where it is more."""
    if mask is not None and mask.shape == difficulty.shape:
        # What is masked may be anything, NaN included, and must not spoil the mean.
        counted = mask != 0
        difficulty = difficulty.masked_fill(~counted, 0.0)
        mean = difficulty.sum() / counted.sum().clamp(min=1)
        difficulty = difficulty.where(counted, mean)
    else:
        mean = difficulty.mean()
    return temperature + beta * (mean - difficulty)
