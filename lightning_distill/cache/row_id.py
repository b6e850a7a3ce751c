"""Who a row is: a digest of exactly what a model is given for it."""

import math
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

# Entries with a value for each token, of which whatever stands for padding is never read.
PER_TOKEN = (
    "attention_mask",
    "decoder_attention_mask",
    "decoder_input_ids",
    "input_ids",
    "inputs_embeds",
    "position_ids",
    "special_tokens_mask",
    "token_type_ids",
)

# What the names of entries begin with that a decoder reads beside an encoder.
DECODER = "decoder_"


def row_lengths(inputs: Any) -> list[int] | None:
    """How many tokens of each row there are before the padding; `None` if that is not known.

    Packed rows, which have positions and no attention mask, are full. Where a decoder reads tokens
    of its own, these are meant: it is they of which something is predicted.
    """
    mask = _mask(inputs, DECODER)
    if mask is None:
        mask = _mask(inputs)
    if mask is None:
        tokens = token_count(inputs)
        return None if tokens is None else [tokens] * len(inputs["input_ids"])
    return _lengths(mask)


def _lengths(mask: Tensor) -> list[int]:
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return ((mask != 0) * places).amax(dim=1).tolist() if mask.shape[1] else [0] * len(mask)


def token_count(inputs: Any) -> int | None:
    """How many tokens a row of the batch has, padding included; `None` if that is not known.

    Where a decoder reads tokens of its own, these are meant.
    """
    mask = _mask(inputs, DECODER)
    if mask is None:
        mask = _mask(inputs)
    if mask is not None:
        return mask.shape[1]
    named = inputs if isinstance(inputs, Mapping) else {}
    ids, positions = named.get("input_ids"), named.get("position_ids")
    if isinstance(ids, Tensor) and isinstance(positions, Tensor) and ids.dim() == 2:
        return ids.shape[1] if positions.shape == ids.shape else None
    return None


def has_decoder(inputs: Any) -> bool:
    """Whether a decoder reads tokens of its own, beside those of an encoder."""
    return _mask(inputs, DECODER) is not None


def _mask(inputs: Any, side: str = "") -> Tensor | None:
    mask = inputs.get(f"{side}attention_mask") if isinstance(inputs, Mapping) else None
    return mask if isinstance(mask, Tensor) and mask.dim() == 2 else None


def row_ids(inputs: Any) -> Int64[np.ndarray, "rows 2"]:
    """128 bits for each row of a model's inputs.

    Two rows have the same id if the model is given the same for them; how much padding follows, and
    which rows are beside it, does not matter. Padding before the first token does: it moves the
    positions that a model may count. What stands behind the last token of the attention mask is
    padding if the entry is one of `PER_TOKEN`, or if it is all zeros.

    Args:
        inputs: a dict of keywords, a tuple of arguments or one tensor, each (rows, ...); numbers,
            words and tensors without dimensions count for each row.

    Raises:
        ValueError: if the inputs hold no tensor with a row for each sample, or something that has
            no bytes of its own.
    """
    tensors: dict[str, Tensor] = {}
    others: dict[str, Any] = {}
    named = inputs if isinstance(inputs, Mapping) else dict(enumerate(_sequence(inputs)))
    for name, value in named.items():
        _sort(str(name), value, tensors, others)
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
    # Without a mask there is no padding: all bytes count.
    masks = {side: mask for side in ("", DECODER) if (mask := _mask(inputs, side)) is not None}
    lengths_of = {side: _lengths(mask) for side, mask in masks.items()}
    same = "".join(f"{name} {others[name]!r}\n" for name in sorted(others)).encode()
    digests = [blake2b(same, digest_size=16) for _ in range(rows)]
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        if not tensor.is_floating_point() and not tensor.is_complex():
            tensor = tensor.long()
        side = DECODER if name.startswith(DECODER) else ""
        lengths = lengths_of.get(side)
        tokens = masks[side].shape[1] if side in masks else 0
        per_token = lengths is not None and tensor.dim() > 1 and tensor.shape[1] == tokens
        tail = tuple(tensor.shape[2 if per_token else 1 :])
        width = tensor.element_size() * math.prod(tensor.shape[1:])
        values = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().reshape(rows, width)
        step = width // tokens if per_token and tokens else 0
        for i, digest in enumerate(digests):
            own = values[i]
            if per_token and lengths is not None:
                # A row without a token that counts is told by all of them.
                end = step * (lengths[i] or tokens)
                # Another tensor may have as many entries as there are tokens by chance.
                if name in PER_TOKEN or not own[end:].any():
                    own = own[:end]
            # With its length, no row can be told as another with its bytes cut elsewhere.
            digest.update(f"{name} {tensor.dtype} {tail} {len(own)}\n".encode())
            digest.update(own.data)
    found = b"".join(digest.digest() for digest in digests)
    return np.frombuffer(found, dtype=np.int64).reshape(rows, 2)


def _sequence(inputs: Any) -> Sequence[Any]:
    return inputs if isinstance(inputs, tuple | list) else (inputs,)


def _sort(name: str, value: Any, tensors: dict[str, Tensor], others: dict[str, Any]) -> None:
    """What has rows into `tensors`, what is the same for all of them into `others`."""
    if isinstance(value, Tensor) and value.dim() > 0:
        tensors[name] = value
    elif isinstance(value, Tensor):
        others[name] = value.item()
    elif value is None or isinstance(value, str | bytes | int | float):
        others[name] = value
    elif isinstance(value, Mapping | tuple | list):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        others[name] = (type(value).__name__, len(value))
        for key, part in items:
            _sort(f"{name}.{key}", part, tensors, others)
    else:
        raise ValueError(
            f"The teacher is given {name}, a {type(value).__name__}; a row is known by tensors, "
            "numbers and words. Leave it out of teacher_inputs, or use a live teacher."
        )
