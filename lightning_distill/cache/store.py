"""A folder of the teacher's answers: what it says of itself, and its rows by id."""

import hashlib
import json
import math
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
from .answer import Answer, signature
from .heads import read_heads
from .shard import DamagedCacheError, sha256_of, Shard, write_file, write_shard
from .shard_writer import row_checksums

FORMAT, VERSION = "lightning_distill answers", 1
MANIFEST, PLAN = "manifest.json", "plan.json"
# So many files are mapped at once; a process may not open many more.
MAPPED = 400
# After so many bytes were read the pages are given back: reading at random from files that are
# larger than memory keeps the process as small as it was.
PAGES = 128 * 2**20
# What a read of one value makes resident: Linux maps the sixteen pages around it if it has them.
TOUCHED = 16 * mmap.PAGESIZE
AGAIN = (
    "Give the command that made the cache again: it checks every file and writes what is damaged."
)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON with a checksum of itself."""
    # As it will be read: a key that is a number would be a word, and sorted otherwise.
    content = json.loads(json.dumps(content))
    signed = {**content, "checksum": _checksum(content)}
    write_file(path, json.dumps(signed, indent=1, sort_keys=True).encode())


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedCacheError: if it is not what was written.
    """
    try:
        content = json.loads(path.read_bytes())
        checksum = content.pop("checksum")
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise DamagedCacheError(f"{path} is damaged. {AGAIN}") from error
    if checksum != _checksum(content):
        raise DamagedCacheError(f"{path} is damaged: its checksum differs. {AGAIN}")
    return content


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_manifest(
    folder: Path,
    about: Mapping[str, Any],
    answers: Sequence[Answer],
    shards: Sequence[Any],
    heads: Mapping[str, Any] | None = None,
) -> None:
    """Make a folder of shards a cache: index its rows, and say what it is.

    Args:
        folder: that holds the shards.
        about: of teacher, tokenizer and data, as plain values.
        answers: what each row has.
        shards: the facts of each, in order.
        heads: the facts of the teacher's heads, if there are any.

    Raises:
        ValueError: for a shard of another teacher, or of other answers.
    """
    own = signature(fingerprint_of(about), answers)
    others = [facts["file"] for facts in shards if facts["of"] != own]
    if others:
        raise ValueError(
            f"{', '.join(others[:3])} in {folder} holds the answers of another teacher, or kept "
            "otherwise. Name another folder, or remove this one."
        )
    high, low, place = [], [], []
    for number, facts in enumerate(shards):
        ids = Shard(folder / facts["file"], facts)["id"]
        high.append(ids[:, 0].copy())
        low.append(ids[:, 1].copy())
        place.append(np.arange(len(ids), dtype=np.int64) + (number << 32))
    columns = [np.concatenate(parts or [np.empty(0, np.int64)]) for parts in (high, low, place)]
    order = np.lexsort((columns[1], columns[0]))
    columns = [column[order] for column in columns]
    # A row that was written twice is read where it was written first.
    first = np.ones(len(order), dtype=bool)
    first[1:] = (columns[0][1:] != columns[0][:-1]) | (columns[1][1:] != columns[1][:-1])
    columns = [column[first] for column in columns]
    index = write_shard(
        folder / "index.safetensors",
        {n: torch.from_numpy(c) for n, c in zip(("high", "low", "place"), columns, strict=True)},
    )
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "about": dict(about),
        "answers": [answer.settings() for answer in answers],
        "rows": len(columns[0]),
        "index": index,
        "shards": list(shards),
        **({} if heads is None else {"heads": dict(heads)}),
    }
    write_json(folder / MANIFEST, manifest)


def whole(path: Path, of: str) -> dict[str, Any] | None:
    """The facts of a shard, from the file beside it; `None` if either is not what was written.

    Args:
        path: of the shard.
        of: the signature of the teacher and of what is kept.
    """
    try:
        facts = read_json(path.with_suffix(".json"))
        same = facts["file"] == path.name and facts["of"] == of
        return facts if same and sha256_of(path) == facts["sha256"] else None
    except (FileNotFoundError, DamagedCacheError, KeyError):
        return None


def fingerprint_of(about: Mapping[str, Any]) -> str:
    """The teacher's, of what a manifest says."""
    return str(about.get("teacher", {}).get("fingerprint", ""))


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
        if not (self.folder / MANIFEST).is_file():
            begun = any(self.folder.glob("shard-*.safetensors"))
            raise FileNotFoundError(
                f"There is no {MANIFEST} in {self.folder}: "
                + (
                    "the cache was begun and not finished; give the command that made it again, "
                    "which goes on where it was."
                    if begun
                    else "write the teacher's answers there first, with job=cache."
                )
            )
        manifest = read_json(self.folder / MANIFEST)
        if manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
            raise ValueError(
                f"{self.folder / MANIFEST} is of format {manifest.get('format')!r} version "
                f"{manifest.get('version')!r}; this program reads {FORMAT!r} version {VERSION}."
            )
        self.about: dict[str, Any] = manifest["about"]
        self.answers = {a["name"]: Answer.from_settings(a) for a in manifest["answers"]}
        self.shards: list[dict[str, Any]] = manifest["shards"]
        self._head_facts: dict[str, Any] | None = manifest.get("heads")
        self._heads: dict[str, Head] | None = None
        teacher = fingerprint_of(self.about)
        self._marks = {name: answer.mark(teacher) for name, answer in self.answers.items()}
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
        high, low, place = (self._index[name] for name in ("high", "low", "place"))
        at = _search(high, ids[:, 0])
        found = np.full(len(ids), -1, dtype=np.int64)
        open_ = np.arange(len(ids))
        # Rows that share 64 bits, next to each other, are told apart by the other 64.
        while len(open_):
            inside = at[open_] < len(high)
            open_ = open_[inside]
            open_ = open_[high[at[open_]] == ids[open_, 0]]
            same = low[at[open_]] == ids[open_, 1]
            found[open_[same]] = place[at[open_[same]]]
            open_ = open_[~same]
            at[open_] += 1
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


def _search(
    high: Int64[np.ndarray, " all"], wanted: Int64[np.ndarray, " rows"]
) -> Int64[np.ndarray, " rows"]:
    """As `np.searchsorted`, and of a column on disk a few pages near each other are read.

    Ids are digests, so that they lie evenly: where one is can be told to within some square roots
    of how many there are. Where that is wrong, as for ids of another kind, all are searched.
    """
    count = len(high)
    near = 2 * math.isqrt(count) + 1
    guesses = ((wanted.astype(np.float64) + 2.0**63) * (count / 2.0**64)).astype(np.int64)
    found = np.empty(len(wanted), dtype=np.int64)
    for i, guess in enumerate(guesses.tolist()):
        start, stop = max(guess - near, 0), min(guess + near, count)
        place = start + int(high[start:stop].searchsorted(wanted[i]))
        if (place == start > 0) or (place == stop < count):
            place = int(high.searchsorted(wanted[i]))
        found[i] = place
    return found
