"""The rows of `metrics.csv`, of all parts of a training that was cut off and went on."""

import csv
import io
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from ..sealed import write_whole

Rows = list[dict[str, str]]


@rank_zero_only
def put_aside(path: Path) -> None:
    """Before a training goes on: keep what was logged, for the logger begins its file anew.

    Args:
        path: of the `metrics.csv`.
    """
    if path.is_file():
        _write(_aside(path), _joined(_rows(_aside(path)), _rows(path)))


@rank_zero_only
def join(path: Path) -> None:
    """After a training: put what was logged before in front of what followed it."""
    aside = _aside(path)
    if aside.is_file():
        _write(path, _joined(_rows(aside), _rows(path)))
        aside.unlink()


def _aside(path: Path) -> Path:
    return path.with_name(f"earlier_{path.name}")


def _rows(path: Path) -> Rows:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        # A row that was cut off while it was written lacks fields; it is logged again.
        return [row for row in csv.DictReader(file) if None not in row.values()]


def _joined(before: Rows, after: Rows) -> Rows:
    """Of two parts the first ends where the second begins, which repeats some of its steps."""
    if not after:
        return before
    first = min(int(row["step"]) for row in after)
    return [row for row in before if int(row["step"]) < first] + after


def _write(path: Path, rows: Rows) -> None:
    found = {name for row in rows for name in row} - {"epoch", "step"}
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, ["epoch", "step", *sorted(found)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, file.getvalue().encode())
