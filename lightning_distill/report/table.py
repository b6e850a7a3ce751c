"""The tables that a run shows on the terminal."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table


def table_of(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table with a line under its heads; all but the first column may be broken.

    Args:
        title: above it.
        heads: of the columns; an empty one is of names.
        rows: their cells.
    """
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in heads:
        # Names stay on one line.
        table.add_column(head, justify="right" if head else "left", no_wrap=not head)
    for cells in rows:
        table.add_row(*cells)
    return table
