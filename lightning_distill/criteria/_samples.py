"""Samples of a batch: those that count, and one vector for each."""

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import in_full_precision
from ._weighing import in_force

Mask = Bool[Tensor, "..."] | Int[Tensor, "..."] | None


def counted_samples(mask: Mask, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The samples for which `mask` is true; the others see no trained part and no statistic.

    Their weights, if there are any, are dropped too; so all tensors come in one call.
    """
    batch = tensors[0].shape[0]
    if any(t.shape[0] != batch for t in tensors):
        shapes = ", ".join(str(tuple(t.shape)) for t in tensors)
        raise ValueError(f"All tensors must have one entry per value, got shapes {shapes}.")
    if mask is None:
        return tensors
    if mask.shape != (batch,):
        raise ValueError(
            f"`mask` must have one entry per value, shape {(batch,)}, got {tuple(mask.shape)}. "
            "Samples are the first dimension here, not tokens."
        )
    kept = mask != 0
    weights = in_force()
    if weights is not None:
        weights.keep(kept)
    return tuple(t[kept] for t in tensors)


def sample_vectors(
    features: Float[Tensor, "batch ..."], role: str
) -> Float[Tensor, "batch features"]:
    """One vector per sample in float32 at least; feature maps are averaged over the places."""
    (features,) = in_full_precision(features)
    if features.dim() == 4:
        return features.mean(dim=(2, 3))
    if features.dim() != 2:
        raise ValueError(
            f"The {role}'s features must be vectors (batch, features) or maps (batch, channels, "
            f"height, width), got shape {tuple(features.shape)}. Name what its head is given, as "
            f"in {role}.layer_input:classifier."
        )
    return features
