"""A model that stays as it is."""

from torch import nn


def freeze(model: nn.Module) -> None:
    """Put a model into eval mode, and let none of its weights be trained; changed in place."""
    # Not by requires_grad_ of the module, which TorchScript refuses.
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.eval()
