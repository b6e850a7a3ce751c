from types import SimpleNamespace

import pytest
from tiny import bert

from lightning_distill.data.ragged import Ragged
from lightning_distill.jobs.build import check_lengths


def data(*rows, teacher=None):
    ids = Ragged.of(rows)
    other = ids if teacher is None else Ragged.of(teacher)
    split = SimpleNamespace(student={"input_ids": ids}, teacher={"input_ids": other})
    tokenizer = None if teacher is None else object()
    return SimpleNamespace(splits={"train": split}, teacher_tokenizer=tokenizer)


def test_a_token_that_a_model_does_not_know_is_refused_wherever_it_is():
    known = data([1, 2], [3, 59])
    check_lengths(known, student=bert(1, 8), teacher=None)
    with pytest.raises(ValueError, match="student knows 59 token ids, but the data holds id 59"):
        check_lengths(known, student=bert(1, 8, vocab_size=59))
    # Each side has a tokenizer of its own.
    own = data([1, 2], teacher=[[1], [70]])
    check_lengths(own, student=bert(1, 8), teacher=bert(1, 8, vocab_size=71))
    with pytest.raises(ValueError, match="teacher knows 60 token ids, but the data holds id 70"):
        check_lengths(own, student=bert(1, 8), teacher=bert(1, 8))


def test_a_row_that_a_model_cannot_read_whole_is_refused():
    with pytest.raises(ValueError, match="student reads at most 32 tokens, but the data has .* 33"):
        check_lengths(data([1] * 33), student=bert(1, 8))
