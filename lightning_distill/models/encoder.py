"""The encoder of an encoder-decoder, and whether two models have the same one."""

from typing import Any

import torch
from torch import nn

from .compilation import is_compiled
from .configuration import attention, configuration, is_encoder_decoder
from .fake_quantization import quantization_in_training
from .plain_tensors import is_quantized
from .submodules import innermost

# Settings that change nothing of what an encoder in eval mode returns.
IN_TRAINING = ("dropout", "layerdrop", "initializer", "mask_", "apply_spec_augment", "loss_factor")
OF_OTHERS = ("decoder", "use_cache", "architectures", "dtype", "transformers_version", "path")


def encoder_of(model: nn.Module | None) -> nn.Module | None:
    """What reads the source in a model of transformers; `None` if the model has no such part."""
    if model is None or not is_encoder_decoder(model):
        return None
    inner = innermost(model)
    found = getattr(inner, "get_encoder", lambda: None)()
    return found if isinstance(found, nn.Module) and found is not inner else None


def is_frozen(part: nn.Module) -> bool:
    """Whether a part is not trained, and gives the same each time: it is in eval mode."""
    trained = any(weight.requires_grad for weight in part.parameters())
    return not trained and not any(inner.training for inner in part.modules())


def have_one_encoder(first: nn.Module, second: nn.Module | None) -> bool:
    """Whether the encoders of two models give the same for the same inputs, bit for bit.

    Class, settings and all weights must be equal. Where this cannot be told, as of models that are
    quantised, compiled or have no configuration, it is said to be false.

    Args:
        first: a model.
        second: another one; `None` has no encoder.
    """
    mine, other = encoder_of(first), encoder_of(second)
    if second is None or mine is None or other is None or type(mine) is not type(other):
        return False
    if is_compiled(first) or is_compiled(second) or attention(mine) != attention(other):
        return False
    if quantization_in_training(first) != quantization_in_training(second):
        return False
    settings = _settings(mine)
    return settings is not None and settings == _settings(other) and _have_same(mine, other)


def _settings(encoder: nn.Module) -> dict[str, Any] | None:
    config = configuration(encoder)
    if config is None:
        return None
    return {
        name: value
        for name, value in config.to_dict().items()
        if not any(word in name for word in (*IN_TRAINING, *OF_OTHERS))
    }


def _have_same(first: nn.Module, second: nn.Module) -> bool:
    tensors = [{**dict(m.named_parameters()), **dict(m.named_buffers())} for m in (first, second)]
    if tensors[0].keys() != tensors[1].keys():
        return False
    return all(_is_same(mine, tensors[1][name]) for name, mine in tensors[0].items())


def _is_same(first: torch.Tensor, second: torch.Tensor) -> bool:
    if is_quantized(first) or is_quantized(second) or first.device != second.device:
        return False
    return first.dtype == second.dtype and torch.equal(first, second)
