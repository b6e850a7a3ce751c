"""What a run does that another one makes, one of many."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

log = logging.getLogger("lightning_distill")


@contextmanager
def logged_in(directory: Path) -> Iterator[None]:
    """While it lasts, what is said of a run goes into its own `log.txt`, and not to the terminal.

    Args:
        directory: of the run; made if missing.
    """
    directory.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(directory / "log.txt", encoding="utf-8")
    before = log.propagate
    log.addHandler(handler)
    log.propagate = False
    try:
        yield
    finally:
        log.propagate = before
        log.removeHandler(handler)
        handler.close()


def free_memory() -> None:
    """Let a GPU have the memory of a run that is over."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
