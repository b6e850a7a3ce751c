"""The same rows as lists would give."""

import numpy as np
import torch
from hypothesis import given, strategies as st

from lightning_distill.data.ragged import Ragged

ROWS = st.lists(st.lists(st.integers(1, 9), max_size=6), min_size=1, max_size=8)


@given(ROWS, st.data())
def test_rows_are_taken_and_padded_as_lists_are(rows, data):
    held = Ragged.of(rows)
    assert [row.tolist() for row in held] == rows and len(held) == len(rows)
    assert held[-1].tolist() == rows[-1]
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8))
    taken = held.take(np.array(chosen, dtype=np.int64))
    assert [row.tolist() for row in taken] == [rows[i] for i in chosen]
    longest = max((len(rows[i]) for i in chosen), default=0)
    right = [rows[i] + [7] * (longest - len(rows[i])) for i in chosen]
    left = [[7] * (longest - len(rows[i])) + rows[i] for i in chosen]
    assert taken.padded(7).tolist() == right and taken.padded(7, left=True).tolist() == left
    assert taken.padded(7).dtype == torch.int64
    assert taken.lengths.tolist() == [len(rows[i]) for i in chosen]


def test_what_is_taken_is_a_copy():
    held = Ragged.of([[1, 2], [3]])
    held.take(np.array([0])).values[:] = 9
    assert held.values.tolist() == [1, 2, 3]
