"""A model with weights of fewer bits: smaller, and its answers change a little."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from ..quantization_schemes import check_torchao, Scheme, scheme_named
from .embeddings import output_embeddings
from .pooling import dense_of
from .row_head import row_head_of

# Of nn.MultiheadAttention, which reads the weight and never calls the layer.
NEVER_CALLED = nn.modules.linear.NonDynamicallyQuantizableLinear


def quantized(model: nn.Module, kind: str | None) -> nn.Module:
    """Quantise the weights of all linear layers but a language model's head, by torchao.

    A weight becomes an integer with a scale; `int8` and `int4` round what comes into a layer, too,
    see [`Scheme`][lightning_distill.quantization_schemes.Scheme]. Embeddings, norms and biases stay
    as they are, and so does what makes logits of tokens, which is often the embedding too and is
    needed whole where logits are not made.

    Args:
        model: in eval mode; changed in place, it cannot be trained afterwards.
        kind: a name of `SCHEMES`, or `None`, which leaves the model alone.

    Raises:
        ValueError: for another kind, or if torchao is not installed.
    """
    check_quantization(kind)
    if kind is None:
        return model
    from torchao.quantization import quantize_

    model.requires_grad_(False)
    for wanted, group in layers_by_group(model, scheme_named(kind)):
        quantize_(model, real_config(scheme_named(kind), group), filter_fn=wanted)
    # For who wants to make the same teacher again.
    model.quantization = kind  # type: ignore[assignment]
    return model


def check_quantization(kind: str | None) -> None:
    """Refuse at once what `quantized` would refuse when a teacher is trained already."""
    if kind is not None:
        scheme_named(kind)
        check_torchao(f"`quantization` is {kind}, which")


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """The layers that are quantised, by their paths: all but a language model's head.

    What was put beside a model, to map vectors or to predict whole rows, is left out as well.
    """
    beside = [dense_of(model), row_head_of(model)]
    left_out = {id(part) for one in beside if one is not None for part in one.modules()}
    left_out.add(id(output_embeddings(model)))
    return {
        path: part
        # A layer that stands in two places is changed in both.
        for path, part in model.named_modules(remove_duplicate=False)
        if isinstance(part, nn.Linear)
        and not isinstance(part, NEVER_CALLED)
        and id(part) not in left_out
        and part.in_features > 1
    }


def layers_by_group(
    model: nn.Module, scheme: Scheme
) -> Iterator[tuple[Callable[[nn.Module, str], bool], int | None]]:
    """The layers that share a size of groups, as what torchao asks of a layer, and that size."""
    layers = linear_layers(model)
    sizes = {path: group_of(part, scheme) for path, part in layers.items()}
    for group in dict.fromkeys(sizes.values()):
        paths = {path for path, size in sizes.items() if size == group}
        yield lambda part, path, those=paths: path in those, group  # type: ignore[misc]


def group_of(layer: nn.Linear, scheme: Scheme) -> int | None:
    """How many weights of an output share a scale; `None` is all of them."""
    if scheme.group is None or layer.in_features % scheme.group:
        return None
    return scheme.group


def granularity(group: int | None) -> Any:
    """The same in torchao's words."""
    from torchao.quantization.granularity import PerAxis, PerGroup

    return PerAxis(0) if group is None else PerGroup(group)


def integer(scheme: Scheme) -> torch.dtype:
    """The type of a weight."""
    return torch.int8 if scheme.bits == 8 else torch.int4  # type: ignore[attr-defined]


def real_config(scheme: Scheme, group: int | None, learned_scales: bool = False) -> Any:
    """What torchao makes of a layer that is no longer trained.

    Args:
        scheme: how layers are rounded.
        group: as `group_of` says of the layer.
        learned_scales: whether scales come with the layer, and do not follow from its weights.
    """
    from torchao.quantization import (
        Int8DynamicActivationInt8WeightConfig,
        Int8DynamicActivationIntxWeightConfig,
        IntxWeightOnlyConfig,
        MappingType,
    )

    if not scheme.activations:
        return IntxWeightOnlyConfig(integer(scheme), granularity(group))
    if scheme.bits == 8 and not learned_scales:
        # It multiplies integers, which the other one does not; it takes no scales.
        return Int8DynamicActivationInt8WeightConfig(act_mapping_type=MappingType.ASYMMETRIC)
    return Int8DynamicActivationIntxWeightConfig(integer(scheme), granularity(group))
