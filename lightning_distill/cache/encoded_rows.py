"""The answers to the rows of a batch, encoded as a cache keeps them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from .answer import Answer

# An odd constant: the tokens of a row draw apart from each other.
STRIDE = 0x9E3779B97F4A7C15


@dataclass
class EncodedRows:
    """Rows on their way into a shard, which are read like those of an `AnswerStore`.

    Attributes:
        ids: of the rows, (rows, 2).
        counts: how many tokens each row has.
        answers: what is kept of each row, by name.
        fields: of each answer, by name, what its encoding has made, (rows, ...) or (tokens of all
            rows, ...).
        about: what is known of the teacher, as an `AnswerStore` has it.
        head_names: the paths of the heads that are kept.
        folder: that they are to be written into.
    """

    ids: Int64[np.ndarray, "rows 2"]
    counts: list[int]
    answers: dict[str, Answer]
    fields: dict[str, dict[str, Tensor]]
    about: Mapping[str, Any] = field(default_factory=dict)
    head_names: Sequence[str] = ()
    folder: Path = Path()

    @classmethod
    def of(
        cls,
        answers: Sequence[Answer],
        ids: Int64[np.ndarray, "rows 2"],
        values: Mapping[str, Tensor],
        lengths: Sequence[int] | None,
        about: Mapping[str, Any] | None = None,
        head_names: Sequence[str] = (),
        folder: Path = Path(),
    ) -> "EncodedRows":
        """Encode what a teacher has answered.

        Args:
            answers: what is kept.
            ids: of the rows.
            values: by answer, (rows, *shape), or (rows, tokens, *shape) with padding at the end.
            lengths: tokens of each row.
            about: see the attributes.
            head_names: see the attributes.
            folder: see the attributes.

        Raises:
            ValueError: for shapes that are not those of the answers, or values that are NaN.
        """
        counts = [0] * len(ids) if lengths is None else list(lengths)
        fields = {}
        for answer in answers:
            tensor = values[answer.name].detach().cpu()
            _check(answer, tensor, len(ids), lengths)
            marks = torch.from_numpy(ids.copy())
            expected = len(ids)
            if answer.per_token:
                expected = sum(counts)
                inside = torch.arange(tensor.shape[1]) < torch.tensor(counts)[:, None]
                tensor = tensor[inside]
                marks = marks.repeat_interleave(torch.tensor(counts), dim=0)
                places = np.concatenate([np.arange(n) for n in counts]) if counts else np.empty(0)
                step = torch.from_numpy(
                    (places.astype(np.uint64) * np.uint64(STRIDE)).view(np.int64)
                )
                marks = marks + step[:, None]
            if len(tensor) != expected:
                shape = tuple(values[answer.name].shape)
                raise ValueError(
                    f"teacher.{answer.name} has shape {shape}, which is not one vector for each of "
                    f"{expected} {'tokens' if answer.per_token else 'rows'}. A cache keeps "
                    "tensors of (rows, ...), or (rows, tokens, ...) with the tokens of the mask."
                )
            fields[answer.name] = answer.encoding.encode(tensor, marks)
        named = {answer.name: answer for answer in answers}
        return cls(ids, counts, named, fields, about or {}, head_names, folder)

    def __len__(self) -> int:
        return len(self.ids)

    def per_row(self, name: str) -> list[int]:
        """How many items of an answer each row has."""
        return self.counts if self.answers[name].per_token else [1] * len(self)

    def take(self, rows: Int64[np.ndarray, " some"]) -> "EncodedRows":
        """Some of the rows, in this order."""
        if len(rows) == len(self) and (rows == np.arange(len(self))).all():
            return self
        ends = np.cumsum(self.counts)
        ranges = [np.arange(ends[i] - self.counts[i], ends[i]) for i in rows]
        tokens = np.concatenate(ranges) if ranges else np.empty(0, np.int64)
        fields = {}
        for name, own in self.fields.items():
            places = torch.from_numpy(tokens if self.answers[name].per_token else rows)
            fields[name] = {key: value[places] for key, value in own.items()}
        counts = [self.counts[i] for i in rows]
        more = self.about, self.head_names, self.folder
        return EncodedRows(self.ids[rows], counts, self.answers, fields, *more)

    # As a store has them.

    def find(self, ids: Int64[np.ndarray, "rows 2"]) -> Int64[np.ndarray, " rows"]:
        """Where each row is, for `read`; -1 where it is not among these."""
        there = {one.tobytes(): place for place, one in enumerate(self.ids)}
        return np.array([there.get(one.tobytes(), -1) for one in ids], np.int64)

    def read(
        self,
        ids: Int64[np.ndarray, "rows 2"],
        places: Int64[np.ndarray, " rows"],
        names: Sequence[str],
    ) -> tuple[dict[str, Tensor], list[int]]:
        """The answers of some rows, as they are read from a cache; see `AnswerStore.read`."""
        found, counts = self.read_encoded(ids, places, names)
        values = {}
        for name, fields in found.items():
            answer = self.answers[name]
            values[name] = answer.encoding.decode(fields, answer.shape)
        return values, counts

    def read_encoded(
        self,
        ids: Int64[np.ndarray, "rows 2"],
        places: Int64[np.ndarray, " rows"],
        names: Sequence[str],
    ) -> tuple[dict[str, dict[str, Tensor]], list[int]]:
        """As `read`, but of each answer the fields that its encoding made."""
        found = self.take(places)
        return {name: found.fields[name] for name in names}, found.counts


def _check(answer: Answer, tensor: Tensor, rows: int, lengths: Sequence[int] | None) -> None:
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
