"""Less memory for more time: what lies within a layer is computed again in the backward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from .submodules import unwrapped


def checkpoint_gradients(model: nn.Module) -> None:
    """Keep of each layer only what goes into it, in training; the gradient is the same.

    Args:
        model: a Hugging Face model, with or without adapters; changed in place.

    Raises:
        ValueError: if the model cannot do that.

    References:
        Chen et al., *Training Deep Nets with Sublinear Memory Cost*, 2016,
        https://arxiv.org/abs/1604.06174.
    """
    inner = unwrapped(model)
    if not getattr(inner, "supports_gradient_checkpointing", False):
        raise ValueError(
            f"gradient_checkpointing=true is for models of transformers that support it, and "
            f"{type(inner).__name__} does not; set gradient_checkpointing=false."
        )
    # The reentrant kind gives no gradient to layers that are read by name, nor to adapters.
    options = {"use_reentrant": False}
    if hasattr(inner, "activation_checkpointing_enable"):  # its name in newer transformers
        inner.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    else:
        inner.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)


@contextmanager
def checkpointing_in_eval(model: nn.Module) -> Iterator[None]:
    """Let layers that are computed again in training be so in eval mode, too.

    Transformers does so in training mode alone, and a batch that is tried in eval mode would take
    the memory that is not there.

    Args:
        model: after [`checkpoint_gradients`][]; of another one nothing is changed.
    """
    layers = [
        part
        for part in model.modules()
        if isinstance(part, GradientCheckpointingLayer) and part.gradient_checkpointing
    ]
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    try:
        yield
    finally:
        for layer in layers:
            # What is left is the method of its class.
            del layer.forward
