"""Compare the answers of a cache with those of the live teacher."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table

from ..cache import AnswerStore, row_ids, row_lengths
from ..cache.plan import check_same
from ..cache.verify import Verification
from ..models.forward import kept_heads
from ..models.source import Source
from ..teachers import Teacher
from ..teachers.answers import raw_values
from ..teachers.keeper import KeepsTeachers
from ..teachers.recall import read_answers
from ..teachers.teacher import Asker
from ..training.module import DistillationModule
from .cached_teacher import check_preprocessing
from .every_row import Batch, every_row


def verify(
    trainer: L.Trainer,
    module: DistillationModule,
    data: Any,
    folder: Path,
    rows: int,
    tolerance: float,
    seed: int = 0,
) -> float:
    """The largest difference of some answers from those of the module's teacher.

    Args:
        trainer: brings device and precision.
        module: that has the teacher, and says what it is given.
        data: with `rows_dataloader(batches)`, `row_lengths()` and `preprocessing()`.
        folder: of the cache.
        rows: how many rows are compared.
        tolerance: how far answers may be off, as a share of the largest value.
        seed: draws the rows.

    Raises:
        ValueError: if a file is damaged, if another teacher answered or under another precision,
            and if answers are off.
    """
    store = AnswerStore(folder)
    damaged = store.check_files()
    if damaged:
        raise ValueError(
            f"{', '.join(damaged[:3])} in {folder} is not what was written. Give the command that "
            "made the cache again: it writes what is damaged."
        )
    assert module.teacher is not None
    teacher = Teacher.of(module.teacher)
    now = {"teacher": {"fingerprint": teacher.fingerprint}, "precision": str(trainer.precision)}
    check_same(folder, store.about, now, "Name the teacher that answered, and that precision.")
    check_preprocessing(store, data)
    comparing = _Comparing(teacher, module, data, store, _drawn(data, rows, seed))
    trainer.predict(comparing)
    _show(comparing.verification, len(comparing.batches))
    return comparing.verification.check(tolerance)


def _drawn(data: Any, rows: int, seed: int) -> list[Batch]:
    """Some rows, each a batch of its own."""
    everything = [(split, [row], view) for split, own, view in every_row(data, 1) for row in own]
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(everything), generator=generator)[:rows].tolist()
    return [everything[i] for i in sorted(chosen)]


class _Comparing(KeepsTeachers, L.LightningModule):
    asker: Any

    def __init__(
        self,
        teacher: Teacher,
        asker: DistillationModule,
        data: Any,
        store: AnswerStore,
        batches: Sequence[Batch],
    ):
        super().__init__()
        self.teacher, self.data, self.batches = teacher, data, batches
        self.verification = Verification(store)
        # Within a function it is no submodule: what it says is asked for, and it is not moved.
        self.asker: Callable[[], Asker] = lambda: asker
        # A source for each answer, and for each head.
        names = [*store.answers, *(f"head:{path}" for path in store.head_names)]
        self.sources = [Source.parse(f"teacher.{name}") for name in names]

    def predict_dataloader(self) -> Any:
        return self.data.rows_dataloader(self.batches)

    def on_predict_start(self) -> None:
        self.teacher.settle(self.device)

    def predict_step(self, batch: Any, batch_idx: int) -> None:
        how = "skipped" if kept_heads(self.sources) else "whole"
        answered = self.teacher.answers(batch, self.sources, self.asker(), how)
        inputs = self.asker().teacher_inputs(batch)
        store = self.verification.store
        kept = read_answers(store, inputs, list(store.answers), batch.get("row"))
        live = raw_values(self.sources, *answered)
        self.verification.add(live, kept, row_ids(inputs), row_lengths(inputs))


@rank_zero_only
def _show(verification: Verification, rows: int) -> None:
    store = verification.store
    table = Table(title=f"{rows} of {len(store):,} rows of {store.folder} and the live teacher")
    for head in ("answer", "kept as", "largest difference", "largest value"):
        table.add_column(head, justify="left" if head in ("answer", "kept as") else "right")
    for name, answer in store.answers.items():
        settings = answer.encoding.settings()
        kind = " ".join(str(settings[key]) for key in ("kind", "dtype") if key in settings)
        off, most = verification.differences[name], verification.largest[name]
        table.add_row(name, kind, f"{off:.3g}", f"{most:.3g}")
    Console().print(table)
