"""Which pieces share a row, against plain loops."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from lightning_distill.data.language.packing import cut_into_rows, fit_into_rows


@given(st.lists(st.integers(0, 9), max_size=20), st.integers(2, 7))
def test_documents_are_joined_and_cut(lengths, width):
    offsets = np.cumsum([0, *lengths])
    pieces, rows = cut_into_rows(offsets, width)
    # Each token by (document, place), and where a piece begins.
    tokens = [(d, i) for d, n in enumerate(lengths) for i in range(n)]
    begins = [k for k, (_, place) in enumerate(tokens) if place == 0 or k % width == 0]
    assert pieces.tolist() == [*begins, len(tokens)]
    found = [[pieces[p] for p in row] for row in rows]
    assert found == [
        [b for b in begins if start <= b < start + width] for start in range(0, len(tokens), width)
    ]


@given(st.lists(st.integers(1, 10), max_size=40))
def test_whole_documents_fit_in_few_rows(lengths):
    rows = fit_into_rows(np.array(lengths, dtype=np.int64), 10)
    assert sorted(n for row in rows for n in row.tolist()) == list(range(len(lengths)))
    used = [sum(lengths[n] for n in row) for row in rows]
    assert all(0 < total <= 10 for total in used)
    # No two rows could be one, or the document that opened the second had fitted into the first.
    assert all(a + b > 10 for i, a in enumerate(used) for b in used[i + 1 :])
    assert len(used) <= 11 / 9 * -(-sum(lengths) // 10) * 1.5 + 1


def test_a_document_goes_where_it_leaves_least_room():
    rows = fit_into_rows(np.array([6, 7, 3, 4, 2]), 10)
    assert [row.tolist() for row in rows] == [[1, 2], [0, 3], [4]]


@given(st.lists(st.tuples(st.integers(1, 10), st.integers(1, 10)), max_size=30))
def test_two_models_fit_at_once(lengths):
    rows = fit_into_rows(np.array(lengths, dtype=np.int64).reshape(-1, 2), 10)
    assert sorted(n for row in rows for n in row.tolist()) == list(range(len(lengths)))
    for row in rows:
        assert all(sum(lengths[n][side] for n in row) <= 10 for side in (0, 1))


def test_a_document_that_is_longer_than_a_row():
    with pytest.raises(ValueError, match="Document 1 has 11 tokens, more than a row's 10"):
        fit_into_rows(np.array([3, 11]), 10)
