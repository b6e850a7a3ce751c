"""Which pieces of documents share a row."""

import bisect

import numpy as np

from ..ragged import Ragged


def cut_into_rows(offsets: np.ndarray, width: int) -> tuple[np.ndarray, Ragged]:
    """Documents one after the other, cut wherever a row is full.

    Args:
        offsets: where each document begins, and the end of the last, in tokens.
        width: tokens of a row.

    Returns:
        Where each piece begins and the end of the last, and the numbers of each row's pieces.
    """
    total = int(offsets[-1])
    cuts = np.arange(0, total, width)
    pieces = np.unique(np.concatenate([offsets, cuts, [0]]))
    firsts = np.searchsorted(pieces, np.append(cuts, total))
    return pieces, Ragged(np.arange(len(pieces) - 1), firsts)


def fit_into_rows(lengths: np.ndarray, width: int) -> Ragged:
    """Whole documents in few rows: each, the longest first, where it leaves least room.

    That is best-fit decreasing; it needs at most 11/9 of the fewest rows possible, and one more
    (Johnson, 1973).

    Args:
        lengths: of the documents, in tokens, shape (documents,), or shape (documents, sides) if a
            document has one length for each of several models: all must fit.
        width: tokens of a row.

    Returns:
        The numbers of each row's documents, in order.
    """
    sides = lengths[:, None] if lengths.ndim == 1 else lengths
    longest = sides.max(axis=1, initial=0)
    if len(longest) and longest.max() > width:
        raise ValueError(
            f"Document {int(longest.argmax())} has {int(longest.max())} tokens, more than a row's "
            f"{width}."
        )
    rows: list[list[int]] = []
    used: list[np.ndarray] = []
    # Rows by their room, the least first; of equal room the oldest.
    open_rows: list[tuple[int, int]] = []
    for number in np.argsort(-longest, kind="stable").tolist():
        place = bisect.bisect_left(open_rows, (int(longest[number]), -1))
        if place < len(open_rows):
            _, row = open_rows.pop(place)
        else:
            row = len(rows)
            rows.append([])
            used.append(np.zeros(sides.shape[1], dtype=np.int64))
        rows[row].append(number)
        used[row] = used[row] + sides[number]
        room = width - int(used[row].max())
        if room > 0:
            bisect.insort(open_rows, (room, row))
    return Ragged.of([sorted(row) for row in rows])
