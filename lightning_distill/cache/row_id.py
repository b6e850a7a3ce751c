"""Who a row is: a digest of exactly what a model is given for it."""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor


def row_lengths(inputs: Any) -> list[int] | None:
    """How many tokens of each row there are before the padding; `None` without attention mask."""
    mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    if not isinstance(mask, Tensor) or mask.dim() != 2:
        return None
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return ((mask != 0) * places).amax(dim=1).tolist() if mask.shape[1] else [0] * len(mask)


def row_ids(inputs: Any) -> Int64[np.ndarray, "rows 2"]:
    """128 bits for each row of a model's inputs.

    Two rows have the same id if the model is given the same for them; how much padding follows, and
    which rows are beside it, does not matter. Padding before the first token does: it moves the
    positions that a model may count.

    Args:
        inputs: a dict of keywords, a tuple of arguments or one tensor, each (rows, ...).

    Raises:
        ValueError: if the inputs hold no tensor with a row for each sample.
    """
    if isinstance(inputs, Tensor):
        inputs = (inputs,)
    named = inputs if isinstance(inputs, Mapping) else dict(enumerate(inputs))
    tensors = {str(n): v for n, v in named.items() if isinstance(v, Tensor) and v.dim() > 0}
    if not tensors:
        raise ValueError(
            "A row is known by the tensors that the teacher is given, and there are none: "
            f"{', '.join(map(str, named)) or 'no inputs'}."
        )
    rows = len(next(iter(tensors.values())))
    for name, tensor in tensors.items():
        if len(tensor) != rows:
            raise ValueError(
                f"The teacher's inputs must have one entry per row, but {name} has {len(tensor)} "
                f"and another {rows}."
            )
    lengths = row_lengths(inputs)
    digests = [blake2b(digest_size=16) for _ in range(rows)]
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        per_token = (
            lengths is not None
            and tensor.dim() > 1
            and tensor.shape[1] == tensors["attention_mask"].shape[1]
        )
        if not tensor.is_floating_point():
            tensor = tensor.long()
        tail = tuple(tensor.shape[2 if per_token else 1 :])
        head = f"{name} {tensor.dtype} {tail}\n".encode()
        values = tensor.contiguous().view(rows, -1).view(torch.uint8).numpy()
        whole = values.shape[1]
        per = whole // tensor.shape[1] if per_token and tensor.shape[1] else 0
        for i, digest in enumerate(digests):
            digest.update(head)
            digest.update(values[i, : per * lengths[i] if per_token and lengths else whole].data)
    found = b"".join(digest.digest() for digest in digests)
    return np.frombuffer(found, dtype=np.int64).reshape(rows, 2)
