"""A folder of the teacher's answers: what it says of itself, and its rows by id."""

import mmap
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from ..models.head import Head
from .answer import Answer
from .heads import read_heads
from .manifest import identity_of, read_manifest
from .row_index import find_rows
from .shard import AGAIN, DamagedCacheError, sha256_of, Shard
from .shard_writer import row_checksums

# So many files are mapped at once; a process may not open many more.
MAPPED = 400
# After so many bytes were read the pages are given back: reading at random from files that are
# larger than memory keeps the process as small as it was.
PAGES = 128 * 2**20
# What a read of one value makes resident: Linux maps the sixteen pages around it if it has them.
TOUCHED = 16 * mmap.PAGESIZE


class AnswerStore:
    """The teacher's answers in a folder, read at random by row id.

    Opening looks at the manifest and at the size and header of every file, not at what they hold:
    each row has a checksum of its own, which is looked at when the row is read.

    Args:
        folder: that `lightning-distill job=cache` or `CachingTeacher` wrote.

    Raises:
        FileNotFoundError: if there is no cache, or none that was finished.
        DamagedCacheError: if a file is not what was written.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        manifest = read_manifest(self.folder)
        self.about: dict[str, Any] = manifest["about"]
        self.answers = {a["name"]: Answer.from_settings(a) for a in manifest["answers"]}
        self.shards: list[dict[str, Any]] = manifest["shards"]
        self._head_facts: dict[str, Any] | None = manifest.get("heads")
        self._heads: dict[str, Head] | None = None
        who = identity_of(self.about)
        self._marks = {name: answer.mark(who) for name, answer in self.answers.items()}
        self._index_facts = manifest["index"]
        self._rows = manifest["rows"]
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._read = 0
        self._index = self._map(self._index_facts)
        for number in range(len(self.shards)):
            self._shard(number)

    def __len__(self) -> int:
        return self._rows

    def __reduce__(self) -> Any:
        # Another process maps the files by itself.
        return AnswerStore, (self.folder.absolute(),)

    @property
    def bytes(self) -> int:
        """Of all files but the manifest."""
        return sum(facts["bytes"] for facts in self._files())

    def _files(self) -> list[dict[str, Any]]:
        heads = [] if self._head_facts is None else [self._head_facts]
        return [*self.shards, self._index_facts, *heads]

    @property
    def head_names(self) -> list[str]:
        """The paths of the heads that are kept."""
        return [] if self._head_facts is None else sorted(self._head_facts["heads"])

    def heads(self) -> dict[str, Head]:
        """The teacher's heads by their paths, in memory.

        Raises:
            DamagedCacheError: if they are not what was written.
        """
        if self._heads is None and self._head_facts is not None:
            try:
                self._heads = read_heads(self.folder, self._head_facts)
            except DamagedCacheError as error:
                raise DamagedCacheError(f"{error} {AGAIN}") from error
        return self._heads or {}

    def find(self, ids: Int64[np.ndarray, "rows 2"]) -> Int64[np.ndarray, " rows"]:
        """Where each row is, for `read`; -1 where it is not in the cache."""
        found = find_rows(self._index, ids)
        # Of `high` some three places, of `low` and `place` one each; no more than there is.
        self._count(min(5 * len(ids) * TOUCHED, self._index_facts["bytes"]))
        return found

    def read(
        self,
        ids: Int64[np.ndarray, "rows 2"],
        places: Int64[np.ndarray, " rows"],
        names: Sequence[str],
    ) -> tuple[dict[str, Tensor], list[int]]:
        """The answers of some rows.

        Args:
            ids: of the rows.
            places: what `find` returned for them.
            names: of the answers.

        Returns:
            By name (rows, *shape), or for an answer per token (tokens of all rows, *shape); and
            how many tokens each row has.

        Raises:
            DamagedCacheError: if a row is not what was written.
        """
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
        """As `read`, but of each answer the fields that its encoding wrote.

        Raises:
            DamagedCacheError: if a row is not what was written.
        """
        shards, rows = places >> 32, places & 0xFFFFFFFF
        order = np.argsort(shards, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(shards[order])) + 1)
        counts = np.zeros(len(ids), dtype=np.int64)
        parts: dict[str, dict[str, Any]] = {name: {} for name in names}
        for group in groups if len(order) else []:
            shard, own = self._shard(int(shards[group[0]])), rows[group]
            if own.max() >= len(shard["id"]) or (shard["id"][own] != ids[group]).any():
                raise DamagedCacheError(
                    f"The index of {self.folder} names other rows than {shard.path.name} holds. "
                    f"{AGAIN}"
                )
            begins = shard["tokens"]
            counts[group] = begins[own + 1] - begins[own]
            for name in names:
                found = self._fields(shard, self.answers[name], own, ids[group])
                for field, pieces in found.items():
                    if isinstance(pieces, Tensor):
                        if field not in parts[name]:
                            shape = (len(ids), *pieces.shape[1:])
                            parts[name][field] = torch.empty(shape, dtype=pieces.dtype)
                        parts[name][field][torch.from_numpy(group)] = pieces
                        continue
                    into = parts[name].setdefault(field, [None] * len(ids))
                    for i, piece in zip(group, pieces, strict=True):
                        into[i] = piece
        values: dict[str, dict[str, Tensor]] = {}
        for name in names:
            answer = self.answers[name]
            fields = {
                field: pieces if isinstance(pieces, Tensor) else torch.cat(pieces)
                for field, pieces in parts[name].items()
            }
            if not fields:
                # No rows were asked for.
                none = torch.zeros(0, *answer.shape), torch.zeros(0, 2, dtype=torch.long)
                fields = answer.encoding.encode(*none)
            values[name] = fields
        return values, counts.tolist()

    def _fields(
        self, shard: Shard, answer: Answer, rows: np.ndarray, ids: np.ndarray
    ) -> dict[str, Tensor | list[Tensor]]:
        """The encoded fields of some rows of a shard, and all checked.

        Each is a tensor of so many rows, or for an answer per token a list of each row's.
        """
        prefix = f"{answer.name}/"
        names = (c.removeprefix(prefix) for c in shard.columns if c.startswith(prefix))
        # The name of another answer may begin with this one's.
        fields = sorted(name for name in names if "/" not in name)
        fields.remove("crc")
        found: dict[str, Tensor | list[Tensor]] = {}
        counts = np.ones(len(rows), dtype=np.int64)
        for field in fields:
            if answer.per_token:
                starts, stops = shard["tokens"][rows], shard["tokens"][rows + 1]
                counts = stops - starts
                end = len(shard[prefix + field])
                if (starts < 0).any() or (counts < 0).any() or (stops > end).any():
                    raise self._damaged(shard, ids[0])
                found[field] = [
                    shard.take_range(prefix + field, int(a), int(b))
                    for a, b in zip(starts, stops, strict=True)
                ]
            else:
                found[field] = shard.take(prefix + field, rows)
        columns = [
            pieces if isinstance(pieces, Tensor) else torch.cat(pieces)
            for pieces in (found[field] for field in fields)
        ]
        touched = (len(fields) + 3) * len(rows) * TOUCHED
        self._count(sum(column.nbytes for column in columns) + touched)
        right = shard[prefix + "crc"][rows]
        mark = self._marks[answer.name]
        for i, crc in enumerate(row_checksums(ids, columns, counts.tolist(), mark)):
            if crc != right[i]:
                raise self._damaged(shard, ids[i])
        return found

    def _damaged(self, shard: Shard, row: np.ndarray) -> DamagedCacheError:
        return DamagedCacheError(
            f"Row {row.tobytes().hex()} in {shard.path} is damaged: its checksum differs. {AGAIN}"
        )

    def check_files(self) -> list[str]:
        """The names of all files that are missing, or of which the SHA-256 is not as written."""
        return [
            facts["file"]
            for facts in self._files()
            if not (path := self.folder / facts["file"]).is_file()
            or sha256_of(path) != facts["sha256"]
        ]

    def _map(self, facts: Mapping[str, Any]) -> Shard:
        try:
            return Shard(self.folder / facts["file"], facts)
        except DamagedCacheError as error:
            raise DamagedCacheError(f"{error} {AGAIN}") from error

    def _shard(self, number: int) -> Shard:
        shard = self._open.pop(number, None)
        if shard is None:
            if not 0 <= number < len(self.shards):
                raise DamagedCacheError(f"The index of {self.folder} is damaged. {AGAIN}")
            shard = self._map(self.shards[number])
        self._open[number] = shard
        if len(self._open) > MAPPED:
            self._open.popitem(last=False)
        return shard

    def _count(self, size: int) -> None:
        self._read += size
        if self._read > PAGES:
            self._read = 0
            for shard in [self._index, *self._open.values()]:
                shard.release()
