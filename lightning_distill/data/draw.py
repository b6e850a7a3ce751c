"""What a sampler asks of the rows: which, and under which view."""

import hashlib
from collections.abc import Iterable

import torch


class Draw(list[int]):
    """Row numbers, and the view under which they are augmented; `None` leaves them as they are.

    It travels to the processes that collate with the numbers themselves: these processes live on
    from epoch to epoch, and would not see it if the data set were told.
    """

    def __init__(self, rows: Iterable[int] = (), view: int | None = None):
        super().__init__(rows)
        self.view = view


def keyed(seed: int, number: int, view: int) -> torch.Generator:
    """Random numbers that depend on what is drawn, and not on who draws it when.

    Args:
        seed: of the augmentation.
        number: the row's.
        view: under which it is drawn.
    """
    key = hashlib.blake2b(f"{seed} {number} {view}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(key) >> 1)
