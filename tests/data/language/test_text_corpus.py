"""Documents from files of every kind, and what is wrong with files, in words."""

import gzip
import json

import datasets
import pytest

from lightning_distill.data import MaskedCorpus, TextCorpus

TEXT = "First line.\nsecond, ünïcode ☃\n\n\nAnother paragraph\n  \nlast"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_DISTILL_CACHE", str(tmp_path / "cache"))


def texts(given, split="train", epoch=None, **options):
    return [row["text"] for row in TextCorpus(given, **options).documents(split, epoch)]


@pytest.mark.parametrize("name", ["a.txt", "a.py", "a", "a.txt.gz"])
@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("file", [TEXT]),
        ("line", [line for line in TEXT.split("\n") if line.strip()]),
        ("paragraph", ["First line.\nsecond, ünïcode ☃", "Another paragraph", "last"]),
    ],
)
def test_what_a_document_is(tmp_path, name, document, expected):
    content = TEXT.encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert texts(str(path), document=document) == expected
    assert texts(str(path), document=document, epoch=0) == expected


def test_files_of_windows(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\r\ntwo\r\n".encode())
    assert texts(str(path), document="line") == ["one", "two"]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet"])
@pytest.mark.parametrize("epoch", [None, 0])
def test_tables_have_a_document_in_each_row(tmp_path, name, epoch):
    rows = [{"body": "none", "id": "1"}, {"body": " ", "id": "2"}, {"body": "two ☃", "id": "3"}]
    path = tmp_path / name
    if name.endswith("v"):
        sep = "," if name.endswith("csv") else "\t"
        path.write_text("\n".join([sep.join(rows[0]), *(sep.join(r.values()) for r in rows)]))
    elif name.endswith("parquet"):
        datasets.Dataset.from_list(rows).to_parquet(path)
    else:
        lines = "\n".join(json.dumps(r) for r in rows)
        path.write_text(lines if name.endswith("l") else json.dumps(rows))
    assert texts(str(path), text="body", epoch=epoch) == ["none", "two ☃"]
    with pytest.raises(
        ValueError, match=r"no column 'bodi' .*it has body, id. Did you mean data.text=body"
    ):
        texts(str(path), text="bodi", epoch=epoch)


def test_folders_patterns_and_lists(tmp_path):
    for name in ("b/deep/x.txt", "b/a.md", "c.txt", "b/.hidden", "b/.git/y.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "b" / "empty.txt").touch()
    (tmp_path / "b" / "t.jsonl").write_text('{"text": "row"}\n')
    folder = str(tmp_path)
    assert texts(f"{folder}/b") == ["b/a.md", "b/deep/x.txt", "row"]
    assert texts(f"{folder}/**/*.txt") == ["b/deep/x.txt", "c.txt"]
    assert texts([f"{folder}/c.txt", f"{folder}/b/*.md"]) == ["c.txt", "b/a.md"]
    # A stream takes the files in an order of the epoch.
    orders = {tuple(texts(f"{folder}/b", epoch=epoch)) for epoch in range(9)}
    assert len(orders) > 1
    assert {tuple(sorted(order)) for order in orders} == {("b/a.md", "b/deep/x.txt", "row")}


def test_all_splits_are_read(tmp_path):
    names = ["train", "validation", "test"]
    for name in names:
        (tmp_path / f"{name}.txt").write_text(f"the {name} text")
    data = TextCorpus(*(str(tmp_path / f"{name}.txt") for name in names), vocab_size=280)
    data.setup()
    for name in names:
        (batch,) = data.rows_dataloader([(name, [0], None)])
        found = data.tokenizer.decode(batch["input_ids"][0], skip_special_tokens=True)
        assert found == f"the {name} text"


def test_files_that_are_not_there_or_empty(tmp_path):
    (tmp_path / "train.txt").write_text("x")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "blank.txt").write_text(" \n\n")
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no file .*trian.txt \(data.train\).*train.txt"):
        texts(str(tmp_path / "trian.txt"))
    with pytest.raises(FileNotFoundError, match=r"No file matches data.train=.*\*.md"):
        texts(str(tmp_path / "*.md"))
    with pytest.raises(FileNotFoundError, match=r"There is no file in the folder .*folder"):
        texts(str(tmp_path / "folder"))
    with pytest.raises(ValueError, match=r"empty.txt \(data.train\) is empty"):
        texts(str(tmp_path / "empty.txt"))
    with pytest.raises(FileNotFoundError, match="data.train is an empty list"):
        texts([])
    data = TextCorpus(str(tmp_path / "train.txt"), str(tmp_path / "blank.txt"))
    with pytest.raises(ValueError, match=r"no text in .*blank.txt \(data.validation\): only empty"):
        data.setup()


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
@pytest.mark.parametrize("document", ["file", "line"])
def test_a_file_that_is_not_text(tmp_path, name, document):
    path = tmp_path / name
    path.write_bytes(b"caf\xe9" * 9)
    with pytest.raises(
        ValueError, match=f"{name} cannot be read as text in UTF-8.*Save it as UTF-8"
    ):
        texts(str(path), document=document)


def test_a_cut_archive(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"text " * 999)[:30])
    with pytest.raises(ValueError, match="a.txt.gz cannot be read as text in UTF-8"):
        texts(str(path))


def test_a_column_that_holds_no_text(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": 3}\n')
    with pytest.raises(ValueError, match=r"Column 'text' of .*a.jsonl .* row 0 holds 3 \(int\)"):
        texts(str(path))


def test_another_kind_of_document():
    with pytest.raises(
        ValueError, match="`document` must be one of file, line, paragraph, got 'word'"
    ):
        TextCorpus("a.txt", document="word")


@pytest.mark.parametrize("kind", [TextCorpus, MaskedCorpus])
def test_documents_that_are_no_text_are_left_out_and_counted_where_that_is_asked(tmp_path, kind):
    rows = [{"text": "one text"}, {"text": None}, {"text": "three"}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "latin.txt").write_bytes("schön und gut".encode("latin-1"))
    (tmp_path / "held.txt").write_text("held")
    held = {name: str(tmp_path / "held.txt") for name in ("validation", "test")}
    files = [str(tmp_path / "t.jsonl"), str(tmp_path / "latin.txt")]
    with pytest.raises(ValueError, match="row 1 holds None .*data.skip_bad_rows=true"):
        kind(train=files[0], **held, vocab_size=280).setup()
    data = kind(train=files, **held, vocab_size=280, skip_bad_rows=True)
    data.setup()
    assert data.counts()["train documents"] == 2
    assert data.counts()["train rows left out"] == 2
    # Of a file with many documents nobody knows how many would be lost.
    by_line = kind(train=files, **held, vocab_size=280, document="line", skip_bad_rows=True)
    with pytest.raises(ValueError, match=r"latin.txt cannot be read as text in UTF-8"):
        by_line.setup()
    with pytest.raises(ValueError, match="None of the 1 rows of the train data can be used"):
        kind(train=files[1], **held, vocab_size=280, skip_bad_rows=True).setup()
