"""Words and their tags from files: columns, lists in json, and parallel files."""

import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets

from ...find_files import Files, find_files
from ...tasks import Task, TokenClassification
from ..read_table import read_table, suffix
from .tagged_words import fault_of, TaggedWords

# The words of a sentence, a tag for each if it has any, and a label of all of it if it has one.
Sentence = tuple[list[str], list[Any] | None, Any]

# What holds lists of words and of tags in each row.
LISTS = (".json", ".jsonl", ".parquet")


class TokenFiles(TaggedWords):
    """Sentences of words, each with a tag: for [`TokenClassification`][].

    A file is read by its name: `.json`, `.jsonl` and `.parquet` hold a list of words and a list of
    tags in each row; any other file has a word and its tag in each line and blank lines between
    sentences, as those of CoNLL, whose lines `-DOCSTART-` are left out. A folder holds two files
    with a sentence in each line, `seq.in` with words and `seq.out` with tags. A sentence may have a
    label of its own, such as the intent of a command: an entry of json, jsonl and parquet files, or
    a line of a third file of a folder.

    Args:
        train: a file, a pattern with `*`, a list of them, or a folder.
        validation: the same; by default cut from the training rows.
        test: the same; by default the validation rows.
        words: name of the words in json, jsonl and parquet files.
        tags: name of the tags; a row may lack them.
        word_column: which column of other files holds the word, counted from 0.
        tag_column: which holds the tag; negative numbers count from the end.
        separator: what stands between columns; `None` is any white space.
        parallel: names of the files of words and of tags in a folder, and of a third with a label
            of each sentence, as in `[seq.in,seq.out,label]`.
        row_label: name of the labels of sentences in json, jsonl and parquet files; a row's may be
            empty.
        task: [`TokenClassification`][], or one of your own that has a tag for each word.
        options: those of [`TaggedWords`][].

    Raises:
        FileNotFoundError: for files that are not there.
        ValueError: for words without a tag and tags without a word, naming file and line.
    """

    def __init__(
        self,
        train: Files,
        validation: Files | None = None,
        test: Files | None = None,
        words: str = "words",
        tags: str = "tags",
        word_column: int = 0,
        tag_column: int = -1,
        separator: str | None = None,
        parallel: Sequence[str] = ("seq.in", "seq.out"),
        row_label: str | None = None,
        task: str | Task = TokenClassification.name,
        **options: Any,
    ):
        if isinstance(parallel, str) or len(parallel) not in (2, 3):
            raise ValueError(
                "`parallel` must name the files of words and of tags, and may name one of labels "
                f"of sentences, as in [seq.in,seq.out,label], got {parallel!r}."
            )
        if row_label is None and len(parallel) == 3:
            # The label of a line needs no name of its own.
            row_label = str(parallel[2])
        super().__init__(text=words, label=tags, task=task, row_label=row_label, **options)
        self.files = {"train": train, "validation": validation, "test": test}
        self.columns, self.separator = (word_column, tag_column), separator
        self.parallel = tuple(parallel)

    def load(self) -> dict[str, datasets.Dataset]:
        """Read every file that was named."""
        return {
            split: self._dataset(self._read(split, files))
            for split, files in self.files.items()
            if files is not None
        }

    # Files.

    def _read(self, split: str, given: Files) -> list[Sentence]:
        """The words of every sentence, and its tags and its label if it has any."""
        if isinstance(given, str) and Path(given).expanduser().is_dir():
            return self._read_parallel(split, Path(given).expanduser())
        found = find_files(split, given)
        if suffix(found[0]) in LISTS:
            return self._read_lists(split, found)
        if self.row_label is not None:
            raise ValueError(
                f"{found[0]} has a word in each line, and no place for a label of the whole "
                f"sentence (data.row_label={self.row_label}): take json, jsonl or parquet, or a "
                "folder with data.parallel=[seq.in,seq.out,label]."
            )
        return [sentence for file in found for sentence in self._read_columns(split, file)]

    def _used(
        self, split: str, words: Any, tags: Any, where: str, label: Any = None
    ) -> list[Sentence]:
        """One sentence, or none if it cannot be used."""
        fault = fault_of(words, tags, where)
        if fault is not None:
            self.bad_rows.add(split, fault)
            return []
        return [([str(word) for word in words], tags, label)]

    def _read_parallel(self, split: str, folder: Path) -> list[Sentence]:
        paths = [folder / name for name in self.parallel]
        if not paths[0].is_file():
            there = ", ".join(sorted(p.name for p in folder.iterdir())[:6]) or "nothing"
            raise FileNotFoundError(
                f"The folder {folder} has no file {self.parallel[0]} with words; it has {there}. "
                "Name its files of words and tags, as in data.parallel=[words.txt,tags.txt]."
            )
        words = [line.split() for line in _lines(paths[0])]
        labels = self._labels_of_lines(paths, len(words))
        if not paths[1].is_file():
            return [(row, None, label) for row, label in zip(words, labels, strict=True)]
        tags = [line.split() for line in _lines(paths[1])]
        if len(words) != len(tags):
            raise ValueError(f"{paths[0]} has {len(words)} lines, but {paths[1]} has {len(tags)}.")
        found = []
        for i, (row, own, label) in enumerate(zip(words, tags, labels, strict=True), 1):
            found += self._used(split, row, own, f"line {i} of {folder}", label)
        return found

    def _labels_of_lines(self, paths: Sequence[Path], count: int) -> list[str | None]:
        """The label of each line of a folder's files; `None` for an empty one, or all of them."""
        if self.row_label is None:
            return [None] * count
        if len(paths) < 3 or not paths[2].is_file():
            folder = paths[0].parent
            there = ", ".join(sorted(p.name for p in folder.iterdir())[:6])
            raise FileNotFoundError(
                f"The folder {folder} has no third file with a label of each sentence "
                f"(data.row_label={self.row_label}); it has {there}. Name it, as in "
                "data.parallel=[seq.in,seq.out,label]."
            )
        labels = [line.strip() or None for line in _lines(paths[2])]
        if len(labels) != count:
            raise ValueError(f"{paths[0]} has {count} lines, but {paths[2]} has {len(labels)}.")
        return labels

    def _read_lists(self, split: str, files: list[str]) -> list[Sentence]:
        table, found = read_table(files), []
        for name, option in ((self.text, "words"), (self.label, "tags")):
            if name not in table.column_names and option == "words":
                raise ValueError(
                    f"{files[0]} has no entry {name!r}; it has {', '.join(table.column_names)}. "
                    f"Name the one with lists of words, as in data.{option}=tokens."
                )
        if self.row_label is not None and self.row_label not in table.column_names:
            raise ValueError(
                f"{files[0]} has no entry {self.row_label!r} (data.row_label); it has "
                f"{', '.join(table.column_names)}."
            )
        for i, row in enumerate(table):
            where = f"row {i} of {files[0]}"
            label = None if self.row_label is None else row[self.row_label]
            found += self._used(split, row[self.text], row.get(self.label), where, label)
        return found

    def _read_columns(self, split: str, file: str) -> Iterator[Sentence]:
        words: list[str] = []
        tags: list[str | None] = []
        fault = None
        for number, line in enumerate([*_lines(file), ""], 1):
            if not line.strip() or line.startswith("-DOCSTART-"):
                tagged = [tag for tag in tags if tag is not None]
                if tagged and len(tagged) < len(words):
                    fault = fault or (
                        f"The sentence before line {number} of {file} has {len(words)} words "
                        f"and {len(tagged)} tags: give each word a tag, or none of them."
                    )
                if fault is not None:
                    self.bad_rows.add(split, fault)
                elif words:
                    yield words, tagged or None, None
                words, tags, fault = [], [], None
                continue
            cells = line.split(self.separator)
            at, of_tag = self.columns
            word = cells[at].strip() if -len(cells) <= at < len(cells) else ""
            if not word:
                fault = fault or f"Line {number} of {file} has a tag without a word: {line!r}."
            words.append(word)
            # A word alone has no tag; its column would be found again, counted from the end.
            there = len(cells) > 1 and -len(cells) <= of_tag < len(cells)
            tags.append(cells[of_tag].strip() or None if there else None)

    def _dataset(self, rows: Sequence[Sentence]) -> datasets.Dataset:
        columns: dict[str, Any] = {self.text: [words for words, _, _ in rows]}
        if any(tags is not None for _, tags, _ in rows):
            columns[str(self.label)] = [tags for _, tags, _ in rows]
        if self.row_label is not None:
            columns[self.row_label] = [label for _, _, label in rows]
        return datasets.Dataset.from_dict(columns)


def _lines(path: str | Path) -> list[str]:
    opener = gzip.open if str(path).endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8-sig") as file:
            return [line.rstrip("\r\n") for line in file]
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} cannot be read in UTF-8: {error}. Save it as UTF-8.") from error
