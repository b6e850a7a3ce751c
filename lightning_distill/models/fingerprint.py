"""A model's identity: a hash of its weights."""

import hashlib

import torch
from torch import nn

from .plain_tensors import plain_tensors


def fingerprint(model: nn.Module) -> str:
    """SHA-256, in hex, of the names, types, shapes and bytes of all weights and buffers.

    The device, the mode and what is trainable do not matter; one changed bit does.
    """
    own = getattr(model, "fingerprint", None)
    if isinstance(own, str):
        # A teacher that stands for another has the weights of that one.
        return own
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if not isinstance(tensor, torch.Tensor):
            # A module's extra state can be any object, with no bytes of its own.
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        for part in plain_tensors(tensor):
            if part is not tensor:
                digest.update(f"{part.dtype} {tuple(part.shape)}\n".encode())
            flat = part.detach().cpu().contiguous().reshape(-1)
            if flat.numel():
                # numpy has no bfloat16; bytes are all that is needed.
                digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
