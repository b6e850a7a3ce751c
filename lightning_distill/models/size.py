"""How large a model is."""

from torch import nn

from .plain_tensors import plain_tensors


def parameter_count(model: nn.Module) -> int:
    """Number of parameters, each shared one counted once."""
    return sum(p.numel() for p in model.parameters())


def size_mb(model: nn.Module) -> float:
    """Size of the weights on disk in megabytes (10^6 bytes), each shared tensor counted once."""
    seen = {}
    for held in model.state_dict().values():
        for tensor in plain_tensors(held):
            seen[(tensor.data_ptr(), tensor.shape)] = tensor.numel() * tensor.element_size()
    return sum(seen.values()) / 1e6
