"""What a model leaves out at random while it is trained."""

import re
from typing import Any

from torch import nn
from transformers import PreTrainedConfig

from .configuration import configuration

# Of values, of paths around layers and of whole layers, as transformers and timm call them.
NAMES = re.compile(r"(.*_)?(p?drop|dropout|layerdrop|drop_path)(_p|_prob|_rate)?")


def without_dropout(model: nn.Module) -> bool:
    """Let a model compute the same in training as in evaluation; changed in place.

    Its configuration says so then, too. What is drawn for other ends, as the parts of a sound that
    Whisper and wav2vec2 hide, stays.

    Returns:
        Whether there was any dropout.
    """
    found = False
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            found, module.p = found or module.p > 0, 0.0
        found = _switched_off(module) or found
    config = configuration(model)
    return (config is not None and _switched_off(config)) or found


def _switched_off(holder: Any) -> bool:
    """Set its probabilities to 0, and those of parts of a configuration; whether there was one."""
    found = False
    for name, value in list(vars(holder).items()):
        if isinstance(value, int | float) and not isinstance(value, bool):
            if value > 0 and NAMES.fullmatch(name):
                setattr(holder, name, 0.0)
                found = True
        elif isinstance(value, PreTrainedConfig):
            found = _switched_off(value) or found
    return found
