"""Which data module reads a user's files, as their names, columns and first rows say.

Nothing is imported for it that takes long: it is asked before a configuration is composed.
"""

import csv
import gzip
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

from .column_names import LABELS, PAIRS, RELATED, SPOKEN, TAGS, TEXTS, WORDS, WRITTEN
from .experiment_choices import choice_of_experiment, default_choice, packaged, settings_of
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
# What reads files of text in the place of the texts of Python that a recipe learns from.
OF_CORPORA = {"standard_library": "text_corpus", "masked_standard_library": "masked_corpus"}
# What reads the same columns of a data set on the hub.
OF_HUB = {
    "text_files": "hub",
    "token_files": "hub_tokens",
    "question_files": "hub_questions",
    "pair_files": "hub_pairs",
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
    settings: Mapping[str, str | None] = field(default_factory=dict)
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
    if pictures and not is_named(typed, "folder") and has_pictures(Path(pictures).expanduser()):
        print(f"Data: {pictures} holds pictures: data=image_folder", file=sys.stderr)
        return [*words, "data=image_folder"]
    given = typed.get("data.train")
    of_run = (Path(typed.get("job.path", "")) / "config.yaml").is_file()
    if not given or is_named(typed, "train") or (of_run and "job.path" in typed):
        return list(words)
    kind = _kind_of_recipe(typed) or kind_of_files(given) or _kind_of_model(typed)
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


def is_named(typed: Mapping[str, str], setting: str) -> bool:
    """Whether it is said already which data module has a setting.

    `data=` says it, a run that is gone on with or looked at, and an experiment whose own has it.

    Args:
        typed: the overrides of a command.
        setting: of data modules, as `train`.
    """
    if {"data", "job.run"} & typed.keys() or typed.get("resume"):
        return True
    experiment = typed.get("experiment")
    if experiment is None:
        return False
    # Of an experiment that is not ours nothing is known.
    known = packaged(f"experiment/{experiment}") is not None
    data = choice_of_experiment(experiment, "data") or default_choice("data")
    return not known or setting in settings_of("data", data)


def _kind_of_recipe(typed: Mapping[str, str]) -> Kind | None:
    """What files are for where an experiment trains a language model."""
    data = OF_CORPORA.get(choice_of_experiment(typed.get("experiment"), "data") or "")
    if data is None:
        return None
    kind = kind_of_files(typed["data.train"])
    if data == "text_corpus" and kind is not None and kind.data == "chat_files":
        return kind
    return Kind(data, f"experiment={typed['experiment']} learns from texts as they are")


def kind_of_files(given: Any) -> Kind | None:
    """What the first of the files is; `None` if they are not there, or nothing is recognised.

    Args:
        given: as `data.train` takes it: a file, a folder, a pattern, or a list as it is typed.
    """
    names = _names(given)
    folder = Path(names[0]).expanduser() if len(names) == 1 else None
    if folder is not None and folder.is_dir() and (folder / "seq.in").is_file():
        return Kind("token_files", f"{folder} has a file seq.in")
    if folder is not None and folder.is_dir() and has_pictures(folder):
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


def has_pictures(folder: Path) -> bool:
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
        kind = kind_of_columns(columns_of(file))
        if kind is None:
            return None
        return replace(kind, shows=f"{file} has the columns {', '.join(kind.columns)}")
    if ending in OF_TEXT:
        return _kind_of_lines(file)
    return None


def kind_of_columns(columns: Mapping[str, Any], of_hub: bool = False) -> Kind | None:
    """What a table is.

    Args:
        columns: from the name of each to one of its values.
        of_hub: a data set in the layout of the hub, and no file.
    """
    kind = next(_candidates(columns), None)
    if kind is None:
        return None
    data = OF_HUB.get(kind.data, kind.data) if of_hub else kind.data
    defaults = (files("lightning_distill.conf") / "data" / f"{data}.yaml").read_text("utf-8")
    settings = {
        key: value
        for key, value in kind.settings.items()
        if value is not None and f"\n{key}: {value}\n" not in defaults
    }
    return Kind(data, "", settings, tuple(map(str, columns)))


def _candidates(columns: Mapping[str, Any]) -> Iterator[Kind]:
    names = [*columns]
    if isinstance(columns.get("messages"), list) or {"prompt", "completion"} <= {*names}:
        yield Kind("chat_files", "")
    if {"question", "context"} <= {*names}:
        yield Kind("question_files", "")
    words = _first(WORDS, [n for n in names if _is_list_of_text(columns[n])])
    if words is not None:
        tags = _first(TAGS, [n for n in names if n != words and isinstance(columns[n], list)])
        yield Kind("token_files", "", {"words": words, "tags": tags})
    for source, target in WRITTEN:
        if source in names and target in names:
            own = {"source": source, "target": target}
            yield Kind("pair_files", "", own)
    for sound, said in SPOKEN:
        if sound in names and said in names:
            yield Kind("speech_files", "", {"source": sound, "target": said})
    for first, second, third in RELATED:
        if first in names and second in names:
            negatives = third if third in names else None
            named = {"text": first, "text_pair": second, "negatives": negatives}
            yield Kind("embedding_files", "", named)
    label = _first(LABELS, names)
    for first, second in PAIRS:
        if first in names and second in names and label is not None:
            own = {"text": first, "text_pair": second, "label": label}
            yield Kind("text_files", "", own)
    text = _first(TEXTS, names)
    if text is not None and label is not None and not isinstance(columns[text], list):
        yield Kind("text_files", "", {"text": text, "label": label})


def _first(likely: Iterable[str], names: Sequence[str]) -> str | None:
    return next((name for name in likely if name in names), None)


def _is_list_of_text(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


def columns_of(file: str) -> dict[str, Any]:
    """The columns of a table, each with the first value in it that is not empty."""
    ending = Path(file.removesuffix(".gz")).suffix.lower()
    if ending == ".parquet":
        import pyarrow.parquet as parquet

        batch = next(parquet.ParquetFile(file).iter_batches(batch_size=ROWS), None)
        rows: list[Any] = [] if batch is None else batch.to_pylist()
    elif ending in (".csv", ".tsv"):
        rows = _rows_of_cells(file, ending)
    else:
        rows = _rows_of_json(file)
    return first_values(rows)


def first_values(rows: Iterable[Any]) -> dict[str, Any]:
    """The columns of some rows, each with the first value in it that is not empty."""
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
