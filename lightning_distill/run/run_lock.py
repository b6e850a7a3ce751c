"""One process works on a run, or makes a kept teacher, at a time."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only


@contextmanager
def locked(path: Path, busy: Callable[[str], None]) -> Iterator[bool]:
    """Hold a lock that goes with its process, however that ends.

    Only the first of the processes of a run takes it.

    Args:
        path: of a file, made if missing; it stays.
        busy: called with the number of the process that holds it; if it returns, this one waits.

    Yields:
        Whether it had to wait.
    """
    if getattr(rank_zero_only, "rank", 0) != 0:
        yield False
        return
    waited = False
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            busy(file.read().strip() or "of another user")
            waited = True
            fcntl.lockf(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield waited
        finally:
            file.truncate(0)
