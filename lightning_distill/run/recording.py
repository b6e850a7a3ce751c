"""Ask a teacher every row, and keep all that it answers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_only
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..cache import Plan
from ..models.source import Source
from ..overrides import quoted
from ..teachers import CachingTeacher
from ..teachers.keeper import KeepsTeachers
from ..teachers.plan_of import plan_of
from ..teachers.teacher import Asker
from .every_row import Batch
from .stage import say

# Rows of a file at most: more would be many to write again after a kill.
MOST_ROWS = 262_144


class Recording(KeepsTeachers, L.LightningModule):
    """Runs a teacher over batches and lets it write them; Lightning brings devices and ranks.

    Shard n is written by rank n modulo the number of ranks, in batches that do not depend on them
    nor on what was written before, so that the files are the same however often it was begun.

    Args:
        teacher: that answers and keeps.
        asker: who says what the teacher is given.
        data: with `rows_dataloader(batches)`.
        sources: of the teacher.
        plan: what is kept, with `rows`, `rows_per_shard` and `bytes_per_row` among its data.
        batches: all rows.
    """

    asker: Any

    def __init__(
        self,
        teacher: CachingTeacher,
        asker: Asker,
        data: Any,
        sources: Sequence[Source],
        plan: Plan,
        batches: Sequence[Batch],
    ):
        super().__init__()
        self.teacher, self.data, self.sources, self.plan = teacher, data, list(sources), plan
        # Within a function it is no submodule: what it says is asked for, and it is not moved.
        self.asker: Callable[[], Asker] = lambda: asker
        self.shards = list(shards_of(batches, plan.data["rows_per_shard"]))
        # Of every batch that this rank still has to do: the shard that it ends, if it ends one.
        self.ends: list[int | None] = []
        self.progress: Progress | None = None

    def setup(self, stage: str) -> None:
        """Open the folder."""
        trainer = self.trainer
        barrier = trainer.strategy.barrier
        self.teacher.begin(self.global_rank, barrier, str(trainer.precision), self.plan)

    def predict_dataloader(self) -> Any:
        """The batches of those shards of this rank that are not written yet."""
        rank, world = self.trainer.global_rank, self.trainer.world_size
        todo: list[Batch] = []
        done = 0
        for number, batches in enumerate(self.shards):
            if self.teacher.writer.folder.whole(shard_name(number), self.plan) is not None:
                done += sum(len(rows) for _, rows, _ in batches)
            elif number % world == rank:
                todo += batches
                self.ends += [None] * (len(batches) - 1) + [number]
        self._show_progress(done)
        return self.data.rows_dataloader(todo)

    def on_predict_start(self) -> None:
        """Put the teacher on the device."""
        self.teacher.settle(self.device)

    def predict_step(self, batch: Any, batch_idx: int) -> None:
        """Ask the teacher, and write the shard that is full."""
        rows = self.teacher.record(self.asker(), batch, self.sources)
        number = self.ends[batch_idx]
        if number is not None:
            self.teacher.writer.write(shard_name(number))
        if self.progress is not None:
            # The others are about as far.
            done = self.progress.tasks[0].completed + rows * self.trainer.world_size
            done = min(done, self.plan.data["rows"])
            self.progress.update(self.task, completed=done, size=self._size(done))

    def on_predict_end(self) -> None:
        """Make a cache of what all ranks wrote; a rank that had nothing to do calls it itself."""
        self.teacher.end(self.trainer.strategy.barrier)

    def teardown(self, stage: str) -> None:
        """Leave the console as it was."""
        if self.progress is not None:
            self.progress.stop()

    @rank_zero_only
    def say_what_was_kept(self, seconds: float) -> None:
        """How much, and how to train from it.

        Args:
            seconds: that it took.
        """
        store, rows = self.teacher.store, self.plan.data["rows"]
        assert store is not None
        names = [f"{a.name} ({a.encoding.settings()['kind']})" for a in store.answers.values()]
        kept = ", ".join([*names, *(f"head:{path} (once)" for path in store.head_names)])
        say("Kept", f"{kept}: {decimal(store.bytes)}, {store.bytes / max(rows, 1):.0f} bytes a row")
        train = f"teacher=cached {quoted('teacher.folder', store.folder)}"
        say("Written", f"{rows:,} rows in {seconds:.0f} s. Train: {train}")

    @rank_zero_only
    def _show_progress(self, done: int) -> None:
        self.progress = Progress(
            TextColumn("rows"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[size]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        total, size = self.plan.data["rows"], self._size(done)
        self.task = self.progress.add_task("rows", total=total, completed=done, size=size)
        self.progress.start()

    def _size(self, rows: float) -> str:
        return decimal(int(rows * self.plan.data["bytes_per_row"]))


def shard_name(number: int) -> str:
    """The name of a file without its ending."""
    return f"shard-{number:05d}"


def shards_of(batches: Sequence[Batch], rows_per_shard: int) -> Iterator[list[Batch]]:
    """Batches in groups of about so many rows."""
    group: list[Batch] = []
    count = 0
    for batch in batches:
        group.append(batch)
        count += len(batch[1])
        if count >= rows_per_shard:
            yield group
            group, count = [], 0
    if group:
        yield group


def plan_recording(
    teacher: CachingTeacher,
    asker: Asker,
    data: Any,
    sources: Sequence[Source],
    batches: Sequence[Batch],
    precision: str,
    shard_mb: float,
    **about: Any,
) -> Plan:
    """What is written of all rows: two runs with equal plans write equal files.

    Args:
        teacher: that answers and keeps.
        asker: who says what the teacher is given.
        data: with `rows_dataloader(batches)`, `row_lengths()`, `preprocessing()` and
            `fingerprint()`.
        sources: of the teacher.
        batches: all rows.
        precision: the trainer's.
        shard_mb: megabytes of a file, about.
        about: more that shall be equal.
    """
    lengths = [n for each in data.row_lengths().values() for n in each]
    known = {
        "preprocessing": data.preprocessing(),
        "data": data.fingerprint(),
        "rows": sum(len(rows) for _, rows, _ in batches),
        "one_length": len({int(length) for length in lengths}) == 1,
        "batch_size": max((len(rows) for _, rows, _ in batches), default=0),
        **about,
    }
    batch = next(iter(data.rows_dataloader(batches[-1:])))
    plan = plan_of(teacher.live, asker, batch, sources, teacher.encoding, precision, known)
    per_row = plan.bytes_per_row(sum(lengths) / max(len(lengths), 1))
    rows = max(1, min(MOST_ROWS, int(shard_mb * 2**20 / per_row)))
    count = len(list(shards_of(batches, rows)))
    sizes = {"bytes_per_row": per_row, "rows_per_shard": rows, "shards": count}
    return replace(plan, data={**known, **sizes})
