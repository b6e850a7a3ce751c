import gzip
import json
from importlib.resources import files

import datasets
import pytest

from lightning_distill.data_of_files import kind_of, kind_of_files, OF_HEADS, with_data

TABLES = [
    ({"text": "a", "label": "b"}, "data=text_files"),
    ({"sentence": "a", "intent": "b"}, "data=text_files data.text=sentence data.label=intent"),
    (
        {"premise": "a", "hypothesis": "b", "label": "c"},
        "data=text_files data.text=premise data.text_pair=hypothesis",
    ),
    (
        {"sentence1": "a", "sentence2": "b", "score": "1.5"},
        "data=text_files data.text=sentence1 data.text_pair=sentence2 data.label=score",
    ),
]
LISTS = [
    ({"words": ["a"], "tags": ["O"]}, "data=token_files"),
    ({"tokens": ["a"], "ner_tags": [1]}, "data=token_files data.words=tokens data.tags=ner_tags"),
    ({"messages": [{"role": "user", "content": "a"}]}, "data=chat_files"),
    ({"prompt": "a", "completion": "b"}, "data=chat_files"),
    ({"question": "a", "context": "b", "answers": None, "id": "1"}, "data=question_files"),
    ({"source": "a", "target": "b"}, "data=pair_files"),
    ({"audio": "a.wav", "sentence": "b"}, "data=speech_files data.target=sentence"),
    (
        {"article": "a", "highlights": "b"},
        "data=pair_files data.source=article data.target=highlights",
    ),
    (
        {"anchor": "a", "positive": "b", "negative": "c"},
        "data=embedding_files data.text=anchor data.text_pair=positive data.negatives=negative",
    ),
]


def rows(row: dict) -> list[dict]:
    # What is empty in the first row does not hide what the column is.
    return [{**row, "more": None}, row, {**row, "more": "x"}]


@pytest.mark.parametrize(("row", "words"), [*TABLES, *LISTS])
def test_json_and_parquet_are_told_by_their_columns(row, words, tmp_path):
    lines = "".join(json.dumps(r) + "\n" for r in rows(row))
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "a.json").write_text(json.dumps(rows(row), indent=2))
    (tmp_path / "b.json").write_text(lines)
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write(lines)
    datasets.Dataset.from_list([row] * 3).to_parquet(tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.json", "b.json", "a.jsonl.gz", "a.parquet"):
        assert kind_of(str(tmp_path / name)).words == words, name


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize(("row", "words"), TABLES)
def test_csv_and_tsv_are_told_by_their_columns(row, words, mark, tmp_path):
    for name in ("a.csv", "a.tsv") if mark == "\t" else ("a.csv",):
        (tmp_path / name).write_text(f"{mark.join(row)}\n{mark.join(row.values())}\n")
        assert kind_of(str(tmp_path / name)).words == words


def test_words_with_tags_are_told_by_lines_endings_and_folders(tmp_path):
    (tmp_path / "a.txt").write_text("Ann B-per\nLee I-per\n\nsaw O\n")
    (tmp_path / "b.txt").write_text("Ann saw a film. O\nIt was good.\n")
    (tmp_path / "c.conll").write_text("Ann NNP B-per\n")
    (tmp_path / "seq.in").write_text("a b\n")
    assert kind_of_files(str(tmp_path / "a.txt")).words == "data=token_files"
    assert kind_of_files(str(tmp_path / "b.txt")) is None
    assert kind_of_files([str(tmp_path / "c.conll")]).words == "data=token_files"
    assert kind_of_files(f"[{tmp_path}/c.conll]").words == "data=token_files"
    assert kind_of_files(str(tmp_path)).words == "data=token_files"
    assert kind_of_files(f"{tmp_path}/*.conll").words == "data=token_files"


def test_what_is_known_is_built_in():
    folder = files("lightning_distill.conf") / "data"
    named = {words.split()[0] for _, words in [*TABLES, *LISTS]}
    named |= {f"data={name}" for name in ("image_folder", *OF_HEADS.values())}
    for name in named:
        assert (folder / f"{name.removeprefix('data=')}.yaml").is_file(), name


def test_a_file_of_squad_is_told_by_its_begin(tmp_path):
    paragraph = '{"paragraphs": [{"context": "a", "qas": []}]}'
    for text in (
        f'{{"data": [{paragraph}]}}',
        f'{{\n "version": "v2.0",\n "data": [\n {{"title": "A", {paragraph[1:]}]}}',
    ):
        (tmp_path / "a.json").write_text(text)
        assert kind_of(str(tmp_path / "a.json")).words == "data=question_files"


def test_pictures_are_told_by_the_files_below(tmp_path, capsys):
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "1.JPG").write_bytes(b"")
    assert kind_of_files(str(tmp_path)).words == "data=image_folder"
    words = [f"data.folder={tmp_path}"]
    assert with_data(words) == [*words, "data=image_folder"]
    assert "holds pictures: data=image_folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("architecture", "data"),
    [("GPT2LMHeadModel", "text_corpus"), ("BertForMaskedLM", "masked_corpus")],
)
def test_the_head_of_a_language_model_tells_what_text_is_for(architecture, data, tmp_path):
    (tmp_path / "a.txt").write_text("Some text.\n")
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    words = [f"data.train={tmp_path}/a.txt", f"teacher.path={tmp_path}"]
    assert with_data(words) == [*words, f"data={data}"]
    with pytest.raises(ValueError, match="cannot be told by its name"):
        with_data(words[:1])


@pytest.mark.parametrize(
    "text", ["", "{", "[{", "[1, 2]", '{"a": 1}', '"x"', "[[1], [2]]", "\x00", '{"text": "a"}']
)
def test_what_is_nothing_that_is_known_is_not_guessed(text, tmp_path):
    for name in ("a.json", "a.csv", "a.txt", "a.parquet"):
        (tmp_path / name).write_text(text)
        assert kind_of_files(str(tmp_path / name)) is None


def test_the_data_module_is_added_where_none_is_typed(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("sentence,label\na,b\n")
    words = ["seed=1", "data.train=a.csv"]
    assert with_data(words) == [*words, "data=text_files", "data.text=sentence"]
    said = capsys.readouterr().err
    assert said == (
        "Data: a.csv has the columns sentence, label: data=text_files data.text=sentence\n"
    )
    assert with_data([*words, "data.text=x"]) == [*words, "data.text=x", "data=text_files"]
    # An experiment with files of its own kind, and one that is not ours.
    for more in ("data=hub", "experiment=lm", "experiment=sst2", "experiment=mine"):
        assert with_data([*words, more]) == [*words, more]
    for more in ("resume=runs/x", "job.run=runs/x", "experiment=lm,sst2"):
        assert with_data([*words, more]) == [*words, more]
    assert with_data(["seed=1"]) == ["seed=1"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("")
    assert with_data([*words, "job.path=run"]) == [*words, "job.path=run"]


RECIPES = [
    # What they learn from without files: docstrings with labels, texts, pictures.
    ("tinybert", "a.csv", ["data=text_files"]),
    ("quantised", "a.csv", ["data=text_files"]),
    ("minitron", "a.txt", ["data=text_corpus"]),
    ("minitron", "b.jsonl", ["data=text_corpus"]),
    ("lm_stdlib", "chats.jsonl", ["data=chat_files"]),
    ("distilbert", "a.txt", ["data=masked_corpus"]),
    ("mobilebert", "b.jsonl", ["data=masked_corpus"]),
    ("seq2seq", "pairs.jsonl", ["data=pair_files"]),
    ("token_classification", "tags.conll", ["data=token_files"]),
    ("patient_consistent", "pictures", ["data=image_folder"]),
]


@pytest.mark.parametrize(("recipe", "name", "added"), RECIPES)
def test_a_recipe_takes_files_of_ones_own(recipe, name, added, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = {"a.csv": "text,label\na,b\n", "a.txt": "Some text.\n", "b.jsonl": '{"text": "a"}\n'}
    texts["chats.jsonl"] = '{"prompt": "a", "completion": "b"}\n'
    texts |= {"pairs.jsonl": '{"source": "a", "target": "b"}\n', "tags.conll": "Ann B-per\n"}
    for file, text in texts.items():
        (tmp_path / file).write_text(text)
    (tmp_path / "pictures" / "cat").mkdir(parents=True)
    (tmp_path / "pictures" / "cat" / "1.png").write_bytes(b"")
    setting = "folder" if name == "pictures" else "train"
    words = [f"experiment={recipe}", f"data.{setting}={name}"]
    assert with_data(words) == [*words, *added]
    assert with_data([*words, "data=hub"]) == [*words, "data=hub"]


def test_an_experiment_with_files_of_its_own_keeps_them(tmp_path):
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "1.jpg").write_bytes(b"")
    words = ["experiment=cifar10", f"data.folder={tmp_path}"]
    assert with_data(words) == words


def test_files_that_are_not_there_or_not_known_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("one,two\na,b\n")
    with pytest.raises(FileNotFoundError, match=r"There is no file b.csv \(data.train\).*a.csv"):
        with_data(["data.train=b.csv"])
    with pytest.raises(ValueError, match=r"data.train=a.csv holds.*data=text_files.*token_files"):
        with_data(["data.train=a.csv"])
    assert with_data(["data.train=a.csv", "--help"]) == ["data.train=a.csv", "--help"]
