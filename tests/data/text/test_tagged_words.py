import json
import random

import datasets
import numpy as np
import pytest
import torch

from lightning_distill.data import HubTokens, TokenFiles
from lightning_distill.data.text.word_pieces import train_word_pieces
from lightning_distill.models.batch import at_students_tokens

TAGS = ["O", "B-a", "I-a", "B-b"]
LETTERS = "abcdefgh"


def sentences(count: int, least: int, most: int, seed: int = 0) -> list[dict]:
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        words = [
            "".join(draw.choices(LETTERS, k=draw.randint(1, 5)))
            for _ in range(draw.randint(least, most))
        ]
        rows.append({"words": words, "tags": [draw.choice(TAGS) for _ in words]})
    return rows


def written(path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def word_pieces(rows, size: int):
    return train_word_pieces([" ".join(row["words"]) for row in rows], size, 1000)


def ready(path, **options) -> TokenFiles:
    given = {"batch_size": 4, "label_names": TAGS, "length_bucketing": False, **options}
    data = TokenFiles(str(path), str(path), str(path), **given)
    data.setup()
    return data


def test_parquet_and_the_hub_give_what_json_gives(tmp_path):
    rows = sentences(6, 1, 5)
    first = ready(written(tmp_path / "a.jsonl", rows), vocab_size=60)
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    assert ready(tmp_path / "a.parquet", vocab_size=60).fingerprint() == first.fingerprint()
    numbered = [
        {"tokens": row["words"], "ner_tags": [TAGS.index(tag) for tag in row["tags"]]}
        for row in rows
    ]
    features = datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "ner_tags": datasets.List(datasets.ClassLabel(names=TAGS)),
        }
    )
    split = datasets.Dataset.from_list(numbered, features=features)
    splits = {name: split for name in ("train", "validation", "test")}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "hub")
    hub = HubTokens(str(tmp_path / "hub"), batch_size=4, vocab_size=60)
    hub.setup()
    assert hub.label_names == TAGS and hub.fingerprint() == first.fingerprint()


def test_bad_rows_are_named_or_counted_and_left_out(tmp_path):
    good = sentences(4, 2, 4)
    bad = [
        {"words": ["a", "b"], "tags": ["O"]},
        {"words": "a b", "tags": ["O"]},
        {"words": [], "tags": []},
    ]
    path = written(tmp_path / "a.jsonl", [good[0], bad[0], *good[1:]])
    with pytest.raises(ValueError, match=r"Word 1 \('b'\) in row 1 of .*a.jsonl has no tag.*skip_"):
        ready(path)
    (tmp_path / "a.conll").write_text(
        "x B-a\ny O\n\nx B-a\ny\n\nz O\nw B-b\n\n" + "".join(f"{c} O\n\n" for c in LETTERS)
    )
    data = ready(tmp_path / "a.conll", vocab_size=60, skip_bad_rows=True)
    assert data.counts()["train rows"] == 10 and data.counts()["train rows left out"] == 1
    # In json a column is of one kind, so that the second is a file of its own.
    for row, words in zip(bad, ("has no tag", "list of words", "no words"), strict=True):
        with pytest.raises(ValueError, match=words):
            ready(written(tmp_path / "b.jsonl", [row]))
    data = ready(written(tmp_path / "c.jsonl", [*good, bad[0], bad[2]]), skip_bad_rows=True)
    whole = ready(written(tmp_path / "d.jsonl", good))
    assert data.counts()["test rows left out"] == 2
    assert data.fingerprint() == whole.fingerprint()


@pytest.mark.parametrize(("length", "stride"), [(12, 4), (12, 0), (9, 4), (30, 10)])
def test_windows_show_every_word_once_where_most_stands_around_it(length, stride, tmp_path):
    rows = sentences(8, 1, 25)
    tokenizer = word_pieces(rows, 40)
    data = ready(
        written(tmp_path / "a.jsonl", rows), tokenizer=tokenizer, max_length=length, stride=stride
    )
    loaders = [batch for batch in data.val_dataloader()]
    assert all(batch["input_ids"].shape[1] <= length for batch in loaders)
    seen: dict[int, list] = {}
    for batch in loaders:
        assert torch.equal(batch["word_mask"].bool(), batch["word_number"] > 0)
        assert torch.equal(batch["word_mask"].bool(), batch["labels"] != -100)
        for i, j in batch["word_mask"].nonzero().tolist():
            token = tokenizer.convert_ids_to_tokens(int(batch["input_ids"][i, j]))
            tag = TAGS[int(batch["labels"][i, j])]
            seen.setdefault(int(batch["word_number"][i, j]), []).append((token, tag))
    expected, number = {}, 0
    for row in rows:
        number += 1
        for word, tag in zip(row["words"], row["tags"], strict=True):
            first = tokenizer.tokenize(word)[0]
            expected[number] = (first, tag)
            number += 1
    # Numbers begin at 1, and one is left out between two sentences.
    assert {n: found[0] for n, found in seen.items()} == expected
    assert all(len(found) == 1 for found in seen.values())
    assert not any(data.splits[name].cut.any() for name in data.splits)


def test_a_word_of_two_windows_counts_in_the_one_that_shows_more_around_it(tmp_path):
    words = [letter for letter in LETTERS] * 3
    rows = [{"words": words, "tags": ["O"] * len(words)}]
    data = ready(
        written(tmp_path / "a.jsonl", rows * 2),
        tokenizer=word_pieces(rows, 40),
        max_length=10,
        stride=4,
    )
    (batch,) = data.rows_dataloader([("validation", [0, 1, 2, 3, 4], None)])
    # Windows of 8 words that overlap by 4: 0-7, 4-11, 8-15, 12-19, 16-23.
    numbers = [row[row > 0].tolist() for row in batch["word_number"]]
    inner = [[n - 1 for n in row] for row in numbers]
    assert inner == [list(range(6)), [6, 7, 8, 9], [10, 11, 12, 13], [14, 15, 16, 17],
                     list(range(18, 24))]  # fmt: skip


def test_labels_are_kept_of_whole_sentences(tmp_path):
    rows = sentences(6, 12, 20)
    data = ready(
        written(tmp_path / "a.jsonl", rows),
        tokenizer=word_pieces(rows, 40),
        max_length=9,
        stride=3,
        labelled_rows=2,
    )
    kept = data.training_rows()
    whole = data.splits["train"]
    assert len(kept) == len(whole) > 12
    of_row = whole.of_row
    labelled = set(of_row[(kept.has_label).numpy()].tolist())
    assert len(labelled) == 2
    # A window may show no word of its own.
    assert all(
        bool(kept.has_label[i]) is (of_row[i] in labelled)
        for i in range(len(whole))
        if whole.has_label[i]
    )


def test_two_tokenizers_are_compared_by_the_words_that_both_read(tmp_path):
    rows = sentences(7, 3, 14)
    own, other = word_pieces(rows, 30), word_pieces(rows, 200)
    for side in ("right", "left"):
        other.padding_side = side
        data = ready(
            written(tmp_path / "a.jsonl", rows),
            tokenizer=own,
            teacher_tokenizer=other,
            max_length=20,
        )
        for batch in data.val_dataloader():
            theirs = batch["teacher"]["input_ids"]
            taken = at_students_tokens(batch, theirs)
            assert taken.shape == batch["input_ids"].shape
            for i in range(len(theirs)):
                words = rows[int(batch["row"][i])]["words"]
                mask = batch["word_mask"][i].bool()
                read = [other.convert_ids_to_tokens(int(t)) for t in taken[i][mask]]
                ours = [own.convert_ids_to_tokens(int(t)) for t in batch["input_ids"][i][mask]]
                assert read == [other.tokenize(w)[0] for w in words[: len(read)]]
                assert ours == [own.tokenize(w)[0] for w in words[: len(ours)]]
                assert bool((batch["labels"][i][~mask] == -100).all())
        # The student's tokenizer makes more tokens, and so reads fewer words.
        assert data.splits["test"].cut.any() and not data.splits["test"].cut.all()
    with pytest.raises(ValueError, match=r"another tokenizer.*data.stride=null"):
        ready(tmp_path / "a.jsonl", tokenizer=own, teacher_tokenizer=other, stride=4)


def test_a_stride_that_leaves_no_window_is_refused(tmp_path):
    path = written(tmp_path / "a.jsonl", sentences(4, 1, 4))
    with pytest.raises(ValueError, match=r"`stride` is 70.*windows of 128.*at most 64"):
        ready(path, stride=70)
    with pytest.raises(ValueError, match="`stride` must be at least 0, got -1"):
        ready(path, stride=-1)


def test_values_stay_where_a_batch_pairs_no_tokens():
    values = torch.arange(6).view(1, 3, 2)
    assert at_students_tokens({"input_ids": torch.zeros(1, 2)}, values) is values
    places = {"teacher_place": torch.tensor([[2, 0, 0, 1]])}
    assert np.array_equal(at_students_tokens(places, values)[0], values[0][[2, 0, 0, 1]])
