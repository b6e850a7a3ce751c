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
from .shard import write_shard

# An odd constant: the tokens of a row draw apart from each other.
STRIDE = 0x9E3779B97F4A7C15


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
        counts = [0] * len(ids) if lengths is None else list(lengths)
        for answer in self.answers:
            tensor = values[answer.name].detach().cpu()
            self._check(answer, tensor, len(ids), lengths)
            marks = torch.from_numpy(ids.copy())
            per_row = [1] * len(ids)
            if answer.per_token:
                per_row = counts
                inside = torch.arange(tensor.shape[1]) < torch.tensor(counts)[:, None]
                tensor = tensor[inside]
                marks = marks.repeat_interleave(torch.tensor(counts), dim=0)
                places = np.concatenate([np.arange(n) for n in counts]) if counts else np.empty(0)
                step = torch.from_numpy(
                    (places.astype(np.uint64) * np.uint64(STRIDE)).view(np.int64)
                )
                marks = marks + step[:, None]
            if len(tensor) != sum(per_row):
                shape = tuple(values[answer.name].shape)
                raise ValueError(
                    f"teacher.{answer.name} has shape {shape}, which is not one vector for each of "
                    f"{sum(per_row)} {'tokens' if answer.per_token else 'rows'}. A cache keeps "
                    "tensors of (rows, ...), or (rows, tokens, ...) with the tokens of the mask."
                )
            fields = answer.encoding.encode(tensor, marks)
            for field, column in fields.items():
                self._append(f"{answer.name}/{field}", column)
            columns = [fields[f] for f in sorted(fields)]
            crc = row_checksums(ids, columns, per_row, answer.mark(self.teacher))
            self._append(f"{answer.name}/crc", torch.tensor(crc, dtype=torch.int64))
        self._append("id", torch.from_numpy(ids.copy()))
        self._lengths += counts

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

    def _check(
        self, answer: Answer, tensor: Tensor, rows: int, lengths: Sequence[int] | None
    ) -> None:
        expected = (rows, *((tensor.shape[1],) if answer.per_token else ()), *answer.shape)
        if tuple(tensor.shape) != expected or (answer.per_token and lengths is None):
            shape = ", ".join(["rows", *(["tokens"] if answer.per_token else [])])
            raise ValueError(
                f"teacher.{answer.name} has shape {tuple(tensor.shape)}, and had ({shape}, "
                f"{', '.join(map(str, answer.shape))}) before. A cache holds tensors of one shape "
                "per row, or per token where the batch has an attention_mask."
            )
        if tensor.isnan().any():
            row = int(tensor.isnan().flatten(1).any(dim=1).nonzero()[0])
            raise ValueError(
                f"teacher.{answer.name} is NaN in row {row} of this batch; a cache would keep "
                "that. Look at the teacher's weights and precision."
            )


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
