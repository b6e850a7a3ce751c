"""Whether a model trains: for a while, and then as before."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def modes_kept(*models: nn.Module) -> Iterator[None]:
    """Whatever mode a block puts them into, afterwards each part has its own again.

    Args:
        models: with all their parts. One that is added within the block stays as it is.
    """
    modes = {part: part.training for model in models for part in model.modules()}
    try:
        yield
    finally:
        for part, mode in modes.items():
            # Not by train(), which goes down to the parts.
            part.training = mode


@contextmanager
def in_eval_mode(*models: nn.Module) -> Iterator[None]:
    """While it lasts they are in eval mode; afterwards each part has its own mode again."""
    with modes_kept(*models):
        for model in models:
            model.eval()
        yield
