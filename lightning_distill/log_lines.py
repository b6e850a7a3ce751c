"""Lines of the log: on a terminal beside a progress bar, and which of them are said."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class LogLines(logging.StreamHandler[Any]):
    """Writes each line to what standard output is at that moment.

    While a progress bar is shown it takes the place of standard output, and puts lines above
    itself. A handler that keeps the first one would write into the bar's own line.

    Args:
        stream: what Hydra names; it is not kept.
    """

    def __init__(self, stream: Any = None):
        super().__init__(stream)

    @property
    def stream(self) -> Any:
        """Standard output, as it is now."""
        return sys.stdout

    @stream.setter
    def stream(self, stream: Any) -> None:
        """Nothing: see above."""


@contextmanager
def saying(
    wanted: Callable[[logging.LogRecord], bool], logger: str = "lightning_distill"
) -> Iterator[None]:
    """Meanwhile a logger says no more than what is wanted.

    Args:
        wanted: whether a record is said.
        logger: the name of that which is asked to log it; those below it are not touched.
    """
    asked = logging.getLogger(logger)
    asked.addFilter(wanted)
    try:
        yield
    finally:
        asked.removeFilter(wanted)


__all__ = ["LogLines", "saying"]
