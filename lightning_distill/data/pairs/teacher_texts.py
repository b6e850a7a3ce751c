"""A file of texts that a teacher wrote, found again by the rows that they were written for."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from .keep import Filter

log = logging.getLogger("lightning_distill")

FIELDS = ("source", "target", "text", "log_probability")


def read_texts(path: Path) -> dict[tuple[str, str], tuple[str, float]]:
    """Text and log-probability by source and target; a last line that was cut off is left out.

    Raises:
        ValueError: for a line that is none of `job=generate`.
    """
    found: dict[tuple[str, str], tuple[str, float]] = {}
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            row = json.loads(line)
            source, target, text, sure = (row[field] for field in FIELDS)
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                # Without an end: the process that wrote it was killed.
                continue
            raise ValueError(
                f"Line {number} of {path} must be an object with {', '.join(FIELDS)}, as "
                f"job=generate writes them, got {line[:80]!r}."
            ) from error
        found[source, target] = (text, float(sure))
    return found


class TeacherTexts:
    """Texts that take the place of training targets.

    Args:
        path: a file that `job=generate` wrote.

    Raises:
        FileNotFoundError: if it is not there.
    """

    def __init__(self, path: str):
        self.path = Path(path).expanduser()
        if not self.path.is_file():
            raise FileNotFoundError(
                f"There is no file {path} (data.targets). Write it: lightning-distill "
                f"job=generate job.file={path}, with the same data and a teacher."
            )
        self.found = read_texts(self.path)

    def in_the_place_of(
        self, rows: Sequence[tuple[str, str]], keep: Sequence[Filter]
    ) -> list[tuple[str, str]]:
        """The rows whose text passes every filter, with that text as the target.

        An empty text is never kept.

        Args:
            rows: source and target of the training rows.
            keep: the filters.

        Raises:
            ValueError: if the file lacks a row, or none is left.
        """
        missing = [i for i, row in enumerate(rows) if row not in self.found]
        if missing:
            raise ValueError(
                f"{self.path} (data.targets) has no text for {len(missing)} of {len(rows)} "
                f"training rows; the first is row {missing[0]}, {rows[missing[0]][0][:60]!r}. "
                "Give the command job=generate again with this data and this file: it goes on."
            )
        kept = []
        for source, target in rows:
            text, sure = self.found[source, target]
            if text.strip() and all(one(target, text, sure) for one in keep):
                kept.append((source, text))
        dropped = len(rows) - len(kept)
        how = ", ".join(map(repr, keep)) or "no filter"
        log.info("%s: %d of %d training rows are left out (%s)", self.path, dropped, len(rows), how)
        if not kept:
            raise ValueError(
                f"None of the {len(rows)} texts in {self.path} passes data.keep ({how}). Let more "
                "pass, or take a better teacher."
            )
        return kept
