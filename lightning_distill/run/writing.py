"""Let a teacher write the texts of training rows, and keep them in a file."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import lightning as L
from torch import nn, Tensor

from ..data.pairs.teacher_texts import read_texts
from ..models.inputs import model_inputs
from ..models.written_texts import log_probabilities, write_texts, Writing
from ..sealed import write_whole
from ..teachers import Teacher
from ..teachers.keeper import KeepsTeachers
from .every_row import Batch, every_row


def planned(data: Any, batch_size: int, done: Any) -> list[Batch]:
    """Batches of the training rows that are not among those that are done."""
    texts = data.splits["train"].texts
    found = []
    for split, rows, view in every_row(data, batch_size):
        left = [row for row in rows if split == "train" and texts[row] not in done]
        if left:
            found.append((split, left, view))
    return found


def begun(path: Path, about: dict[str, Any]) -> dict[tuple[str, str], tuple[str, float]]:
    """What a file holds already; a line that was cut off is taken away.

    Args:
        path: of the file; it and what is beside it are made if they are not there.
        about: who writes, and how.

    Raises:
        ValueError: if the file was written by another teacher, or otherwise.
    """
    beside = path.with_name(f"{path.name}.about.json")
    if path.is_file() and path.stat().st_size:
        before = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
        differing = [f"{n} was {before.get(n)} and is {v}" for n, v in about.items()
                     if before.get(n) != v]  # fmt: skip
        if differing:
            raise ValueError(
                f"{path} holds texts that were written otherwise: {'; '.join(differing)}. Name "
                "another file (job.file=FILE), or write as before."
            )
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            write_whole(path, whole)
        return read_texts(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(beside, json.dumps(about, indent=2).encode())
    return {}


class Writer(KeepsTeachers, L.LightningModule):
    """Runs a teacher over batches, and writes a line for each row.

    Args:
        teacher: a live one.
        data: with `rows_dataloader(batches)`, and `texts` of its training rows.
        batches: what is to be written.
        how: texts are written.
        file: open, to write into.
    """

    def __init__(
        self, teacher: nn.Module, data: Any, batches: Sequence[Batch], how: Writing, file: TextIO
    ):
        super().__init__()
        self.teacher = Teacher.of(teacher)
        self.data, self.batches, self.how, self.file = data, list(batches), how, file

    def predict_dataloader(self) -> Any:
        """The batches of the plan."""
        return self.data.rows_dataloader(self.batches)

    def on_predict_start(self) -> None:
        """Put the teacher on the device."""
        self.teacher.settle(self.device)

    def predict_step(self, batch: Any, batch_idx: int) -> None:
        """Write the texts of a batch."""
        model = self.teacher.model
        assert model is not None
        inputs = model_inputs(batch, model)
        written = write_texts(model, inputs, self.how)
        sure = log_probabilities(model, inputs, written)
        for line in self._lines(batch["row"].tolist(), written, sure):
            self.file.write(line)
        # A run that is killed loses a batch at most.
        self.file.flush()
        os.fsync(self.file.fileno())

    def _lines(self, rows: Sequence[int], written: Tensor, sure: Tensor) -> Iterator[str]:
        texts = self.data.splits["train"].texts
        ids = [row[row != -100].tolist() for row in written.cpu()]
        decoded = self.data.tokenizer.batch_decode(ids, skip_special_tokens=True)
        for row, text, value in zip(rows, decoded, sure.tolist(), strict=True):
            source, target = texts[row]
            found = {"source": source, "target": target, "text": text.strip(),
                     "log_probability": round(value, 6)}  # fmt: skip
            yield json.dumps(found, ensure_ascii=False) + "\n"
