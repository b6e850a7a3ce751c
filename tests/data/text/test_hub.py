"""Data sets of the hub, from folders in its layouts."""

import datasets
import pytest

from lightning_distill.data import Hub
from lightning_distill.data.text.hub import GLUE

NAMES = ["negative", "positive"]
FEATURES = datasets.Features(
    {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=NAMES)}
)


def split(labels, features=FEATURES) -> datasets.Dataset:
    texts = [f"sentence number {i}" for i in range(len(labels))]
    return datasets.Dataset.from_dict({"sentence": texts, "label": labels}, features=features)


@pytest.fixture
def saved(tmp_path):
    """What `save_to_disk` writes, with the test labels hidden as in GLUE."""
    splits = {
        "train": split([1, 0] * 10),
        "validation": split([0, 1, 1, 1]),
        "test": split([-1] * 5),
    }
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


def loaded(path, **options) -> Hub:
    data = Hub(str(path), **({"text": "sentence", "vocab_size": 100} | options))
    data.setup()
    return data


def test_classes_keep_the_names_and_numbers_of_the_data_set(saved):
    data = loaded(saved)
    assert data.label_names == NAMES
    assert data.splits["train"].labels.tolist() == [1, 0] * 10
    assert data.splits["validation"].labels.tolist() == [0, 1, 1, 1]


def test_hidden_test_labels_leave_the_validation_rows(saved, caplog):
    with caplog.at_level("INFO"):
        data = loaded(saved)
    assert data.splits["test"].labels.tolist() == [0, 1, 1, 1]
    assert "the labels of the test split are hidden" in caplog.text


@pytest.mark.parametrize("where", ["train", "test"])
def test_single_hidden_labels_are_unlabelled_rows(tmp_path, where):
    splits = {n: split([1, 0, 1, 0]) for n in ("train", "validation", "test")}
    splits[where] = split([1, -1, 0, -1])
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    data = loaded(tmp_path / "saved")
    assert data.label_names == NAMES
    assert data.splits[where].labels.tolist() == [1, -100, 0, -100]


def test_a_folder_of_files(tmp_path):
    # The layout of most data sets on the hub: one file per split.
    for name, labels in (("train", [0, 1] * 5), ("validation", [1, 0]), ("test", [1, 1])):
        split(labels).to_parquet(tmp_path / f"{name}-00000-of-00001.parquet")
    data = loaded(tmp_path)
    assert data.counts()["train rows"] == 10
    assert data.splits["test"].labels.tolist() == [1, 1]


@pytest.mark.parametrize("task", GLUE)
def test_every_task_of_glue(tmp_path, task):
    known = GLUE[task]
    regression = known.get("task") == "regression"
    label = datasets.Value("float32") if regression else datasets.ClassLabel(names=["no", "yes"])
    columns = [known["text"], *([known["text_pair"]] if "text_pair" in known else [])]
    features = datasets.Features({c: datasets.Value("string") for c in columns} | {"label": label})

    def rows(labels):
        texts = [f"words {i} of {task}" for i in range(len(labels))]
        return datasets.Dataset.from_dict(
            {c: texts for c in columns} | {"label": labels}, features=features
        )

    splits = {"train": rows([1, 0, 1, 0] * 3)}
    splits[known.get("validation", "validation")] = rows([0, 1, 1])
    splits[known.get("test", "test")] = rows([-1, -1, -1])
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "glue"))
    data = Hub(str(tmp_path / "glue"), glue=task, vocab_size=100)
    data.setup()
    assert data.splits["train"].labels.tolist() == [1, 0, 1, 0] * 3
    assert data.splits["test"].labels.tolist() == [0, 1, 1]
    assert data.num_labels == (1 if regression else 2)
    assert ("token_type_ids" in data.splits["train"].student) and (
        max(map(max, data.splits["train"].student["token_type_ids"])) == len(columns) - 1
    )


def test_glue_is_named_on_the_hub():
    data = Hub(glue="mnli")
    assert (data.path, data.name) == ("nyu-mll/glue", "mnli")
    assert data.split_names["validation"] == "validation_matched"
    with pytest.raises(ValueError, match="`glue` must be one of cola, sst2, .*, got 'sst3'"):
        Hub(glue="sst3")


def test_without_validation_and_test_rows(tmp_path):
    datasets.DatasetDict({"train": split([1, 0] * 20)}).save_to_disk(str(tmp_path / "saved"))
    assert loaded(tmp_path / "saved").counts()["validation rows"] == 4


def test_what_is_not_there_is_named(saved, tmp_path):
    with pytest.raises(ValueError, match=r"no split 'dev' \(data.validation\); it has train, "):
        loaded(saved, validation="dev")
    with pytest.raises(ValueError, match="Name a data set: data.path=... or data.glue=sst2"):
        Hub()
    with pytest.raises(FileNotFoundError, match=r"'nobody/nothing' could not be loaded: .*a local"):
        loaded("nobody/nothing")
    with pytest.raises(ValueError, match=r"has no column 'text' \(text\); it has sentence, label"):
        loaded(saved, text="text")
