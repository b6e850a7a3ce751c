"""A label of a whole sentence beside the tags of its words, in every form of file."""

import json

import datasets
import pytest

from lightning_distill.data import HubTokens, TokenFiles
from lightning_distill.data.data import DataFacts

ROWS = [
    ("play some jazz", "O O B-genre", "play"),
    ("book a table in rome", "O O O O B-city", "book"),
    ("rate it", "O O", None),
    ("play rock", "O B-genre", "play"),
]
OPTIONS = {"vocab_size": 60, "batch_size": 4, "length_bucketing": False}
LINES = {"parallel": ["seq.in", "seq.out", "label"]}


def lists(path, rows=ROWS, key="intent"):
    made = [{"words": w.split(), "tags": t.split(), key: label} for w, t, label in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


def lines(folder, rows=ROWS):
    folder.mkdir()
    for i, name in enumerate(LINES["parallel"]):
        (folder / name).write_text("".join(f"{row[i] or ''}\n" for row in rows))
    return folder


def ready(train, validation=None, kind=TokenFiles, **options):
    files = {"train": str(train), "validation": str(validation or train)}
    data = kind(**(files if kind is TokenFiles else {}), **{**OPTIONS, **options})
    data.setup()
    return data


def of_rows(data, loader="val_dataloader"):
    (batch,) = getattr(data, loader)()
    names = [*data.row_label_names, None]
    labels = batch["row_labels"]
    assert labels.dtype is batch["row"].dtype and labels.shape == batch["row"].shape
    return {
        int(r): names[int(n)] if n >= 0 else None for r, n in zip(batch["row"], labels, strict=True)
    }


EXPECTED = {i: label for i, (_, _, label) in enumerate(ROWS)}


def test_all_forms_give_the_same(tmp_path):
    of_lists = ready(lists(tmp_path / "a.jsonl"), row_label="intent")
    of_lines = ready(lines(tmp_path / "b"), **LINES)
    hub = tmp_path / "hub"
    table = datasets.Dataset.from_json(str(tmp_path / "a.jsonl"), cache_dir=str(tmp_path / "c"))
    hub.mkdir()
    for split in ("train", "validation", "test"):
        table.to_parquet(hub / f"{split}.parquet")
    found = ready(None, kind=HubTokens, path=str(hub), words="words", tags="tags",
                  row_label="intent")  # fmt: skip
    for data in (of_lists, of_lines, found):
        assert data.row_label_names == ["book", "play"] and DataFacts(data).num_row_labels == 2
        assert of_rows(data) == of_rows(data, "train_dataloader") == EXPECTED
        assert data.label_names == ["B-city", "B-genre", "O"]
    assert of_lists.fingerprint() == of_lines.fingerprint() == found.fingerprint()


def test_hidden_labels_of_a_table_that_numbers_them_are_none(tmp_path):
    names = datasets.ClassLabel(names=["play", "book"])
    rows = {"tokens": [["a"], ["b", "c"], ["a"]], "ner_tags": [["O"], ["B-x", "O"], ["O"]]}
    table = datasets.Dataset.from_dict({**rows, "intent": [1, -1, 0]})
    for split in ("train", "validation"):
        table.cast_column("intent", names).to_parquet(tmp_path / f"{split}.parquet")
    data = ready(None, kind=HubTokens, path=str(tmp_path), row_label="intent")
    assert data.row_label_names == ["play", "book"]
    assert of_rows(data) == {0: "book", 1: None, 2: "play"}


def test_they_are_no_input_of_a_teacher_but_part_of_what_is_known_of_the_rows(tmp_path):
    with_labels = ready(lists(tmp_path / "a.jsonl"), row_label="intent")
    without = ready(tmp_path / "a.jsonl")
    assert with_labels.preprocessing() == without.preprocessing()
    assert with_labels.fingerprint() != without.fingerprint()
    (batch,) = without.val_dataloader()
    assert "row_labels" not in batch and not DataFacts(without).has_row_labels


def test_labelled_rows_keeps_both_labels_of_a_sentence_or_none(tmp_path):
    data = ready(lists(tmp_path / "a.jsonl"), row_label="intent", labelled_rows=2)
    (batch,) = data.train_dataloader()
    tagged = (batch["labels"] >= 0).any(1)
    assert tagged.sum() == 2
    labelled = {int(r) for r, n in zip(batch["row"], batch["row_labels"], strict=True) if n >= 0}
    kept = {int(r) for r, own in zip(batch["row"], tagged, strict=True) if own}
    assert labelled == kept - {2}
    # A sentence with a label and no tags is labelled.
    alone = [{"words": ["play"], "intent": "play"}, {"words": ["go"], "tags": ["O"]}]
    alone += [{"words": ["rome"], "tags": ["B-city"], "intent": "book"}, {"words": ["now"]}]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in alone))
    assert ready(tmp_path / "b.jsonl", row_label="intent").counts()["labelled train rows"] == 3


def test_rows_that_cannot_be_used_take_their_label_with_them(tmp_path):
    bad = [*ROWS[:1], ("one two", "O", "rate"), *ROWS[1:]]
    for path, more in ((lists(tmp_path / "a.jsonl", bad), {"row_label": "intent"}),
                       (lines(tmp_path / "b", bad), LINES)):  # fmt: skip
        data = ready(path, skip_bad_rows=True, **more)
        assert of_rows(data) == EXPECTED and data.counts()["train rows left out"] == 1


def test_names_may_be_given_for_data_without_any(tmp_path):
    none = [(words, tags, None) for words, tags, _ in ROWS]
    data = ready(lists(tmp_path / "a.jsonl", none), row_label="intent", row_label_names=["x", "y"])
    assert data.row_label_names == ["x", "y"] and set(of_rows(data).values()) == {None}
    assert ready(tmp_path / "a.jsonl", row_label="intent").row_label_names is None


def columns(tmp_path):
    (tmp_path / "c.conll").write_text("play O\njazz B-genre\n\n")
    return tmp_path / "c.conll"


def two_files(tmp_path):
    return lines(tmp_path / "two")


def plain(tmp_path):
    return lists(tmp_path / "a.jsonl")


def short(tmp_path):
    folder = lines(tmp_path / "short")
    (folder / "label").write_text("play\n")
    return folder


@pytest.mark.parametrize(
    ("write", "options", "words"),
    [
        (columns, {"row_label": "intent"}, "has a word in each line, and no place for a label"),
        (two_files, {"row_label": "intent"}, r"no third file with a label.*has label, seq.in"),
        (short, LINES, "has 4 lines, but .*label has 1"),
        (plain, {"row_label": "intnet"}, "no entry 'intnet'.*words,"),
        (plain, LINES, "no entry 'label'"),
        (plain, {"row_label": "intent", "stride": 2}, "shows a part"),
        (plain, {"parallel": "seq.in"}, "must name the files of words"),
        (plain, {"row_label": "intent", "row_label_names": "x"}, "a list"),
        (
            plain,
            {"row_label": "intent", "row_label_names": ["a", "a"]},
            "names a label twice",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, write, options, words):
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        ready(write(tmp_path), **options)


def test_a_label_that_no_training_row_has_is_refused(tmp_path):
    other = lists(tmp_path / "b.jsonl", [*ROWS, ("go", "O", "leave")])
    with pytest.raises(
        ValueError, match=r"Label 'leave' in row 4 of the validation data.*data.row_label_names"
    ):
        ready(lists(tmp_path / "a.jsonl"), other, row_label="intent")
