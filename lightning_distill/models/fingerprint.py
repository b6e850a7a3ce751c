"""A model's identity: a hash of its weights, and of what its configuration makes of them."""

import hashlib
import json

import torch
from torch import nn

from .configuration import deciding_fields
from .plain_tensors import plain_tensors


def fingerprint(model: nn.Module) -> str:
    """SHA-256, in hex, of the names, types, shapes and bytes of all weights and buffers.

    Of a model of transformers also of the fields of its configuration that decide its answers: how
    many heads share the weights of attention, say. The device, the mode and what is trainable do
    not matter; one changed bit does.
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
    fields = deciding_fields(model)
    if fields:
        digest.update(json.dumps(fields, sort_keys=True, default=str).encode())
    return digest.hexdigest()
