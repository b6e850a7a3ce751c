import logging

import pytest

from lightning_distill.data.bad_rows import BadRows


def test_the_first_bad_row_is_an_error_that_names_the_way_round():
    with pytest.raises(ValueError, match=r"Row 3 of a.csv is no row. .*data.skip_bad_rows=true"):
        BadRows().add("train", "Row 3 of a.csv is no row.")


def test_skipped_rows_are_counted_and_told_with_the_first_reason(caplog):
    bad = BadRows(skip=True)
    for number in (3, 5):
        bad.add("train", f"Row {number} of a.csv is no row.")
    with caplog.at_level(logging.WARNING, logger="lightning_distill"):
        bad.say({"train": 8, "test": 4})
    assert caplog.messages == [
        "2 of 10 rows of the train data were left out (data.skip_bad_rows=true). The first: Row 3 "
        "of a.csv is no row."
    ]
    assert bad.counts() == {"train rows left out": 2}


def test_a_split_that_loses_all_its_rows_is_an_error():
    bad = BadRows(skip=True)
    bad.add("test", "Row 0 of a.csv is no row.")
    with pytest.raises(ValueError, match=r"None of the 1 rows of the test data.*Row 0 of a.csv"):
        bad.say({"train": 8, "test": 0})
