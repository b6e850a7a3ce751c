"""What a sampler asks of the rows: which, and under which view."""

import hashlib
import re
from collections.abc import Iterable
from typing import Any

import torch


class Draw(list[int]):
    """Row numbers, and the view under which they are augmented; `None` leaves them as they are.

    It travels to the processes that collate with the numbers themselves: these processes live on
    from epoch to epoch, and would not see it if the data set were told.
    """

    def __init__(self, rows: Iterable[int] = (), view: int | None = None):
        super().__init__(rows)
        self.view = view


def keyed(*key: int | str) -> torch.Generator:
    """Random numbers that depend on what is drawn, and not on who draws it when.

    Draws for two purposes with one plain seed would be the same numbers: rows that keep their
    labels and rows that come first, say. A word in the key tells them apart.

    Args:
        key: of the draw, such as its purpose, the seed, the row's number and its view.
    """
    words = " ".join(map(str, key))
    digest = hashlib.blake2b(words.encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest) >> 1)


def seed_of(augmentation: Any, seed: int) -> int:
    """The seed by which an augmentation is keyed: its own, or that of the data."""
    return int(getattr(augmentation, "seed", seed))


def known_by(augmentation: Any, seed: int) -> dict[str, Any]:
    """What an augmentation is known by, as plain values; `None` twice without one."""
    if augmentation is None:
        return {"augmentation": None, "augmentation_seed": None}
    # Without the address that a function's or a plain object's repr has.
    name = re.sub(" at 0x[0-9a-f]+", "", repr(augmentation))
    return {"augmentation": name, "augmentation_seed": seed_of(augmentation, seed)}
