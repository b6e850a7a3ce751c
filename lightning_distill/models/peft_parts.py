"""What peft puts into a model and around it: the one place that knows how it lays that out."""

import sys
from typing import Any

from torch import nn

# What peft puts before the path of every part of a model that it wraps.
WRAPPED = "base_model.model."


def is_adapted(model: Any) -> bool:
    """Whether peft has put adapters into a model."""
    # Where peft was never imported nothing was made by it.
    peft = sys.modules.get("peft")
    return peft is not None and isinstance(model, peft.PeftModel)


def adapted_model(model: Any) -> Any:
    """The model within peft's wrapper, with the adapters in it."""
    return model.get_base_model()


def has_adapter(part: nn.Module) -> bool:
    """Whether an adapter was put beside this one part."""
    if "peft" not in sys.modules:
        return False
    from peft.tuners.tuners_utils import BaseTunerLayer

    return isinstance(part, BaseTunerLayer)


def trained_part(part: nn.Module) -> nn.Module:
    """The copy of a part that peft trains in its place; any other part as it is."""
    if "peft" not in sys.modules:
        return part
    from peft.utils import ModulesToSaveWrapper

    if not isinstance(part, ModulesToSaveWrapper):
        return part
    if part.disable_adapters or not part.active_adapters:
        return part.original_module  # type: ignore[no-any-return]
    return part.modules_to_save[part.active_adapters[0]]  # type: ignore[no-any-return]


def active_settings(model: Any) -> Any:
    """The configuration of the adapters that are in use, which has `save_pretrained`."""
    return model.peft_config[model.active_adapter]
