"""Words and their tags from files: columns, lists in json, and parallel files."""

import gzip
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ...find_files import Files, find_files
from ...tasks import Task, TokenClassification
from ..ragged import Ragged
from ..read_table import read_table, suffix
from ..tokens import kept_tokens, LEAST, texts_fingerprint
from .rows import Rows, UNLABELLED
from .text import TextDataModule

# The words of a sentence, and a tag for each if it has any.
Sentence = tuple[list[str], list[Any] | None]


class TokenFiles(TextDataModule):
    """Sentences of words, each with a tag: for [`TokenClassification`][].

    The first token of each word has the word's tag in `labels` and is true in `word_mask`; all
    other tokens have -100. Sentences longer than `max_length` are cut, and so are their tags.

    A file is read by its name: `.json` and `.jsonl` hold a list of words and a list of tags in each
    row; any other file has a word and its tag in each line and blank lines between sentences, as
    those of CoNLL, whose lines `-DOCSTART-` are left out. A folder holds two files with a sentence
    in each line, `seq.in` with words and `seq.out` with tags.

    Args:
        train: a file, a pattern with `*`, a list of them, or a folder.
        validation: the same; by default cut from the training rows.
        test: the same; by default the validation rows.
        words: name of the words in json and jsonl files.
        tags: name of the tags; a row may lack them.
        word_column: which column of other files holds the word, counted from 0.
        tag_column: which holds the tag; negative numbers count from the end.
        separator: what stands between columns; `None` is any white space.
        parallel: names of the files of words and of tags in a folder.
        task: [`TokenClassification`][], or one of your own that has a tag for each word.
        options: those of [`TextDataModule`][].

    Raises:
        FileNotFoundError: for files that are not there.
        ValueError: for words without a tag and tags without a word, naming file and line; for a
            teacher with a tokenizer of its own, whose tokens are not the student's.
    """

    tags_words: ClassVar[bool] = True
    label_option: ClassVar[str] = "tags"
    lost_with_cut: ClassVar[str] = ", and neither their last words nor the tags of these are read"

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
        task: str | Task = TokenClassification.name,
        **options: Any,
    ):
        super().__init__(text=words, label=tags, task=task, **options)
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

    def setup(self, stage: str | None = None) -> None:
        """Load, check and tokenise; a second call does nothing."""
        super().setup(stage)
        if self.teacher_tokenizer is not None:
            raise ValueError(
                "Student and teacher are compared token by token, and their tokenizers cut words "
                "into other tokens. Give both the same one: a student made of the teacher "
                "(student=from_teacher), or one that is trained with data.tokenizer=TEACHER."
            )

    # Files.

    def _read(self, split: str, given: Files) -> list[Sentence]:
        """The words of every sentence, and their tags if it has any."""
        if isinstance(given, str) and Path(given).expanduser().is_dir():
            return self._read_parallel(Path(given).expanduser())
        found = find_files(split, given)
        if suffix(found[0]) in (".json", ".jsonl"):
            return self._read_lists(found)
        return [sentence for file in found for sentence in self._read_columns(file)]

    def _read_parallel(self, folder: Path) -> list[Sentence]:
        paths = [folder / name for name in self.parallel]
        if not paths[0].is_file():
            there = ", ".join(sorted(p.name for p in folder.iterdir())[:6]) or "nothing"
            raise FileNotFoundError(
                f"The folder {folder} has no file {self.parallel[0]} with words; it has {there}. "
                "Name its files of words and tags, as in data.parallel=[words.txt,tags.txt]."
            )
        words = [line.split() for line in _lines(paths[0])]
        if not paths[1].is_file():
            return [(row, None) for row in words]
        tags = [line.split() for line in _lines(paths[1])]
        if len(words) != len(tags):
            raise ValueError(f"{paths[0]} has {len(words)} lines, but {paths[1]} has {len(tags)}.")
        for i, (row, own) in enumerate(zip(words, tags, strict=True), 1):
            _check_pair(f"line {i} of {folder}", row, own)
        return list(zip(words, tags, strict=True))

    def _read_lists(self, files: list[str]) -> list[Sentence]:
        table, found = read_table(files), []
        for name, option in ((self.text, "words"), (self.label, "tags")):
            if name not in table.column_names and option == "words":
                raise ValueError(
                    f"{files[0]} has no entry {name!r}; it has {', '.join(table.column_names)}. "
                    f"Name the one with lists of words, as in data.{option}=tokens."
                )
        for i, row in enumerate(table):
            words, tags = row[self.text], row.get(self.label)
            for what, value in (("words", words), ("tags", tags)):
                if not isinstance(value, list) and (what == "words" or value is not None):
                    raise ValueError(
                        f"Row {i} of {files[0]} must hold a list of {what}, got {value!r}."
                    )
            words = [str(word) for word in words]
            if tags is not None:
                _check_pair(f"row {i} of {files[0]}", words, tags)
            found.append((words, tags))
        return found

    def _read_columns(self, file: str) -> Iterator[Sentence]:
        words: list[str] = []
        tags: list[str | None] = []
        for number, line in enumerate([*_lines(file), ""], 1):
            if not line.strip() or line.startswith("-DOCSTART-"):
                if words:
                    tagged = [tag for tag in tags if tag is not None]
                    if tagged and len(tagged) < len(words):
                        raise ValueError(
                            f"The sentence before line {number} of {file} has {len(words)} words "
                            f"and {len(tagged)} tags: give each word a tag, or none of them."
                        )
                    yield words, tagged or None
                words, tags = [], []
                continue
            cells = line.split(self.separator)
            at, of_tag = self.columns
            word = cells[at].strip() if -len(cells) <= at < len(cells) else ""
            if not word:
                raise ValueError(f"Line {number} of {file} has a tag without a word: {line!r}.")
            words.append(word)
            # A word alone has no tag; its column would be found again, counted from the end.
            there = len(cells) > 1 and -len(cells) <= of_tag < len(cells)
            tags.append(cells[of_tag].strip() or None if there else None)

    def _dataset(self, rows: Sequence[Sentence]) -> datasets.Dataset:
        columns: dict[str, Any] = {self.text: [words for words, _ in rows]}
        if any(tags is not None for _, tags in rows):
            columns[str(self.label)] = [tags for _, tags in rows]
        return datasets.Dataset.from_dict(columns)

    # Tokens.

    def _check_columns(self, name: str, split: datasets.Dataset) -> None:
        empty = [i for i, words in enumerate(split[self.text]) if not words]
        if empty:
            raise ValueError(f"Row {empty[0]} of the {name} data has no words.")

    def _texts(self, split: datasets.Dataset) -> list[list[str]]:
        return [[" ".join(words) for words in split[self.text]]]

    def _tokenise(self, split: datasets.Dataset, labels: Sequence[list[int]]) -> "TokenRows":
        rows = list(split[self.text])
        assert isinstance(self.tokenizer, PreTrainedTokenizerBase)
        columns = tokens_of_words(rows, self.tokenizer, self.max_length)
        begun = columns.pop("begun")
        first = begun.values > 0
        of_words = Ragged.of(
            [own or [UNLABELLED] * len(row) for own, row in zip(labels, rows, strict=True)]
        )
        tags = np.full(len(first), UNLABELLED, dtype=np.int64)
        places = np.repeat(of_words.offsets[:-1], begun.lengths)[first] + begun.values[first] - 1
        tags[first] = of_words.values[places]
        columns["word_mask"] = Ragged(first.astype(np.int8), begun.offsets)
        columns["labels"] = Ragged(tags, begun.offsets)
        made = TokenRows(columns, None, torch.zeros(len(rows), 0), torch.arange(len(rows)))
        read = np.diff(np.concatenate([[0], np.cumsum(first)])[begun.offsets])
        made.cut = read < np.array([len(row) for row in rows])
        return made


class TokenRows(Rows):
    """Rows whose labels are columns beside their tokens."""

    def labels_at(self, rows: torch.Tensor) -> None:
        """Nothing: they come with the tokens."""
        return

    @property
    def has_label(self) -> torch.Tensor:
        """Which rows have a tag, shape (rows,)."""
        tags = self.student["labels"]
        known = np.maximum.reduceat(tags.values, tags.offsets[:-1]) != UNLABELLED
        return torch.from_numpy(known)[self.numbers]

    def contents(self) -> Iterator[bytes]:
        """All tokens and tags."""
        for name in ("input_ids", "labels"):
            yield from self.student[name].contents()

    def keeping_labels(self, count: int, seed: int) -> Rows:
        """All rows, but only `count` of them with their tags."""
        generator = torch.Generator().manual_seed(seed)
        candidates = self.numbers[self.has_label]
        order = torch.randperm(len(candidates), generator=generator)
        tags = self.student["labels"]
        kept = np.zeros(len(tags), dtype=bool)
        kept[candidates[order[:count]].numpy()] = True
        values = np.where(np.repeat(kept, tags.lengths), tags.values, UNLABELLED)
        return self._with(student={**self.student, "labels": Ragged(values, tags.offsets)})


def tokens_of_words(
    rows: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> dict[str, Ragged]:
    """What a tokenizer makes of words with spaces between them, kept as texts are.

    Args:
        rows: the words of every row.
        tokenizer: a fast one, which says where in the text a token stands.
        max_length: longer rows are cut, in tokens.

    Returns:
        `input_ids` and what comes with it, and `begun`: the number of the word, counted from 1,
        that a token is the first of, else 0. A word of which the tokenizer makes nothing is read as
        one that it does not know.

    Raises:
        ValueError: for a tokenizer that is written in Python.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} does not say where in a text its tokens stand, so that "
            "tags cannot be given to them: take a fast tokenizer, with a file tokenizer.json."
        )

    def tokens(batch: Mapping[str, list[list[str]]]) -> dict[str, list[list[int]]]:
        words = batch["words"]
        found = _encoded(words, tokenizer, max_length)
        lost = [_unread(begun, row) for begun, row in zip(found["begun"], words, strict=True)]
        if any(lost) and tokenizer.unk_token is not None:
            shown = [
                [tokenizer.unk_token if j in unread else word for j, word in enumerate(row)]
                for row, unread in zip(words, lost, strict=True)
            ]
            found = _encoded(shown, tokenizer, max_length)
        return found

    parts = [["words"], ["\x1f".join(row) for row in rows]]
    name = texts_fingerprint(parts, tokenizer, max_length)
    columns = {"words": [list(row) for row in rows]}
    return kept_tokens(columns, tokens, name, keep=len(rows) >= LEAST)


def _encoded(rows: Sequence[Sequence[str]], tokenizer: Any, max_length: int) -> dict[str, Any]:
    """The tokens of each row, and which word each begins."""
    texts = [" ".join(row) for row in rows]
    given = tokenizer(texts, truncation=True, max_length=max_length, return_offsets_mapping=True)
    found = dict(given.items())
    offsets = found.pop("offset_mapping")
    found["begun"] = [_begun(row, own) for row, own in zip(rows, offsets, strict=True)]
    return found


def _begun(words: Sequence[str], offsets: Sequence[tuple[int, int]]) -> list[int]:
    """The number of the word, from 1, that each token is the first of, by its last letter; or 0."""
    ends = np.cumsum([len(word) + 1 for word in words])
    seen, found = 0, []
    for start, end in offsets:
        # Special tokens stand nowhere.
        word = int(np.searchsorted(ends, end - 1, side="right")) + 1 if end > start else 0
        found.append(word if word > seen else 0)
        seen = max(seen, word)
    return found


def _unread(begun: Sequence[int], words: Sequence[str]) -> set[int]:
    """Places of words of which there is no token, though there is one of a later word."""
    return set(range(max(begun, default=0))) - {word - 1 for word in begun}


def _lines(path: str | Path) -> list[str]:
    opener = gzip.open if str(path).endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8-sig") as file:
            return [line.rstrip("\r\n") for line in file]
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} cannot be read in UTF-8: {error}. Save it as UTF-8.") from error


def _check_pair(where: str, words: Sequence[Any], tags: Sequence[Any]) -> None:
    if len(words) > len(tags):
        raise ValueError(
            f"Word {len(tags)} ({words[len(tags)]!r}) in {where} has no tag: there are "
            f"{len(words)} words and {len(tags)} tags."
        )
    if len(tags) > len(words):
        raise ValueError(
            f"Tag {len(words)} ({tags[len(words)]!r}) in {where} has no word: there are "
            f"{len(words)} words and {len(tags)} tags."
        )
