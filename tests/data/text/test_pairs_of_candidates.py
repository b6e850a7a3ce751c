"""Queries with candidates, read as pairs: for rerankers, and for a teacher that is one."""

import json

import pytest
import torch

from lightning_distill.data import EmbeddingFiles
from lightning_distill.tasks import Ranking

# Two candidates and three.
LISTS = [
    {"q": "who sings", "docs": ["the singer sings", "a stone"], "y": [2, 0], "s": [3.5, -1.0]},
    {"q": "where is rome", "docs": ["rome is in italy", "a tree", "who"], "y": [0, 1, 2],
     "s": [0.5, 1.5, 2.5]},
]  # fmt: skip
OPTIONS = {"text": "q", "text_pair": "docs", "relevance": "y", "scores": "s"}


def written(folder, rows, name="rows.jsonl"):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / name)


def ready(path, **options) -> EmbeddingFiles:
    given = {"vocab_size": 80, "length_bucketing": False, **OPTIONS, **options}
    data = EmbeddingFiles(path, path, path, **given)
    data.setup()
    return data


def rows_of(data, numbers):
    (batch,) = data.rows_dataloader([("train", numbers, None)])
    return batch


def ids(tokenizer, *texts):
    return tokenizer(*texts).input_ids


def unpadded(part):
    there = zip(part["input_ids"], part["attention_mask"], strict=True)
    return [own[mask > 0].tolist() for own, mask in there]


def test_each_candidate_is_read_with_its_query(tmp_path):
    data = ready(written(tmp_path, LISTS), task="ranking", largest_score=2)
    batch = rows_of(data, [1, 0])
    wanted = [ids(data.tokenizer, r["q"], d) for r in (LISTS[1], LISTS[0]) for d in r["docs"]]
    assert unpadded(batch) == wanted
    assert batch["place"].tolist() == [1, 2, 3, 1, 2] and batch["row"].tolist() == [1, 1, 1, 0, 0]
    assert batch["labels"].tolist() == [0, 0.5, 1, 1, 0]
    assert batch["scores"].tolist() == [0.5, 1.5, 2.5, 3.5, -1.0]
    assert "teacher" not in batch and data.counts()["labelled train rows"] == 2
    lengths = [max(len(ids(data.tokenizer, r["q"], d)) for d in r["docs"]) for r in LISTS]
    assert data.row_lengths()["train"].tolist() == lengths
    assert rows_of(data.replace(labelled_rows=1), [0, 1])["labels"].isnan().sum() in (2, 3)


def test_a_second_tokenizer_has_tokens_of_the_same_pairs(tmp_path):
    path = written(tmp_path, LISTS)
    other = ready(path, vocab_size=60).tokenizer
    data = ready(path, task=Ranking("mse"), teacher_tokenizer=other)
    own = rows_of(data, [0, 1])["teacher"]
    assert unpadded(own) == [ids(other, r["q"], d) for r in LISTS for d in r["docs"]]


def test_a_teacher_alone_may_read_pairs(tmp_path):
    path = written(tmp_path, LISTS)
    data = ready(path, teacher_pairs=True)
    batch, tokenizer = rows_of(data, [0]), data.tokenizer
    texts = [LISTS[0]["q"], *LISTS[0]["docs"]]
    assert unpadded(batch) == [ids(tokenizer, text) for text in texts]
    # The query, and nothing behind it.
    read = tokenizer([texts[0]] * 3, ["", *texts[1:]]).input_ids
    assert unpadded(batch["teacher"]) == read
    assert batch["place"].tolist() == [0, 1, 2]
    apart = ready(path)
    # A cache of the one is none of the other.
    assert data.preprocessing() != apart.preprocessing()
    assert "teacher_pairs" not in apart.preprocessing()


def test_candidates_without_relevance_have_no_label(tmp_path):
    rows = [dict(LISTS[0], y=None), LISTS[1]]
    data = ready(written(tmp_path, rows), task="ranking")
    assert rows_of(data, [0, 1])["labels"].isnan().tolist() == [True, True, False, False, False]
    # Where no column says it, the first is relevant.
    data = ready(written(tmp_path, LISTS), task="ranking", relevance=None)
    assert torch.equal(rows_of(data, [1])["labels"], torch.tensor([1.0, 0.0, 0.0]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"docs": []}, "has an empty list in column 'docs'; name one text at least"),
        ({"docs": None}, "must hold a text in column 'docs', got None"),
        ({"docs": ["a", ""]}, "must hold a text in column 'docs', got ''"),
        ({"y": [1]}, r"must hold 2 numbers in column 'y' \(data.relevance\), one for each"),
        ({"y": [1, "much"]}, r"must hold 2 numbers in column 'y' \(data.relevance\)"),
        ({"s": [1.0, 2.0, 3.0]}, r"must hold 2 numbers in column 's' \(data.scores\)"),
    ],
)
def test_a_bad_row_is_named_or_left_out(tmp_path, changes, words):
    path = written(tmp_path, [LISTS[1], {**LISTS[0], **changes}, LISTS[0]])
    with pytest.raises(ValueError, match=rf"Row 1 of .*rows.jsonl .*{words}.*skip_bad_rows=true"):
        ready(path, task="ranking")
    data = ready(path, task="ranking", skip_bad_rows=True)
    assert data.num_rows == 2 and data.counts()["train rows left out"] == 1


def test_what_does_not_fit_is_refused(tmp_path):
    path = written(tmp_path, LISTS)
    with pytest.raises(ValueError, match="`teacher_pairs` is false: a teacher that reads texts"):
        EmbeddingFiles(path, task="ranking", text_pair="docs", teacher_pairs=False)
    with pytest.raises(ValueError, match="`vectors` are of single texts, and a ranking reads"):
        EmbeddingFiles(path, task="ranking", text_pair="docs", vectors="v")
    with pytest.raises(ValueError, match="`relevance` are of candidates, and there are none"):
        EmbeddingFiles(path, relevance="y")
    with pytest.raises(ValueError, match="a row has one text alone: name the column"):
        ready(path, task="ranking", text_pair=None, relevance=None, scores=None)
    one = written(tmp_path, [{"q": "a", "d": "b c", "score": 0.5}] * 3, "one.jsonl")
    of_pairs = {"text_pair": "d", "relevance": None, "scores": None}
    with pytest.raises(ValueError, match="No query has more than one candidate.*label_kind: mse"):
        ready(one, task="ranking", **of_pairs)
    assert rows_of(ready(one, task=Ranking("mse"), **of_pairs), [0])["labels"].tolist() == [0.5]
