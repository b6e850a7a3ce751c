"""Rows of answers on their way into a shard."""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from .answer import Answer, signature
from .encoded_rows import EncodedRows
from .shard import write_shard


class ShardWriter:
    """Collects rows, and writes them as one shard.

    A shard has the columns `id` (rows, 2), `tokens` (rows + 1; where the tokens of each row begin),
    and for each answer the fields of its encoding and `crc`, a checksum of each row, which is
    looked at whenever the row is read.

    Args:
        folder: where shards are written.
        answers: what is kept of each row.
        teacher: who answers, as `identity_of` says; a store reads its rows under no other.
    """

    def __init__(self, folder: Path, answers: Sequence[Answer], teacher: str = ""):
        self.folder, self.answers, self.teacher = folder, list(answers), teacher
        self._columns: dict[str, list[Tensor]] = {}
        self._lengths: list[int] = []
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._lengths)

    def add(
        self,
        ids: Int64[np.ndarray, "rows 2"],
        values: Mapping[str, Tensor],
        lengths: Sequence[int] | None,
    ) -> None:
        """Take the answers to a batch.

        Args:
            ids: of its rows.
            values: by answer, (rows, *shape), or (rows, tokens, *shape) with padding at the end.
            lengths: tokens of each row.

        Raises:
            ValueError: for shapes that are not those of the answers, or values that are NaN.
        """
        self.add_rows(EncodedRows.of(self.answers, ids, values, lengths))

    def add_rows(self, rows: EncodedRows) -> None:
        """Take the answers to a batch, encoded by those of this shard."""
        for answer in self.answers:
            fields = rows.fields[answer.name]
            for name, column in fields.items():
                self._append(f"{answer.name}/{name}", column)
            columns = [fields[name] for name in sorted(fields)]
            per_row, mark = rows.per_row(answer.name), answer.mark(self.teacher)
            crc = row_checksums(rows.ids, columns, per_row, mark)
            self._append(f"{answer.name}/crc", torch.tensor(crc, dtype=torch.int64))
        self._append("id", torch.from_numpy(rows.ids.copy()))
        self._lengths += rows.counts

    def write(self, name: str) -> dict[str, Any]:
        """Write what was collected as `NAME.safetensors` and begin anew; returns its facts."""
        columns = {column: torch.cat(parts) for column, parts in self._columns.items()}
        columns["tokens"] = torch.tensor([0, *np.cumsum(self._lengths).tolist()])
        of = signature(self.teacher, self.answers)
        facts = write_shard(self.folder / f"{name}.safetensors", columns, of)
        facts |= {"rows": len(self), "of": of}
        self.clear()
        return facts

    def clear(self) -> None:
        """Forget what was collected."""
        self._columns, self._lengths, self.bytes = {}, [], 0

    def _append(self, column: str, values: Tensor) -> None:
        self._columns.setdefault(column, []).append(values)
        self.bytes += values.numel() * values.element_size()


def row_checksums(
    ids: Int64[np.ndarray, "rows 2"],
    fields: Sequence[Tensor],
    counts: Sequence[int],
    mark: int = 0,
) -> list[int]:
    """CRC-32 of each row's id and bytes, its fields in order; a row has `counts` items of each."""
    found = [zlib.crc32(ids[i].tobytes(), mark) for i in range(len(ids))]
    for field in fields:
        flat = field.contiguous().reshape(-1).view(torch.uint8).numpy()
        size = len(flat) // len(field) if len(field) else 0
        start = 0
        for i, count in enumerate(counts):
            stop = start + count * size
            found[i] = zlib.crc32(flat[start:stop].data, found[i])
            start = stop
    return found
