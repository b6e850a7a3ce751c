"""Labels, tokens, splits and batches of every text data module."""

import logging
import os
from pathlib import Path

import datasets
import pytest
import torch

from lightning_distill.data import TextDataModule, TextFiles
from lightning_distill.data.text.word_pieces import train_word_pieces
from lightning_distill.tasks import task_of_labels

NOUNS = ["cat", "dog", "house", "river", "tree"]


class Given(TextDataModule):
    """Rows from memory."""

    def __init__(self, splits, **options):
        super().__init__(**({"vocab_size": 200, "batch_size": 4, "eval_batch_size": 4} | options))
        self.given = splits

    def load(self):
        return {
            name: split
            if isinstance(split, datasets.Dataset)
            else datasets.Dataset.from_dict(split)
            for name, split in self.given.items()
        }


def rows(labels, column="label"):
    texts = [" ".join([NOUNS[i % 5]] * (1 + i % 7)) for i in range(len(labels))]
    return {"text": texts, column: labels}


def ready(labels, test=None, **options) -> Given:
    data = Given({"train": rows(labels), "validation": rows(labels), "test": rows(test or labels)})
    for name, value in options.items():
        setattr(data, name, value)
    data.setup()
    return data


def refused(labels, words, test=None, **options):
    splits = {"train": rows(labels), "validation": rows(labels), "test": rows(test or labels)}
    with pytest.raises(ValueError, match=words):
        Given(splits, **options).setup()


# Labels.


@pytest.mark.parametrize(
    ("labels", "names", "numbers"),
    [
        (["good", "bad", "good"], ["bad", "good"], [1, 0, 1]),
        ([2, 10, 2], ["2", "10"], [0, 1, 0]),
        (["2", "10", "2"], ["2", "10"], [0, 1, 0]),
        ([1.0, 0.0, None], ["0", "1"], [1, 0, -100]),
        ([True, False, True], ["0", "1"], [1, 0, 1]),
        (["007", "7", "nan"], ["007", "7", "nan"], [0, 1, 2]),
        (["a", "", "b"], ["a", "b"], [0, -100, 1]),
        (["a", "-100", " b "], ["a", "b"], [0, -100, 1]),
        ([0, -100, 1], ["0", "1"], [0, -100, 1]),
    ],
)
def test_classes_are_sorted_and_unlabelled_rows_are_minus_100(labels, names, numbers):
    data = ready(labels)
    assert data.label_names == names
    assert data.num_labels == len(names)
    assert data.splits["train"].labels.tolist() == numbers


def test_label_names_may_be_given():
    data = ready(["1", "0", "1"], label_names=["1", "0", "2"])
    assert data.num_labels == 3
    assert data.splits["train"].labels.tolist() == [0, 1, 0]
    refused(["a", "b"], "`label_names` names a class twice", label_names=["a", "a"])
    refused(["a", "b"], r"Label 'b' in row 1 of the train data is none", label_names=["a", "c"])


def test_a_label_that_only_the_test_rows_have_is_refused():
    refused(["a", "b"], r"Label 'c' in row 1 of the test data is none of the classes \(a, b\)",
            test=["a", "c"])  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["a", "a"], r"only one class \(a\): nothing to tell apart"),
        ([0.5, 1.0], r"Label 0.5 is no class.*data.task=regression"),
        ([-1, 0], r"Label -1 is negative"),
    ],
)
def test_labels_that_are_no_classes_are_refused(labels, words):
    refused(labels, words, task="classification")


@pytest.mark.parametrize(
    ("labels", "task"),
    [
        (["a", "b", None], "classification"),
        ([0, 1, 2.0], "classification"),
        (["0", "1", ""], "classification"),
        (["0.5", "1", ""], "regression"),
        ([0.25, float("nan"), 3.0], "regression"),
        (["0.5", "high"], "classification"),
        ([["a"], ["a", "b"], None], "multi_label"),
        ([None, []], "multi_label"),
    ],
)
def test_the_task_is_what_the_labels_show(labels, task):
    assert task_of_labels(labels).name == task
    if len(labels) > 2:
        data = ready(labels)
        assert data.task == task and data.replace(batch_size=2).task == task


def test_several_labels_per_row():
    data = ready([["x", "y"], ["y"], [], None], task="multi_label")
    assert data.label_names == ["x", "y"]
    found = data.splits["train"].labels
    assert found.tolist() == [[1, 1], [0, 1], [0, 0], [-100, -100]]
    assert data.splits["train"].has_label.tolist() == [True, True, True, False]
    words = ready(["x, y", "y", "x,y", ""], task="multi_label")
    assert words.splits["train"].labels.tolist() == [[1, 1], [0, 1], [1, 1], [-100, -100]]


def test_numbers():
    data = ready(["0.5", 2, None, "-3e1"][:1] * 2 + ["-30"], task="regression")
    assert data.num_labels == 1 and data.label_names is None
    assert data.splits["train"].labels.tolist() == [0.5, 0.5, -30.0]
    unlabelled = ready([0.5, None, float("nan"), 1.0], task="regression")
    assert unlabelled.splits["train"].has_label.tolist() == [True, False, False, True]
    refused(["0.5", "high"], r"Label 'high' in row 1 of the train data is no number",
            task="regression")  # fmt: skip
    refused(["0.5", "inf"], r"Label 'inf' in row 1", task="regression")


def test_named_classes_of_a_data_set_keep_their_order():
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["pos", "neg"])}
    )
    split = datasets.Dataset.from_dict(rows([0, 1, 1, None]), features=features)
    data = Given({"train": split, "validation": split, "test": split})
    data.setup()
    assert data.label_names == ["pos", "neg"]
    assert data.splits["train"].labels.tolist() == [0, 1, 1, -100]


# Labelled and unlabelled rows.


def test_labels_are_kept_in_equal_shares_of_the_classes():
    data = ready(["a"] * 40 + ["b"] * 8 + ["c"] * 12, labelled_rows=12, seed=1)
    labels = torch.cat([batch["labels"] for batch in data.train_dataloader()])
    assert len(labels) == 60
    assert [int((labels == c).sum()) for c in (0, 1, 2, -100)] == [4, 4, 4, 48]
    assert data.counts()["labelled train rows"] == 12

    def kept(seed):
        batches = data.replace(seed=seed).train_dataloader()
        return {int(r) for b in batches for r in b["row"][b["labels"] != -100]}

    assert kept(1) == kept(1) != kept(2)


def test_unlabelled_rows_can_be_left_out():
    data = ready(["a", None, "b", "", "a", "b"])
    dropped = data.replace(drop_unlabelled=True)
    found = sorted(int(r) for b in dropped.train_dataloader() for r in b["row"])
    assert found == [0, 2, 4, 5] and dropped.num_rows == 6
    assert len([r for b in data.train_dataloader() for r in b["row"]]) == 6
    with pytest.raises(ValueError, match="`replace` changes .*, got max_length"):
        data.replace(max_length=3)
    with pytest.raises(ValueError, match="`labelled_rows` is 9, but only 4 training rows"):
        data.replace(labelled_rows=9)


def test_training_rows_without_a_column_of_labels_are_unlabelled(caplog):
    splits = {"train": {"text": ["a", "b"]}, "validation": rows(["a", "b"])}
    splits["test"] = splits["validation"]
    data = Given(splits, label_names=["a", "b"])
    with caplog.at_level(logging.WARNING):
        data.setup()
    assert "no column 'label' (data.label), so every training row is unlabelled" in caplog.text
    assert "teacher" not in caplog.text
    assert data.splits["train"].labels.tolist() == [-100, -100]


@pytest.mark.parametrize("column", ["absent", "empty", "null"])
def test_data_without_any_label_can_be_read(column, caplog):
    more = {"label": [None, None, None]} if column == "empty" else {"id": [1, 2, 3]}
    split = {"text": ["a", "b", "c"], **more}
    splits = dict.fromkeys(["train", "validation", "test"], split)
    data = Given(splits, **({"label": None} if column == "null" else {}))
    data.setup()
    assert data.unlabelled and data.counts()["labelled train rows"] == 0
    assert data.num_labels is None and data.label_names is None
    (batch,) = data.test_dataloader()
    assert batch["labels"].tolist() == [-100] * 3
    # Who says that there is none need not be told.
    assert ("no row of the data has a label" in caplog.text) is (column != "null")
    named = Given(splits, label=data.label, label_names=["x", "y"])
    named.setup()
    assert named.unlabelled and named.num_labels == 2
    with pytest.raises(ValueError, match="name them, as in data.label_names"):
        Given(splits, label=data.label, task="multi_label").setup()


@pytest.mark.parametrize("name", ["category", "Category", "labels", "lable", "intent"])
@pytest.mark.parametrize("lacking", [["train", "validation", "test"], ["validation"], ["test"]])
def test_a_column_that_may_have_been_meant_is_named(name, lacking):
    splits = {split: rows(["a", "b"]) for split in ("train", "validation", "test")}
    splits |= {split: rows(["a", "b"], name) for split in lacking}
    with pytest.raises(ValueError, match=rf"has text, {name}\. Set data.label={name}") as told:
        Given(splits).setup()
    assert ("data.label=null" in str(told.value)) is (len(lacking) == 3)


def test_a_split_without_labels_beside_others_with_them_is_refused():
    splits = {"train": rows(["a", "b"]), "validation": {"text": ["a", "b"]}}
    with pytest.raises(ValueError, match=r"validation data has no column 'label' .* it has text"):
        Given(splits).setup()
    splits["validation"] = rows([None, None])
    with pytest.raises(ValueError, match="No row of the validation data has a label"):
        Given(splits).setup()


def test_a_text_column_is_not_taken_for_labels():
    split = {"topic": ["a", "b"], "target": ["c", "d"], "id": [1, 2]}
    data = Given({"train": split, "validation": split}, text="topic", text_pair="target")
    data.setup()
    assert data.unlabelled


@pytest.mark.parametrize(
    ("count", "kinds", "taken"),
    [(60, 60, False), (60, 31, False), (60, 30, True), (20, 20, True), (400, 150, True)],
)
@pytest.mark.parametrize("numbers", [False, True])
def test_texts_and_numbers_are_not_taken_for_classes_without_a_word(count, kinds, taken, numbers):
    labels = [i % kinds if numbers else f"a sentence {i % kinds}" for i in range(count)]
    names = [str(name) for name in sorted(set(labels))]
    assert ready(labels, label_names=names).num_labels == kinds
    assert ready(labels, num_labels=kinds).num_labels == kinds
    if taken:
        assert ready(labels).num_labels == kinds
        return
    hint = "data.task=regression" if numbers else "data=chat_files"
    refused(labels, rf"has {kinds} different values in {count} .*{hint}.*num_labels={kinds}\.")


def test_the_number_of_classes_is_a_check():
    refused(["a", "b"], "num_labels=3, but the data has num_labels=2", num_labels=3)
    refused([0.5, 1.5], "num_labels=2, but the data has .*=1", num_labels=2, task="regression")


# Splits.


def test_validation_rows_are_cut_from_the_training_rows(caplog):
    splits = {"train": rows(["a", "b"] * 20)}
    data = Given(splits, validation_fraction=0.25, seed=2)
    with caplog.at_level(logging.INFO):
        data.setup()
    assert data.counts() == {
        "train rows": 30,
        "labelled train rows": 30,
        "validation rows": 10,
        "test rows": 10,
    }
    assert "its figures will be too good" in caplog.text


def test_a_class_whose_only_row_was_cut_for_validation_is_known():
    for seed in range(12):
        labels = ["rare"] + ["a", "b"] * 5
        data = Given({"train": rows(labels)}, validation_fraction=0.4, seed=seed)
        data.setup()
        assert data.label_names == ["a", "b", "rare"]


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        ({"train": rows(["a"])}, r"10% of the 1 training rows is 0: name a validation file"),
        ({"train": rows([])}, "The train data has no rows"),
        ({"validation": rows(["a", "b"])}, "must give a split `train`, got validation"),
        ({"train": rows(["a", "b"] * 9, "lable")} | dict.fromkeys(["validation", "test"],
         rows(["a", "b"], "lable")), r"no column 'label'"),
        ({"train": {"text": [1, 2], "label": ["a", "b"]}, "validation": rows(["a", "b"])},
         r"Column 'text' of the train data must hold text, but row 0 holds 1 \(int\)"),
    ],
)  # fmt: skip
def test_splits_that_cannot_be_trained_on_are_refused(splits, words):
    with pytest.raises(ValueError, match=words):
        Given(splits).setup()


def test_load_must_be_written():
    with pytest.raises(TypeError, match="TextDataModule must define"):
        TextDataModule().load()


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("task", "sorting", "`task` must be one of classification, multi_label, regression"),
        ("task", "ranking", "got ranking, which is read by data=embedding_files"),
        ("task", "embedding", "got embedding, which is read by data=embedding_files"),
        ("task", "segmentation", "got segmentation, which is read by a data module of your own"),
        ("batch_size", 0, "`batch_size` must be at least 1, got 0"),
        ("max_length", 2, "`max_length` must be at least 3"),
        ("num_workers", -1, "`num_workers` must be at least 0"),
        ("labelled_rows", 0, "`labelled_rows` must be at least 1"),
        ("validation_fraction", 1.0, "`validation_fraction` lies between 0 and 1, got 1.0"),
    ],
)
def test_options_out_of_range_are_refused(option, value, words):
    with pytest.raises(ValueError, match=words):
        Given({}, **{option: value})


# Tokens and batches.


def test_batches_are_padded_to_their_longest_row():
    data = ready(["a", "b"] * 16, length_bucketing=False)
    widths = set()
    for batch in data.train_dataloader():
        lengths = batch["attention_mask"].sum(1)
        assert batch["input_ids"].shape == batch["attention_mask"].shape
        assert batch["input_ids"].shape[1] == lengths.max()
        padded = batch["attention_mask"] == 0
        assert (batch["input_ids"][padded] == data.tokenizer.pad_token_id).all()
        for ids, row in zip(batch["input_ids"], batch["row"].tolist(), strict=True):
            text = rows([0] * 32)["text"][row]
            assert data.tokenizer.decode(ids, skip_special_tokens=True) == text
        widths.add(batch["input_ids"].shape[1])
    assert len(widths) > 1


def test_long_rows_are_cut():
    data = ready(["a", "b"] * 4, max_length=5)
    assert max(data.splits["train"].lengths) == 5


def test_rows_that_are_cut_are_counted_and_said(caplog):
    labels = ["a", "b"] * 25
    splits = {name: rows(labels) for name in ("train", "validation")}
    # The longest of the test rows alone.
    splits["test"] = {"text": [*splits["train"]["text"][:49], "cat " * 9], "label": labels}
    with caplog.at_level(logging.INFO, logger="lightning_distill"):
        data = Given(splits, max_length=9)
        data.setup()
    assert data.counts()["test rows cut by max_length"] == 1
    assert "train rows cut by max_length" not in data.counts()
    (said,) = [r for r in caplog.records if "cut" in r.getMessage()]
    assert said.levelname == "INFO"
    assert said.getMessage() == "data.max_length=9 tokens cuts 1 of 50 test rows (2.0 %)"
    caplog.clear()
    data = Given(splits, max_length=6)
    data.setup()
    # Each seventh row is of five, six or seven words, and two tokens are special.
    cut = sum(len(text.split()) > 4 for text in splits["train"]["text"])
    assert data.counts()["train rows cut by max_length"] == cut
    (said,) = [r for r in caplog.records if "cuts" in r.getMessage()]
    assert said.levelname == "WARNING" and f"cuts {cut} of 50 train rows" in said.getMessage()
    assert said.getMessage().endswith("To read more of them, raise data.max_length.")
    assert data.replace(batch_size=2).counts() == data.counts()


def test_pairs_are_read_together():
    split = {"text": ["cat"] * 4, "other": ["dog", "house", "tree", "cat"], "label": [0, 1, 0, 1]}
    data = Given({"train": split, "validation": split, "test": split}, text_pair="other")
    data.setup()
    batch = next(iter(data.val_dataloader()))
    assert batch["token_type_ids"].sum() > 0
    row = int(batch["row"][0])
    assert data.tokenizer.decode(batch["input_ids"][0]) == (
        f"[CLS] cat [SEP] {split['other'][row]} [SEP]"
    )


def test_the_batch_carries_the_teachers_tokens_if_it_has_another_tokenizer():
    other = train_word_pieces(["a b c d e f g h i j k l m n o p q r s t u v w x y z"], 60, 64)
    other.padding_side = "left"
    data = ready(["a", "b"] * 8, teacher_tokenizer=other)
    batch = next(iter(data.train_dataloader()))
    assert batch["teacher"]["input_ids"].shape[0] == batch["input_ids"].shape[0]
    assert batch["teacher"]["input_ids"].shape[1] > batch["input_ids"].shape[1]
    # Words of letters, and padding on the left.
    assert (batch["teacher"]["attention_mask"][:, -1] == 1).all()
    for theirs, ours in zip(batch["teacher"]["input_ids"], batch["input_ids"], strict=True):
        text = other.decode(theirs, skip_special_tokens=True).replace(" ##", "").replace(" ", "")
        assert text == data.tokenizer.decode(ours, skip_special_tokens=True).replace(" ", "")
    same = ready(["a", "b"] * 8, tokenizer=other, teacher_tokenizer=other)
    assert "teacher" not in next(iter(same.train_dataloader()))


def test_an_empty_text_has_something_to_attend_to(caplog):
    split = {"text": ["", "cat", "  ", "dog"], "label": [0, 1, 0, 1]}
    tokenizer = train_word_pieces(["cat dog"], 60, 16)
    tokenizer.backend_tokenizer.post_processor = None
    data = Given({"train": split, "validation": split, "test": split}, tokenizer=tokenizer)
    with caplog.at_level(logging.WARNING):
        data.setup()
    assert "2 texts of the train data are empty (column 'text')" in caplog.text
    for batch in data.train_dataloader():
        assert (batch["attention_mask"].sum(1) > 0).all()


def test_a_tokenizer_without_padding(tmp_path):
    tokenizer = train_word_pieces(["cat dog"], 60, 16)
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match="no pad token, nor an end token"):
        ready(["a", "b"], tokenizer=tokenizer)
    tokenizer.eos_token = "[SEP]"
    data = ready(["a", "b"], tokenizer=tokenizer)
    assert data.tokenizer.pad_token == "[SEP]"
    with pytest.raises(FileNotFoundError, match="no tokenizer in ./nowhere: no such folder"):
        ready(["a", "b"], tokenizer="./nowhere")


def test_worker_processes_give_the_same_batches():
    data = ready(["a", "b"] * 8)
    alone = [b["row"].tolist() for b in data.train_dataloader()]
    helped = [b["row"].tolist() for b in data.replace(num_workers=2).train_dataloader()]
    assert alone == helped


@pytest.mark.parametrize(("gpu", "workers"), [(True, 2), (False, 0)])
def test_batches_are_made_ahead_beside_a_gpu(monkeypatch, gpu, workers):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    loader = ready(["a", "b"] * 8).train_dataloader()
    assert loader.num_workers == workers and loader.pin_memory == gpu
    assert ready(["a", "b"] * 8, num_workers=1).train_dataloader().num_workers == 1


def test_the_fingerprint_sees_every_label_and_token():
    first = ready(["a", "b", "a", "b"]).fingerprint()
    assert ready(["a", "b", "a", "b"]).fingerprint() == first
    assert ready(["a", "b", "b", "a"]).fingerprint() != first
    assert ready(["a", "b", "a", "b"], max_length=3).fingerprint() != first


DATA = os.environ.get("LIGHTNING_DISTILL_DATA")


@pytest.mark.skipif(not DATA, reason="LIGHTNING_DISTILL_DATA names no folder with sst2/")
def test_sst2():
    folder = Path(str(DATA)) / "sst2"
    files = {
        "train": str(folder / "train.tsv"),
        "validation": str(folder / "dev.tsv"),
        "test": str(folder / "test.tsv"),
    }
    data = TextFiles(**files, columns=["text", "label"])
    data.setup()
    assert data.label_names == ["0", "1"]
    lines = {n: Path(f).read_text().splitlines() for n, f in files.items()}
    assert data.counts() == {
        "train rows": len(lines["train"]),
        "labelled train rows": len(lines["train"]),
        "validation rows": len(lines["validation"]),
        "test rows": len(lines["test"]),
    }
    assert data.splits["test"].labels.tolist() == [
        int(line.rpartition("\t")[2]) for line in lines["test"]
    ]
