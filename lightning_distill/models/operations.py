"""How many floating-point operations a model takes."""

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

# The attention of torch on a CPU, which torch itself does not count.
ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
ATTENTION_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def counting_operations() -> FlopCounterMode:
    """A context that counts the operations of matrix products, convolutions and attention.

    A multiplication and an addition are two. What else a model does, such as norms and
    activations, is not counted: it is a small part. `get_total_flops()` of what the context
    gives says how many there were.
    """
    counted = {ATTENTION: _attention, ATTENTION_BACKWARD: _attention_backward}
    counter = FlopCounterMode(display=False, custom_mapping=counted)
    counter.mod_tracker = _OfTheWhole()  # type: ignore[assignment]
    return counter


class _OfTheWhole:
    """In the place of what tells torch's counter which module an operation belongs to.

    Only sums of single modules need it. Without gradients it fails where a module is given a slice
    of a trained weight, as in DeBERTa.
    """

    parents = frozenset({"Global"})

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: Any) -> None:
        pass


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Scores of each query with each key, and sums of values; of shapes `(rows, heads, n, d)`."""
    rows, heads, queries, width = query
    return 2 * int(rows * heads * queries * key[2] * (width + value[3]))


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """The scores again, and the gradients of query, key, scores and value."""
    rows, heads, queries, width = query
    return 2 * int(rows * heads * queries * key[2] * (3 * width + 2 * value[3]))
