import json
import math

import numpy as np
import pytest
import torch

from lightning_distill.data import EmbeddingFiles

PAIRS = [
    {"text": "a cat sits", "text_pair": "a cat is sitting", "score": 5.0},
    {"text": "a dog runs in the park", "text_pair": "it rains", "score": 0.5},
    {"text": "two men talk", "text_pair": "two people are talking", "score": None},
    {"text": "snow", "text_pair": "white snow on a hill", "score": 2.5},
]
TRIPLES = [
    {"q": "who sings", "good": "the singer sings", "bad": ["a stone", "a river"]},
    {"q": "where is rome", "good": "rome is in italy", "bad": ["a tree", "who knows"]},
]


def written(folder, rows, name="rows.jsonl"):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / name)


def ready(path, **options) -> EmbeddingFiles:
    given = {"vocab_size": 60, "batch_size": 4, "length_bucketing": False, **options}
    data = EmbeddingFiles(path, path, path, **given)
    data.setup()
    return data


def plain(tokenizer, ids) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True).replace(" ##", "")


def read(data, batch):
    """Texts of a batch as words, by row."""
    words = [plain(data.tokenizer, ids) for ids in batch["input_ids"]]
    found: dict[int, list[str]] = {}
    for row, text in zip(batch["row"].tolist(), words, strict=True):
        found.setdefault(row, []).append(text)
    return found


def test_pairs_are_texts_one_after_the_other(tmp_path):
    data = ready(written(tmp_path, PAIRS), text_pair="text_pair", largest_score=5)
    (batch,) = data.val_dataloader()
    assert read(data, batch) == {i: [r["text"], r["text_pair"]] for i, r in enumerate(PAIRS)}
    assert batch["place"].tolist() == [0, 1] * 4
    scores = dict(zip(batch["row"][1::2].tolist(), batch["labels"][1::2].tolist(), strict=True))
    assert batch["labels"][::2].isnan().all()
    assert math.isnan(scores.pop(2))
    assert scores == pytest.approx({0: 1.0, 1: 0.1, 3: 0.5})
    counts = data.counts()
    assert counts["train rows"] == 4 and counts["labelled train rows"] == 3
    lengths = data.row_lengths()["train"]
    expected = [max(len(data.tokenizer(t).input_ids) for t in (r["text"], r["text_pair"]))
                for r in PAIRS]  # fmt: skip
    assert lengths.tolist() == expected


def test_the_first_of_several_candidates_is_a_label_and_a_pair_without_a_score_has_none(
    tmp_path, caplog
):
    lists = [{"q": row["q"], "docs": [row["good"], *row["bad"]]} for row in TRIPLES]
    data = ready(written(tmp_path, lists), text="q", text_pair="docs", task="ranking")
    assert not data.unlabelled and "no row of the data has a label" not in caplog.text
    pairs = [{"q": row["q"], "docs": [row["good"]]} for row in TRIPLES]
    data = ready(written(tmp_path, pairs, "pairs.jsonl"), text="q", text_pair="docs")
    assert data.unlabelled and "no row of the data has a label (data.score=score)" in caplog.text


def test_texts_alone_have_no_labels(tmp_path, caplog):
    data = ready(written(tmp_path, [{"text": r["text"]} for r in PAIRS]))
    assert not caplog.records
    (batch,) = data.val_dataloader()
    assert batch["place"].tolist() == [0] * 4 and batch["labels"].isnan().all()
    assert data.unlabelled and data.counts()["labelled train rows"] == 0


def test_queries_have_a_candidate_that_belongs_and_others_that_do_not(tmp_path):
    options = {"text": "q", "text_pair": "good", "negatives": "bad"}
    data = ready(written(tmp_path, TRIPLES), **options)
    (batch,) = data.val_dataloader()
    assert batch["place"].tolist() == [0, 1, 2, 3] * 2
    assert torch.equal(batch["labels"][1:4], torch.tensor([1.0, 0.0, 0.0]))
    assert batch["labels"][0].isnan()
    assert read(data, batch)[1] == ["where is rome", "rome is in italy", "a tree", "who knows"]
    columns = [{**r, "bad": r["bad"][0], "worse": r["bad"][1]} for r in TRIPLES]
    apart = ready(
        written(tmp_path, columns, "b.jsonl"), **(options | {"negatives": ["bad", "worse"]})
    )
    assert read(apart, next(iter(apart.val_dataloader()))) == read(data, batch)


def test_vectors_and_scores_of_a_teacher_come_from_columns(tmp_path):
    rows = [{**r, "v": [[i, 1.0], [i, 2.0], [i, 3.0], [i, 4.0]], "s": [3.5, i, -1.0]}
            for i, r in enumerate(TRIPLES)]  # fmt: skip
    options = {"text": "q", "text_pair": "good", "negatives": "bad", "vectors": "v", "scores": "s"}
    data = ready(written(tmp_path, rows), **options)
    batch = data.rows_dataloader([("train", [1], None)]).__iter__().__next__()
    assert batch["vectors"].tolist() == [[1, 1], [1, 2], [1, 3], [1, 4]]
    assert batch["scores"][1:].tolist() == [3.5, 1.0, -1.0] and batch["scores"][0].isnan()
    alone = [{"text": "a b", "v": [1.0, 2.0]}, {"text": "c", "v": [3.0, 4.0]}]
    (batch,) = ready(written(tmp_path, alone, "c.jsonl"), vectors="v").val_dataloader()
    assert sorted(batch["vectors"].tolist()) == [[1.0, 2.0], [3.0, 4.0]]
    other = [dict(r, v=[9.0, 9.0]) for r in alone]
    paths = [written(tmp_path, r, f"{i}.jsonl") for i, r in enumerate((alone, other))]
    assert len({ready(p, vectors="v").fingerprint() for p in paths}) == 2


@pytest.mark.parametrize(
    ("rows", "options", "words"),
    [
        ([{"q": "a", "good": None, "bad": "c"}], {}, "hold a text in column 'good', got None"),
        ([{"q": "a", "good": "b", "bad": " "}], {}, "must hold a text in column 'bad', got ' '"),
        ([{"q": "a", "good": "b", "bad": []}], {}, "empty list in column 'bad'"),
        ([{"q": "a", "good": "b", "bad": "c", "s": [1.0]}], {"scores": "s"},
         r"must hold 2 numbers in column 's' \(data.scores\).*got \[1.0\]"),
        ([{"q": "a", "good": "b", "bad": "c", "v": [[1.0], [2.0]]}], {"vectors": "v"},
         r"must hold 3 vectors of 1 numbers in column 'v'"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_by_file_and_row_or_left_out(tmp_path, caplog, rows, options, words):
    good = {"q": "who", "good": "one", "bad": "two three four", "s": [1.0, 0.5],
            "v": [[1.0], [2.0], [3.0]]}  # fmt: skip
    path = written(tmp_path, [good, *rows, good])
    of = {"text": "q", "text_pair": "good", "negatives": "bad", **options}
    with pytest.raises(ValueError, match=rf"Row 1 of .*rows.jsonl .*{words}.*skip_bad_rows=true"):
        ready(path, **of)
    data = ready(path, skip_bad_rows=True, **of)
    assert data.num_rows == 2 and data.counts()["train rows left out"] == 1
    assert "1 of 3 rows of the train data were left out" in caplog.text


def test_a_pair_needs_a_number_or_nothing(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,text_pair,score\na,b,\nc d,e,0.25\n")
    data = ready(str(path), text_pair="text_pair")
    assert data.counts()["labelled train rows"] == 1
    path.write_text("text,text_pair,score\na,b,alike\n")
    with pytest.raises(ValueError, match=r"Row 0 of .*a.csv must hold a number in column 'score'"):
        ready(str(path), text_pair="text_pair")


def test_what_does_not_fit_is_refused(tmp_path):
    path = written(tmp_path, PAIRS)
    with pytest.raises(ValueError, match=r"no column 'other' \(data.text_pair\); it has text"):
        ready(path, text_pair="other")
    with pytest.raises(ValueError, match="name the column of the one that does"):
        EmbeddingFiles(path, negatives=["bad"])
    with pytest.raises(ValueError, match="`scores` are of candidates, and there are none"):
        EmbeddingFiles(path, scores="score")
    with pytest.raises(ValueError, match="`largest_score` must be a positive number, got 0"):
        EmbeddingFiles(path, largest_score=0)
    with pytest.raises(ValueError, match="leave data.augmentation=null"):
        EmbeddingFiles(path, augmentation=lambda tokens, generator: tokens)


def test_a_second_tokenizer_has_tokens_of_the_same_texts(tmp_path):
    path = written(tmp_path, PAIRS)
    other = ready(path, text_pair="text_pair", vocab_size=50)
    data = ready(path, text_pair="text_pair", vocab_size=70, teacher_tokenizer=other.tokenizer)
    (batch,) = data.val_dataloader()
    own = batch["teacher"]
    assert len(own["input_ids"]) == len(batch["input_ids"]) == 8
    for ids, row, place in zip(own["input_ids"], batch["row"], batch["place"], strict=True):
        text = PAIRS[row]["text_pair" if place else "text"]
        assert plain(other.tokenizer, ids) == text


def test_repeats_and_kept_labels_are_whole_rows(tmp_path):
    data = ready(written(tmp_path, PAIRS), text_pair="text_pair", labelled_rows=2)
    rows = data.splits["train"]
    found = rows[[1, -1]]
    assert found["row"].tolist() == [1, 1, -1, -1]
    assert np.diff(rows.begins).tolist() == [2, 2, 2, 2]
    kept = data.training_rows()
    assert int(kept.has_label.sum()) == 2 and int((~kept.labels.isnan()).sum()) == 2
    assert len(kept.labelled()) == 2
