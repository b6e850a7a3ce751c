"""Which data module reads a user's files, as their names, columns and first rows say.

Nothing is imported for it that takes long: it is asked before a configuration is composed.
"""

import csv
import gzip
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

from .column_names import LABELS, PAIRS, RELATED, SPOKEN, TAGS, TEXTS, WORDS, WRITTEN
from .find_files import find_files
from .overrides import key_of, quoted

# In files of words with tags, a line's last cell.
TAG = re.compile(r"O|[BIESLU]-\S+")
# How a file of SQuAD begins.
SQUAD = r'\{(\s*"version"[^,]*,)?\s*"data"\s*:\s*\[\s*\{[^{]*"paragraphs"'
OF_WORDS = (".conll", ".conllu", ".iob", ".iob2", ".bio", ".bioes")
TABLES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"}
# Files of text, and by the heads of models what they are read by.
OF_TEXT = {"", ".txt", ".text", ".md", ".rst", ".py"}
OF_HEADS = {
    "ForCausalLM": "text_corpus",
    "LMHeadModel": "text_corpus",
    "ForMaskedLM": "masked_corpus",
}
# So many letters of a file of json are looked at, and so many rows.
LETTERS, ROWS = 2**20, 20


@dataclass(frozen=True)
class Kind:
    """What a file is.

    Attributes:
        data: the choice of `data=` that reads it.
        shows: by what that is seen, for the user.
        settings: of that data module, where they are not its defaults.
        columns: of a table.
    """

    data: str
    shows: str
    settings: Mapping[str, str] = field(default_factory=dict)
    columns: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """What to type."""
        typed = [f"data={self.data}", *(quoted(f"data.{k}", v) for k, v in self.settings.items())]
        return " ".join(typed)


def with_data(words: Sequence[str]) -> list[str]:
    """The words of a command, with the data module of its training files where none is typed.

    Args:
        words: flags and overrides.

    Raises:
        FileNotFoundError: for files that are not there.
        ValueError: for files that are not recognised.
    """
    typed = {key_of(word): word.partition("=")[2] for word in words if not word.startswith("-")}
    pictures = typed.get("data.folder")
    if pictures is not None and "data" not in typed and _has_pictures(Path(pictures).expanduser()):
        words = [*words, "data=image_folder"]
        print(f"Data: {pictures} holds pictures: data=image_folder", file=sys.stderr)
        return words
    given = typed.get("data.train")
    elsewhere = {"data", "experiment", "job.run"} & typed.keys() or typed.get("resume")
    of_run = (Path(typed.get("job.path", "")) / "config.yaml").is_file()
    if not given or elsewhere or (of_run and "job.path" in typed):
        return list(words)
    kind = kind_of_files(given) or _kind_of_model(typed)
    if kind is None and {"--help", "-h"} & {*words}:
        return list(words)
    if kind is None:
        find_files("train", _names(given), folders=True)
        raise ValueError(
            f"What data.train={given} holds cannot be told by its name or its columns: type what "
            f"reads it too, as in data=text_files. Choices: {', '.join(_choices())}."
        )
    print(f"Data: {kind.shows}: {kind.words}", file=sys.stderr)
    settings = {f"data.{k}": v for k, v in kind.settings.items()}
    more = [f"{key}={value}" for key, value in settings.items() if key not in typed]
    return [*words, f"data={kind.data}", *more]


def kind_of_files(given: Any) -> Kind | None:
    """What the first of the files is; `None` if they are not there, or nothing is recognised.

    Args:
        given: as `data.train` takes it: a file, a folder, a pattern, or a list as it is typed.
    """
    names = _names(given)
    folder = Path(names[0]).expanduser() if len(names) == 1 else None
    if folder is not None and folder.is_dir() and (folder / "seq.in").is_file():
        return Kind("token_files", f"{folder} has a file seq.in")
    if folder is not None and folder.is_dir() and _has_pictures(folder):
        return Kind("image_folder", f"{folder} holds pictures")
    try:
        found = find_files("train", names, folders=True)
        return kind_of(found[0])
    except (OSError, ValueError):
        # Whoever reads them says what is wrong with them.
        return None


def _names(given: Any) -> list[str]:
    names = given if isinstance(given, list | tuple) else re.split(r"[\[\],]", str(given))
    return [name for name in (str(name).strip(" '\"") for name in names) if name]


def _choices() -> list[str]:
    """The data modules that read training files."""
    folder = files("lightning_distill.conf") / "data"
    found = [f for f in folder.iterdir() if "\ntrain: ???" in f.read_text(encoding="utf-8")]
    return sorted(f.name.removesuffix(".yaml") for f in found)


def _has_pictures(folder: Path) -> bool:
    """Whether the first files below a folder's folders are pictures."""
    below = (path for path in sorted(folder.glob("*/**/*")) if path.is_file())
    return any(path.suffix.lower() in PICTURES for path in islice(below, ROWS))


def _kind_of_model(typed: Mapping[str, str]) -> Kind | None:
    """What files of text are for: the head of a language model says it."""
    names = _names(typed["data.train"])
    endings = {Path(name.removesuffix(".gz")).suffix.lower() for name in names}
    if not endings <= OF_TEXT:
        return None
    for key in ("teacher.path", "student.path"):
        said = Path(typed.get(key, "")).expanduser() / "config.json"
        if key not in typed or not said.is_file():
            continue
        try:
            made = str((json.loads(said.read_text(encoding="utf-8"))["architectures"])[0])
        except (ValueError, KeyError, IndexError, TypeError):
            continue
        for head, data in OF_HEADS.items():
            if made.endswith(head):
                return Kind(data, f"{key} holds a {made}, a language model")
    return None


def kind_of(file: str) -> Kind | None:
    """What a file is by its ending, its columns and its first rows."""
    ending = Path(file.removesuffix(".gz")).suffix.lower()
    if ending in OF_WORDS:
        return Kind("token_files", f"{file} ends in {ending}")
    if ending in TABLES:
        columns = _columns(file, ending)
        kind = kind_of_columns(columns)
        if kind is None:
            return None
        shown = ", ".join(map(str, columns))
        shows = f"{file} has the columns {shown}"
        return Kind(kind.data, shows, kind.settings, tuple(map(str, columns)))
    if ending in OF_TEXT:
        return _kind_of_lines(file)
    return None


def kind_of_columns(columns: Mapping[str, Any]) -> Kind | None:
    """What a table is.

    Args:
        columns: from the name of each to one of its values.
    """
    for kind in _candidates(columns):
        # What is not built in is not recognised.
        if (files("lightning_distill.conf") / "data" / f"{kind.data}.yaml").is_file():
            return kind
    return None


def _candidates(columns: Mapping[str, Any]) -> Iterator[Kind]:
    names = [*columns]
    if isinstance(columns.get("messages"), list) or {"prompt", "completion"} <= {*names}:
        yield Kind("chat_files", "")
    if {"question", "context"} <= {*names}:
        yield Kind("question_files", "")
    words = _first(WORDS, [n for n in names if _is_list_of_text(columns[n])])
    if words is not None:
        tags = _first(TAGS, [n for n in names if n != words and isinstance(columns[n], list)])
        yield Kind("token_files", "", _unless({"words": words, "tags": tags}, "words", "tags"))
    for source, target in WRITTEN:
        if source in names and target in names:
            own = {"source": source, "target": target}
            yield Kind("pair_files", "", _unless(own, "source", "target"))
    for sound, spoken in SPOKEN:
        if sound in names and spoken in names:
            yield Kind("speech_files", "", _unless({"target": spoken} if spoken != "text" else {}))
    for first, second, third in RELATED:
        if first in names and second in names:
            negatives = third if third in names else None
            named = {"text": first, "text_pair": second, "negatives": negatives}
            yield Kind("embedding_files", "", _unless(named))
    label = _first(LABELS, names)
    for first, second in PAIRS:
        if first in names and second in names and label is not None:
            own = {"text": first, "text_pair": second, "label": label}
            yield Kind("text_files", "", _unless(own, "text", "label"))
    text = _first(TEXTS, names)
    if text is not None and label is not None and not isinstance(columns[text], list):
        yield Kind("text_files", "", _unless({"text": text, "label": label}, "text", "label"))


def _unless(settings: Mapping[str, str | None], *defaults: str) -> dict[str, str]:
    """Those settings that are there and are not called as they are by default."""
    return {
        key: value
        for key, value in settings.items()
        if value is not None and not (key in defaults and key == value)
    }


def _first(likely: Iterable[str], names: Sequence[str]) -> str | None:
    return next((name for name in likely if name in names), None)


def _is_list_of_text(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


def _columns(file: str, ending: str) -> dict[str, Any]:
    """The columns of a table, each with the first value in it that is not empty."""
    if ending == ".parquet":
        import pyarrow.parquet as parquet

        batch = next(parquet.ParquetFile(file).iter_batches(batch_size=ROWS), None)
        rows: list[Any] = [] if batch is None else batch.to_pylist()
    elif ending in (".csv", ".tsv"):
        rows = _rows_of_cells(file, ending)
    else:
        rows = _rows_of_json(file)
    found: dict[str, Any] = {}
    for row in rows:
        for name, value in row.items() if isinstance(row, dict) else ():
            if found.get(name) in (None, "", []):
                found[name] = value
    return found


def _rows_of_cells(file: str, ending: str) -> list[dict[str, str]]:
    with _opened(file) as lines:
        first = lines.readline()
        marks = ",;\t" if ending == ".csv" else "\t"
        mark = max(marks, key=first.count)
        heads = [name.strip() for name in next(csv.reader([first], delimiter=mark), [])]
        rows = csv.reader(lines, delimiter=mark)
        return [dict(zip(heads, row, strict=False)) for row in islice(rows, ROWS)]


def _rows_of_json(file: str) -> list[Any]:
    with _opened(file) as opened:
        text = opened.read(LETTERS).lstrip()
    if re.match(SQUAD, text):
        return [{"question": "", "context": ""}]
    if text.startswith("["):
        decoder, at = json.JSONDecoder(), 1
        rows: list[Any] = []
        while len(rows) < ROWS:
            begin = re.compile(r"[\s,]*").match(text, at)
            try:
                row, at = decoder.raw_decode(text, at if begin is None else begin.end())
            except ValueError:
                return rows
            rows.append(row)
        return rows
    try:
        return [json.loads(line) for line in text.splitlines()[:ROWS] if line.strip()]
    except ValueError:
        return []


def _kind_of_lines(file: str) -> Kind | None:
    """A file of text, or of a word and its tag in each line."""
    with _opened(file) as opened:
        lines = [line.split() for line in islice(opened, 10 * ROWS)]
    filled = [cells for cells in lines if cells]
    tagged = [cells for cells in filled if len(cells) > 1 and TAG.fullmatch(cells[-1])]
    if filled and len(tagged) == len(filled):
        return Kind("token_files", f"{file} has a word and its tag in each line")
    return None


def _opened(file: str) -> Any:
    if file.endswith(".gz"):
        return gzip.open(file, "rt", encoding="utf-8-sig", newline="")
    return open(file, encoding="utf-8-sig", newline="")
