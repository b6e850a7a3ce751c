"""Which data module reads a data set in the layout of the Hugging Face hub, as its columns say."""

import json
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from .data_of_files import (
    columns_of,
    first_values,
    has_pictures,
    is_named,
    Kind,
    kind_of_columns,
    TABLES,
)
from .overrides import key_of

# So many rows are looked at.
ROWS = 20


def with_hub_data(words: Sequence[str]) -> list[str]:
    """The words of a command, with the data module of `data.path` or `data.glue`, if none is typed.

    The columns of a folder are looked at; for a name on the hub `data=` is to be typed.

    Args:
        words: flags and overrides.

    Raises:
        ValueError: for a folder whose columns nothing reads, or only in files.
    """
    typed = {key_of(word): word.partition("=")[2] for word in words if not word.startswith("-")}
    path, glue = typed.get("data.path"), typed.get("data.glue")
    if is_named(typed, "path") or "job.path" in typed:
        return list(words)
    if glue and not path:
        return [*words, "data=hub"]
    folder = Path(path).expanduser() if path else None
    if folder is None or not folder.is_dir():
        return list(words)
    kind = kind_of_folder(folder)
    if kind is None:
        raise ValueError(
            f"What data.path={path} holds cannot be told by its columns: type what reads it too, "
            "as in data=hub, data=hub_tokens or data=hub_questions."
        )
    print(f"Data: {kind.shows}: {kind.words}", file=sys.stderr)
    own = {f"data.{key}": value for key, value in kind.settings.items()}
    more = [f"{key}={value}" for key, value in own.items() if key not in typed]
    return [*words, f"data={kind.data}", *more]


def kind_of_folder(folder: Path) -> Kind | None:
    """What a data set is, by its columns and their first values; `None` if nothing is recognised.

    Args:
        folder: that `save_to_disk` wrote, or with files of tables or pictures.

    Raises:
        ValueError: for columns that are read in files only.
    """
    if has_pictures(folder):
        return Kind("hub_pictures", f"{folder} holds pictures")
    columns, features = _columns(folder)
    pictures = [name for name, kind in features.items() if kind.get("_type") == "Image"]
    shown = f"{folder} has the columns {', '.join(columns)}"
    if pictures:
        settings = {} if pictures[0] == "image" else {"image": pictures[0]}
        return Kind("hub_pictures", shown, settings, tuple(columns))
    kind = kind_of_columns(columns, of_hub=True)
    if kind is not None and not kind.data.startswith("hub"):
        raise ValueError(
            f"{shown}, which data={kind.data} reads in files: write each split with to_parquet(), "
            "and name the files, as in data.train=train.parquet."
        )
    return None if kind is None else Kind(kind.data, shown, kind.settings, kind.columns)


def _columns(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The columns, each with one of its values; and what a saved data set says of them."""
    arrows = sorted(folder.glob("*/*.arrow"))
    if (folder / "dataset_dict.json").is_file() and arrows:
        info = json.loads((arrows[0].parent / "dataset_info.json").read_text(encoding="utf-8"))
        return first_values(_rows_of_arrow(arrows[0])), info.get("features") or {}
    tables = (p for p in sorted(folder.rglob("*")) if p.suffix.lower() in TABLES and p.is_file())
    first = next(tables, None)
    return ({} if first is None else columns_of(str(first))), {}


def _rows_of_arrow(file: Path) -> Iterator[Any]:
    import pyarrow

    with pyarrow.memory_map(str(file)) as source:
        batches = pyarrow.ipc.open_stream(source)
        yield from islice(
            (row for batch in batches for row in batch.slice(0, ROWS).to_pylist()), ROWS
        )
