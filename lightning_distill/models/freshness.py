"""Whether a model's weights are as they were drawn, or were trained."""

import math
from collections.abc import Iterator

import torch
from torch import nn, Tensor


def is_fresh(model: nn.Module) -> bool:
    """Whether nobody has trained the weights of a model yet, whoever made it.

    The weights themselves say it. The scales of normalisation layers begin as constants (ones, as a
    rule), and the first step of training moves them apart. A model without such scales is judged by
    its biases, which many architectures begin at zero, and else by the range within which torch
    draws the weights of linear and convolutional layers. Where nothing of that holds, the weights
    are taken for trained ones.

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
    return bool(drawn) and all(map(_is_as_torch_draws, drawn))


def _vectors(model: nn.Module, name: str) -> Iterator[Tensor]:
    """Parameters of this name that have one dimension and more than one entry."""
    for module in model.modules():
        found = getattr(module, name, None)
        if isinstance(found, nn.Parameter) and found.dim() == 1 and found.numel() > 1:
            yield found.detach()


def _is_constant(values: Tensor) -> bool:
    return bool((values == values[0]).all())


def _is_as_torch_draws(layer: nn.Linear | nn.Conv1d | nn.Conv2d) -> bool:
    bound = 1 / math.sqrt(layer.weight[0].numel())
    tensors = [layer.weight] if layer.bias is None else [layer.weight, layer.bias]
    # A little more, for products of float32 that are rounded up.
    return all(float(torch.abs(t.detach()).max()) <= bound * 1.001 for t in tensors)
