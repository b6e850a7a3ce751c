"""Data that can be read only once."""

from typing import Any

from torch.utils.data import DataLoader, IterableDataset


def is_one_shot(loader: Any) -> bool:
    """Whether what is read from a loader is gone, as from a generator."""
    data = loader.dataset if isinstance(loader, DataLoader) else loader
    # Every data set of torch has a `__getitem__`, if only to say that it has none.
    by_number = hasattr(data, "__getitem__") and not isinstance(data, IterableDataset)
    if by_number or not hasattr(data, "__iter__"):
        return False
    return iter(data) is iter(data)
