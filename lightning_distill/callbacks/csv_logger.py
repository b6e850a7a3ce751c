"""The file of a run's curves."""

import csv
import io
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

FIRST = ("epoch", "step")


class CSVLogger(Logger):
    """Writes `metrics.csv`, which a run that was killed at any moment goes on with.

    Lightning's logger removes the file of the part before, and writes it anew in place where a new
    column comes. This one appends rows, and puts a whole new file in the place of the old one where
    a column comes or rows go: those of steps that a resumed run takes again.

    Args:
        save_dir: the folder.
        name: of a folder in it.
        version: of a folder in that.
    """

    def __init__(self, save_dir: str | Path, name: str = "", version: str = ""):
        super().__init__()
        self._save_dir, self._name, self._version = str(save_dir), name, version
        self.path = Path(save_dir) / name / version / "metrics.csv"
        self._rows: list[dict[str, Any]] | None = None
        self._columns: list[str] = []

    @property
    def name(self) -> str:
        """Of a folder in `save_dir`."""
        return self._name

    @property
    def version(self) -> str:
        """Of a folder in that of `name`."""
        return self._version

    @property
    def save_dir(self) -> str:
        """The folder that was given."""
        return self._save_dir

    @property
    def log_dir(self) -> str:
        """Where `metrics.csv` lies."""
        return str(self.path.parent)

    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Nothing: the run's configuration lies beside the file."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write a row; the first one takes the place of rows of its step and those after it."""
        anew = self._rows is None
        if self._rows is None:
            self._rows = [] if step is None else [r for r in self._read() if _stays(r, step)]
            self._columns = sorted({name for row in self._rows for name in row}, key=_place)
        step = len(self._rows) if step is None else step
        row = {name: getattr(v, "item", lambda v=v: v)() for name, v in metrics.items()}
        row["step"] = step
        self._rows.append(row)
        new = row.keys() - set(self._columns)
        self._columns = sorted([*self._columns, *new], key=_place)
        if new or anew:
            self._write()
        else:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                # In one piece.
                file.write(self._text([row], header=False))

    def _read(self) -> list[dict[str, Any]]:
        if not self.path.is_file():
            return []
        text = self.path.read_text(encoding="utf-8")
        if not text.endswith("\n"):
            # The process was killed within its last row.
            text = text[: text.rfind("\n") + 1]
        rows = csv.DictReader(io.StringIO(text))
        return [{name: v for name, v in row.items() if v != ""} for row in rows]

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_suffix(".part")
        aside.write_text(self._text(self._rows or [], header=True), encoding="utf-8")
        os.replace(aside, self.path)

    def _text(self, rows: list[dict[str, Any]], header: bool) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


def _stays(row: dict[str, Any], step: int) -> bool:
    """Whether a part of a run that begins to log at `step` follows a row; it is tested anew."""
    return int(row["step"]) < step and not any(name.startswith("test/") for name in row)


def _place(name: str) -> tuple[bool, str]:
    return (name not in FIRST, name)
