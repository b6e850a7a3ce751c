"""A model that is trained in float32, and rounds its weights in each step as if quantised."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..quantization_schemes import Quantization, SCALES
from .quantization import granularity, integer, layers_by_group, real_config

# The attribute of a model that says how it is quantised while it is trained.
HOW = "quantization_in_training"


def fake_quantized(model: nn.Module, how: Quantization) -> nn.Module:
    """Let linear layers round their weights, and their inputs if the scheme says so, by torchao.

    A rounded weight is a whole number times a scale. The gradient passes the rounding as if it was
    not there, and is 0 where the whole number is cut off at the end of its range. The names of the
    parameters stay as they are.

    Args:
        model: changed in place.
        how: the scheme, and what is trained. With `scales` all other parameters are frozen, and
            each scale is a parameter called `weight_fake_quantizer.scale`, of shape
            `(outputs, groups)`, which begins where the largest weight just fits.

    Returns:
        The same model.

    References:
        Jacob et al., *Quantization and training of neural networks for efficient
        integer-arithmetic-only inference*, 2018, https://arxiv.org/abs/1712.05877.

        Esser et al., *Learned step size quantization*, 2020, https://arxiv.org/abs/1902.08153, for
        `scales`.
    """
    from torchao.quantization import quantize_
    from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig

    learned = how.train == SCALES
    tokens = IntxFakeQuantizeConfig(torch.int8, "per_token", is_symmetric=False)
    modes = {path: part.training for path, part in model.named_modules()}
    # Layers are made anew, which draws numbers that nobody sees.
    with torch.random.fork_rng(devices=[]):
        # All groups are known before the first layer is another one.
        for wanted, group in list(layers_by_group(model, how.scheme)):
            weights = IntxFakeQuantizeConfig(
                integer(how.scheme),
                granularity(group),
                is_symmetric=True,
                is_dynamic=not learned,
                range_learning=learned,
            )
            config = QATConfig(None, tokens if how.scheme.activations else None, weights)
            quantize_(model, config, filter_fn=wanted)
    setattr(model, HOW, how)
    if learned:
        model.requires_grad_(False)
    for path, layer in fake_layers(model).items():
        layer.train(modes[path])
        if learned:
            _learn_scale(layer)
    return model


def quantization_in_training(model: nn.Module | None) -> Quantization | None:
    """How a model is quantised while it is trained; `None` of any other."""
    return getattr(model, HOW, None)


def fake_layers(model: nn.Module) -> dict[str, Any]:
    """The layers that round, by their paths; none of a model that was not made so."""
    if quantization_in_training(model) is None:
        return {}
    from torchao.quantization.qat import FakeQuantizedLinear

    parts = model.named_modules(remove_duplicate=False)
    return {path: part for path, part in parts if isinstance(part, FakeQuantizedLinear)}


@contextmanager
def without_rounding(model: nn.Module) -> Iterator[None]:
    """While it lasts, the layers do not round."""
    layers = fake_layers(model).values()
    parts = [
        p for one in layers for p in (one.activation_fake_quantizer, one.weight_fake_quantizer)
    ]
    before = [(part, part.enabled) for part in parts if part is not None]
    try:
        for part, _ in before:
            part.enabled = False
        yield
    finally:
        for part, enabled in before:
            part.enabled = enabled


@torch.no_grad()
def in_plain_layers(model: nn.Module) -> Any:
    """A copy with plain linear layers that hold the rounded weights, in the numbers they had.

    It gives the same answers where only weights are rounded. Where the inputs of layers are rounded
    too, it does not do that.
    """
    plain = copy.deepcopy(model)
    # Plain layers draw weights before they are given theirs.
    with torch.random.fork_rng(devices=[]):
        for path, layer in fake_layers(plain).items():
            linear = layer.to_linear().train(layer.training)
            trained = layer.weight.requires_grad
            weight = layer.weight_fake_quantizer(layer.weight).detach()
            linear.weight = nn.Parameter(weight, requires_grad=trained)
            plain.set_submodule(path, linear)
    _forget(plain)
    return plain


def in_integers(model: nn.Module) -> Any:
    """A copy whose weights are really integers and scales, those that it was trained with.

    It cannot be trained.
    """
    from torchao.quantization import quantize_
    from torchao.quantization.qat import QATConfig

    how = quantization_in_training(model)
    if how is None:
        raise ValueError(f"{type(model).__name__} was not trained with rounded weights.")
    other = copy.deepcopy(model).requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        for wanted, group in list(layers_by_group(other, how.scheme)):
            real = real_config(how.scheme, group, learned_scales=how.train == SCALES)
            quantize_(other, QATConfig(real, step="convert"), filter_fn=wanted)
    _forget(other)
    other.quantization = how.scheme.name  # type: ignore[assignment]
    return other


def _learn_scale(layer: Any) -> None:
    """Make the scale of a layer's weights a parameter, which torchao does in a first forward."""
    from torchao.quantization.qat import initialize_fake_quantizers

    weight = layer.weight
    initialize_fake_quantizers(layer, (weight.new_zeros(1, layer.in_features),))
    rounds = layer.weight_fake_quantizer
    zero = rounds.zero_point
    del rounds.zero_point
    # So that it follows the layer to another device; it is 0, and no checkpoint needs it.
    rounds.register_buffer("zero_point", zero, persistent=False)


def _forget(model: nn.Module) -> None:
    if quantization_in_training(model) is not None:
        delattr(model, HOW)
