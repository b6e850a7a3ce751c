"""Whether a model fits into this machine, found out before it is made."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from rich.filesize import decimal
from torch import nn

MOST_LAYERS = 10_000
# More than any vocabulary, width or number of positions of today.
LARGEST = 20_000_000
LAYERS = re.compile(r"layer|depth|n_block|num_block")
SIZES = re.compile(r"size|dim|width|heads?$|embd|position|labels|n_inner|d_model|d_ff|hidden")
# Of these a model has one row each; the product of two widths is a matrix.
ROWS = re.compile(r"vocab|position|labels|ctx|length|window")
OTHERS = re.compile(r"_ids?$|token|theta|seed|version|original")


def check_sizes(config: Mapping[str, Any]) -> None:
    """Refuse a model's configuration with numbers that no model has.

    Raises:
        ValueError: naming the field and its limit.
    """
    for name, value in _numbers(config):
        most = MOST_LAYERS if LAYERS.search(name) else LARGEST if SIZES.search(name) else None
        if most is not None and value > most:
            raise ValueError(f"`{name}` of a model can be at most {most:,}, got {value:,}.")


def check_memory(config: Mapping[str, Any], make: Callable[[], nn.Module], itemsize: int) -> None:
    """Refuse a model whose weights take more memory than this machine has.

    Args:
        config: the model's configuration; [`check_sizes`][] has seen it.
        make: makes the model; called without memory, and only where a rough estimate is too much.
        itemsize: bytes of a weight.

    Raises:
        ValueError: naming both sizes.
    """
    there = memory_of_machine()
    if _most_weights(config) * itemsize <= there:
        return
    try:
        with torch.device("meta"):
            count = sum(weight.numel() for weight in make().parameters())
    except RuntimeError as error:
        # Larger than torch can say.
        if "overflow" not in str(error):
            raise
        raise ValueError(f"The model is too large for any machine: {error}") from error
    if count * itemsize > there:
        raise ValueError(
            f"The model has {count:,} weights, which take {decimal(count * itemsize)}, and this "
            f"machine has {decimal(there)} of memory."
        )


def memory_of_machine() -> int:
    """Bytes of memory of this machine, without those of accelerators."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _numbers(config: Any, name: str = "") -> Iterator[tuple[str, int]]:
    """All whole numbers of a configuration, with the field they stand in."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            yield from _numbers(value, str(key))
    elif isinstance(config, list | tuple):
        for value in config:
            yield from _numbers(value, name)
    elif isinstance(config, int) and not isinstance(config, bool):
        yield name, config


def _most_weights(config: Mapping[str, Any]) -> int:
    """More weights than such a model can have."""
    layers = widest = experts = 1
    rows = 0
    for name, value in _numbers(config):
        if OTHERS.search(name):
            continue
        if LAYERS.search(name):
            layers += value
        elif "expert" in name:
            experts = max(experts, value)
        elif ROWS.search(name):
            rows += value
        else:
            widest = max(widest, value)
    return widest * (12 * layers * experts * widest + rows)
