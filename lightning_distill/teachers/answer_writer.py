"""Writes the answers of a run into a folder: the one program that does."""

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..cache import AnswerStore, CacheFolder, EncodedRows, Plan, ShardWriter
from ..cache.manifest import MANIFEST
from ..models.head import Head


class AnswerWriter:
    """Rows on their way into a folder, of one rank of a run.

    Args:
        path: of the folder.
        shard_bytes: how many bytes are collected before they are written.
        head_of: from a path to the teacher's head.

    Attributes:
        folder: that is written into.
        precision: that of the run; `None` while none goes on, and nothing is written.
    """

    def __init__(self, path: Path, shard_bytes: int, head_of: Callable[[str], Head]):
        self.folder = CacheFolder(path)
        self.shard_bytes, self._head_of = shard_bytes, head_of
        self.precision: str | None = None
        self._shard: ShardWriter | None = None
        self._pending: set[bytes] = set()
        self._rank, self._run, self._written = 0, "", 0

    @property
    def plan(self) -> Plan | None:
        """What is kept; `None` before the first rows of a new folder."""
        return self.folder.plan

    def open(
        self,
        rank: int,
        barrier: Callable[[], None],
        precision: str,
        wanted: Callable[[Plan], Mapping[str, Any]],
        plan: Plan | None,
    ) -> None:
        """Lock the folder, and make a cache of what a run that was killed left.

        Args:
            rank: of this process.
            barrier: returns when all ranks have called it.
            precision: the trainer's.
            wanted: from the plan of the folder to how answers are to be made.
            plan: what is written, if that is known.

        Raises:
            ValueError: if another process writes into it, or if it holds other answers.
        """
        # What a run that raised left on its way is of its precision.
        self._shard, self._rank, self._written = None, rank, 0
        self._pending.clear()
        # A name of its own for each run, later ones behind: nothing is ever written over.
        self._run = f"{time.time_ns() // 10**6:012x}{secrets.token_hex(2)}"
        if rank == 0:
            self.folder.open(wanted, plan)
            if plan is None:
                self.folder.index(self._head_of)
        elif plan is not None:
            # Checked by the first rank, which alone opens the folder.
            self.folder.plan = plan
        barrier()
        self.precision = precision

    def begin(self, plan: Plan) -> None:
        """Write what is kept, which each rank finds by itself: the same."""
        self.folder.begin(plan)

    def add(
        self, ids: np.ndarray, values: Mapping[str, Tensor], lengths: Sequence[int] | None
    ) -> None:
        """Take the answers to rows.

        Args:
            ids: of the rows.
            values: by name, (rows, ...).
            lengths: tokens of each row.
        """
        self._collected().add(ids, values, lengths)

    def add_new(self, rows: EncodedRows) -> None:
        """Take the answers to those rows that were not taken before, and write them if many are.

        Args:
            rows: what is kept of them may be missing, and then nothing is written.
        """
        shard = self._collected()
        if not {answer.name for answer in shard.answers} <= rows.answers.keys():
            # Another objective asks for less, such as that of a student without a teacher.
            return
        new = []
        for i, row in enumerate(rows.ids):
            if row.tobytes() not in self._pending:
                self._pending.add(row.tobytes())
                new.append(i)
        if new:
            shard.add_rows(rows.take(np.array(new)))
        if shard.bytes >= self.shard_bytes:
            self.write()

    def write(self, name: str | None = None) -> None:
        """Write what was collected, if anything was.

        Args:
            name: of the file, without its ending; one that no run gives again by default.
        """
        if self._shard is not None and len(self._shard):
            own = f"shard-{self._run}-{self._rank:03d}-{self._written:05d}"
            self._shard.write(name or own)
            self._written += 1

    def finish(self, barrier: Callable[[], None]) -> None:
        """Write what is left, and make a cache of what all ranks wrote."""
        self.write()
        barrier()
        if self._rank == 0:
            self.folder.index(self._head_of)
        barrier()

    def close(self) -> None:
        """Let others write."""
        self.precision = None
        if self._rank == 0:
            self.folder.close()

    def store(self) -> AnswerStore | None:
        """What can be read; rows that were on their way are taken for read from now on."""
        if not (self.folder.path / MANIFEST).is_file():
            return None
        self.folder.plan = Plan.read(self.folder.path)
        self._pending.clear()
        return AnswerStore(self.folder.path)

    def _collected(self) -> ShardWriter:
        assert self.plan is not None
        if self._shard is None:
            self._shard = ShardWriter(self.folder.path, self.plan.answers, self.plan.identity)
        return self._shard
