"""Whether a model's weights are as they were drawn, or were trained."""

import math
from collections.abc import Iterator
from typing import Any

from torch import nn, Tensor


def is_fresh(model: nn.Module) -> bool:
    """Whether nobody has trained the weights of a model yet, whoever made it.

    The weights themselves say it. The scales of normalisation layers begin as constants (ones, as a
    rule), and the first step of training moves them apart. A model without such scales is judged by
    its biases, which many architectures begin at zero, and else by the range within which torch
    draws weights and biases of linear and convolutional layers: training moves some of them out of
    it. A model that has nothing of all this is taken for fresh, and one without normalisation whose
    weights were drawn in another way, with biases that are not zero, for a trained one.

    Args:
        model: any module; frozen parts count as others do.
    """
    scales = list(_vectors(model, "weight"))
    if scales:
        return all(map(_is_constant, scales))
    biases = list(_vectors(model, "bias"))
    if biases and all(map(_is_constant, biases)):
        return True
    drawn = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d)]
    weights = [_is_as_torch_draws(layer, layer.weight) for layer in drawn]
    offsets = [_is_as_torch_draws(m, m.bias) for m in drawn if m.bias is not None]
    return all(weights) and all(offsets)


def _vectors(model: nn.Module, name: str) -> Iterator[Tensor]:
    """Parameters of this name that have one dimension and more than one entry."""
    for module in model.modules():
        found = getattr(module, name, None)
        if isinstance(found, nn.Parameter) and found.dim() == 1 and found.numel() > 1:
            yield found.detach()


def _is_constant(values: Tensor) -> bool:
    return bool((values == values[0]).all())


def _is_as_torch_draws(layer: nn.Module, values: Tensor) -> bool:
    weight: Any = layer.weight
    # A little more, for products of float32 that are rounded up.
    return float(values.detach().abs().max()) * math.sqrt(weight[0].numel()) <= 1.001
