import gzip
import json
import logging

import datasets
import pytest

from lightning_distill.data import TextFiles
from lightning_distill.data.read_table import read_table

ROWS = [
    {"text": "none", "label": "good"},
    {"text": "007", "label": "bad"},
    {"text": 'a, comma and a "quote"', "label": "good"},
    {"text": "null", "label": "bad"},
    {"text": "1.50", "label": "good"},
    {"text": "ünïcode ☃", "label": "bad"},
]


def write(path, rows=ROWS, header=True):
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    names = list(rows[0])
    if kind == "csv":
        quoted = [['"' + str(r[n]).replace('"', '""') + '"' for n in names] for r in rows]
        lines = [",".join(names)] * header + [",".join(cells) for cells in quoted]
    elif kind == "tsv":
        lines = ["\t".join(names)] * header + ["\t".join(str(r[n]) for n in names) for r in rows]
    elif kind == "jsonl":
        lines = [json.dumps(r) for r in rows]
    elif kind == "json":
        lines = [json.dumps(rows)]
    else:
        datasets.Dataset.from_list(rows).to_parquet(path)
        return path
    content = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def loaded(path, **options):
    data = TextFiles(str(path), str(path), str(path), **options)
    return data.load()["train"]


@pytest.mark.parametrize(
    "name", ["a.csv", "a.tsv", "a.json", "a.jsonl", "a.parquet", "a.csv.gz", "a.tsv.gz"]
)
def test_every_kind_gives_the_text_as_it_was_written(tmp_path, name):
    rows = loaded(write(tmp_path / name))
    assert list(rows["text"]) == [r["text"] for r in ROWS]
    assert list(rows["label"]) == [r["label"] for r in ROWS]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_a_file_without_a_header(tmp_path, name):
    rows = loaded(write(tmp_path / name, header=False), columns=["text", "label"])
    assert list(rows["text"]) == [r["text"] for r in ROWS]


def test_files_of_windows(tmp_path):
    content = "\ufefftext,label\r\nfine,good\r\nsad,bad\r\n"
    (tmp_path / "a.csv").write_bytes(content.encode())
    rows = loaded(tmp_path / "a.csv")
    assert rows.column_names == ["text", "label"]
    assert list(rows["label"]) == ["good", "bad"]


def test_a_cell_of_several_lines(tmp_path):
    (tmp_path / "a.csv").write_text('text,label\n"one\ntwo",good\nthree,bad\n')
    assert list(loaded(tmp_path / "a.csv")["text"]) == ["one\ntwo", "three"]


def test_quotes_mean_nothing_in_tsv(tmp_path):
    (tmp_path / "a.tsv").write_text('text\tlabel\n"unclosed\tgood\nhe said "no"\tbad\n')
    assert list(loaded(tmp_path / "a.tsv")["text"]) == ['"unclosed', 'he said "no"']


def test_several_files_and_patterns(tmp_path):
    for name in ("part1.csv", "part2.csv"):
        write(tmp_path / name)
    pattern = TextFiles(str(tmp_path / "part*.csv"), str(tmp_path / "part1.csv")).load()
    assert len(pattern["train"]) == 12 and len(pattern["validation"]) == 6
    listed = TextFiles([str(tmp_path / f"part{i}.csv") for i in (1, 2)]).load()
    assert len(listed["train"]) == 12
    # A name with brackets is a name.
    write(tmp_path / "part[1].csv")
    assert len(loaded(tmp_path / "part[1].csv")) == 6


BAD = {
    "empty.csv": ("", r"empty.csv \(data.train\) is empty"),
    "empty.tsv": ("text\tlabel\n", "has no rows"),
    "empty.jsonl": ("", r"empty.jsonl \(data.train\) is empty"),
    "wide.csv": ("text,label\na,b\nc,d,e\n", r"Row 3 of .*wide.csv has 3 cells, but its header"),
    "short.tsv": ("text\tlabel\na\tb\nc\n", r"Row 3 of .*short.tsv has 1 cells"),
    "twice.csv": ("text,text\na,b\n", "names a column twice: text, text"),
    "broken.json": ('[{"text": "a"', "broken.json"),
    "noise.parquet": ("not parquet", "noise.parquet"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_broken_file_is_named(tmp_path, name, caplog, monkeypatch):
    # So that what `datasets` logs is seen here.
    monkeypatch.setattr(logging.getLogger("datasets"), "propagate", True)
    content, words = BAD[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=words):
        loaded(tmp_path / name)
    assert not caplog.records


def test_other_encodings_are_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes("text,label\ncafé,good\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a.csv cannot be read as csv in UTF-8.*Save it as UTF-8"):
        loaded(tmp_path / "a.csv")


def test_columns_that_do_not_fit_are_refused(tmp_path):
    path = write(tmp_path / "a.csv")
    with pytest.raises(ValueError, match=r"Row 1 of .*a.csv has 2 cells, but `columns` names 3"):
        loaded(path, columns=["text", "label", "id"])
    with pytest.raises(ValueError, match=r"is its header \(text, label\): leave out `columns`"):
        loaded(path, columns=["text", "label"])
    with pytest.raises(ValueError, match="`columns` names a column twice: text, text"):
        TextFiles("a.csv", columns=["text", "text"])


def test_files_of_one_split_must_agree(tmp_path):
    write(tmp_path / "a.csv")
    write(tmp_path / "b.csv", [{"sentence": "a", "label": "b"}])
    with pytest.raises(ValueError, match=r"header of .*b.csv is sentence, label, but another file"):
        TextFiles([str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]).load()
    write(tmp_path / "c.json")
    with pytest.raises(ValueError, match=r"kind"):
        TextFiles([str(tmp_path / "a.csv"), str(tmp_path / "c.json")]).load()


def test_missing_files_are_named_with_what_is_there(tmp_path):
    write(tmp_path / "train.csv")
    with pytest.raises(FileNotFoundError, match=r"no file .*trian.csv \(data.train\).*train.csv"):
        TextFiles(str(tmp_path / "trian.csv")).load()
    with pytest.raises(FileNotFoundError, match=r"data.train"):
        TextFiles(str(tmp_path / "*.tsv")).load()
    with pytest.raises(FileNotFoundError, match="data.train is an empty list"):
        TextFiles([]).load()
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(ValueError, match=r"must end in \.csv, \.tsv"):
        TextFiles(str(tmp_path / "a.txt")).load()


@pytest.mark.parametrize("kind", ["csv", "tsv"])
@pytest.mark.parametrize("place", ["first", "last"])
def test_a_file_that_pandas_wrote_with_its_index_is_read(tmp_path, kind, place):
    sep = {"csv": ",", "tsv": "\t"}[kind]
    rows = [("", "text", "label"), *((str(i), f"word {i}", "ab"[i % 2]) for i in range(20))]
    if place == "last":
        rows = [row[1:] + row[:1] for row in rows]
    path = tmp_path / f"train.{kind}"
    path.write_text("\n".join(sep.join(row) for row in rows))
    read = TextFiles(str(path)).load()["train"]
    assert read["text"] == [f"word {i}" for i in range(20)]
    assert read["label"] == ["ab"[i % 2] for i in range(20)]


FORMS = {
    "semicolons": "text;label\n{a, b};x\nc d;y\n",
    "tabs": "text\tlabel\n{a, b}\tx\nc d\ty\n",
    "blanks around names": 'text  , label \n"{a, b}",x\nc d,y\n',
    "blanks behind commas": 'text, label\n"{a, b}", x\nc d, y\n',
    "index and semicolons": ";text;label\n0;{a, b};x\n1;c d;y\n",
    "quoted semicolons": 'text;label\n"{a, b}";"x"\n"c d";"y"\n',
    "a semicolon in a text": 'text,label\n"{a, b}",x\nc d,y\n',
}


@pytest.mark.parametrize("form", FORMS)
def test_csv_files_as_spreadsheets_write_them_are_read(tmp_path, form):
    inner = "a; b" if "in a text" in form else "a, b"
    path = tmp_path / "train.csv"
    path.write_text(FORMS[form].replace("{a, b}", inner))
    read = read_table([str(path)])
    assert list(read["text"]) == [inner, "c d"] and list(read["label"]) == ["x", "y"]


def test_a_file_without_a_header_may_have_semicolons(tmp_path):
    (tmp_path / "a.csv").write_text("a, b;x\nc d;y\n")
    read = read_table([str(tmp_path / "a.csv")], columns=["text", "label"])
    assert list(read["text"]) == ["a, b", "c d"] and list(read["label"]) == ["x", "y"]


def test_labels_that_are_probably_one_or_none_are_said(tmp_path, caplog):
    rows = [f"word {i},{('GOOD', 'good', 'NaN')[i % 3]}" for i in range(30)]
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *rows]))
    data = TextFiles(str(tmp_path / "a.csv"))
    data.setup("fit")
    assert "the labels 'GOOD' and 'good' are taken for 2 classes: are they one?" in caplog.text
    assert "the label 'NaN' is taken for a class; leave the cell empty" in caplog.text
