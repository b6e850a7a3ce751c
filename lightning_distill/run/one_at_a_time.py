"""Of several runs that would make the same thing, one makes it, and the others wait."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from ..cache.lock import FolderInUse, FolderLock
from .stage import say

SECONDS = 1.0


@contextmanager
def one_at_a_time(path: Path, title: str, owner: str) -> Iterator[None]:
    """Wait until no other run makes `path`; meanwhile none begins.

    Args:
        path: what is made; its folder must be there.
        title: of the line that says that this run waits.
        owner: this run, for its other processes.
    """
    lock = FolderLock(path.parent, f"{path.name}.lock", "name another (teacher.folder=DIR)", owner)
    if getattr(rank_zero_only, "rank", 0) != 0:
        while lock.held_by_another() is not None:
            time.sleep(SECONDS)
        yield
        return
    said = False
    while True:
        try:
            lock.acquire()
            break
        except FolderInUse as error:
            if not said:
                say(title, f"another run makes it now, and this one waits for it. {error}")
            said = True
            time.sleep(SECONDS)
    try:
        yield
    finally:
        lock.release()
