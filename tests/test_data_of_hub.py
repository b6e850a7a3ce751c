import datasets
import pytest

from lightning_distill.data_of_hub import with_hub_data

NAMES = datasets.ClassLabel(names=["no", "yes"])
TEXT = datasets.Value("string")
KINDS = [
    ({"text": TEXT, "label": NAMES}, {"text": "a", "label": 0}, "data=hub"),
    (
        {"sentence": TEXT, "label": NAMES},
        {"sentence": "a", "label": 0},
        "data=hub data.text=sentence",
    ),
    (
        {"tokens": datasets.List(TEXT), "ner_tags": datasets.List(NAMES)},
        {"tokens": ["a"], "ner_tags": [1]},
        "data=hub_tokens",
    ),
    (
        {"words": datasets.List(TEXT), "pos": datasets.List(NAMES)},
        {"words": ["a"], "pos": [1]},
        "data=hub_tokens data.words=words data.tags=pos",
    ),
    (
        {"id": TEXT, "question": TEXT, "context": TEXT, "answers": datasets.List(TEXT)},
        {"id": "1", "question": "a", "context": "b", "answers": []},
        "data=hub_questions",
    ),
    ({"source": TEXT, "target": TEXT}, {"source": "a", "target": "b"}, "data=hub_pairs"),
    ({"image": datasets.Image(), "label": NAMES}, {"image": None, "label": 1}, "data=hub_pictures"),
    (
        {"photo": datasets.Image(), "label": NAMES},
        {"photo": None, "label": 1},
        "data=hub_pictures data.image=photo",
    ),
]


@pytest.mark.parametrize(("features", "row", "words"), KINDS)
def test_a_saved_data_set_is_told_by_its_columns(features, row, words, tmp_path, capsys):
    split = datasets.Dataset.from_list([row] * 3, features=datasets.Features(features))
    datasets.DatasetDict({"train": split, "validation": split}).save_to_disk(tmp_path / "set")
    typed = [f"data.path={tmp_path}/set", "job=finetune"]
    assert with_hub_data(typed) == [*typed, *words.split()]
    assert f"has the columns {', '.join(features)}: {words}" in capsys.readouterr().err
    # What is typed is not typed again.
    named = [*typed, *words.split()[1:]]
    assert with_hub_data(named) == [*named, words.split()[0]]


def test_files_in_the_layout_of_the_hub_are_told_by_the_first(tmp_path):
    (tmp_path / "data").mkdir()
    rows = datasets.Dataset.from_list([{"tokens": ["a"], "ner_tags": [1]}])
    rows.to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    (tmp_path / "README.md").write_text("A card.\n")
    typed = [f"data.path={tmp_path}"]
    assert with_hub_data(typed) == [*typed, "data=hub_tokens"]


def test_a_task_of_glue_says_what_reads_it():
    assert with_hub_data(["data.glue=sst2"]) == ["data.glue=sst2", "data=hub"]


@pytest.mark.parametrize(
    "words",
    [
        ["data=hub_tokens", "data.path=."],
        ["data.path=conll/conll2003"],
        ["job.run=x", "data.path=."],
        ["resume=x", "data.path=."],
        [],
    ],
)
def test_what_is_said_or_not_there_is_left_alone(words):
    assert with_hub_data(words) == words


def test_columns_that_nothing_reads_are_refused_with_what_to_type(tmp_path):
    for name, row in (("none", {"a": 1}), ("chats", {"messages": [{"role": "user"}]})):
        split = datasets.Dataset.from_list([row])
        datasets.DatasetDict({"train": split}).save_to_disk(tmp_path / name)
    with pytest.raises(ValueError, match="cannot be told by its columns: type what reads it too"):
        with_hub_data([f"data.path={tmp_path}/none"])
    with pytest.raises(ValueError, match="data=chat_files reads in files: write each split with"):
        with_hub_data([f"data.path={tmp_path}/chats"])
