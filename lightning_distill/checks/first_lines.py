"""The first lines of a run: what `job=check` says of it, as far as that costs next to nothing."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from rich import get_console

from ..cache.row_id import row_lengths
from ..callbacks.one_shot import is_one_shot
from ..callbacks.random_state import random_state, set_random_state
from ..data.some_rows import are_numbered, some_batches
from ..metrics.traits import needs_teacher
from ..models.batch import row_count
from ..models.inputs import model_inputs
from ..tasks import Task
from ..training.look import Look
from ..training.trial import is_several
from ..training.weak_teacher import WeakTeacher
from .finding import Finding, Findings, Level
from .learnt import check_learnt
from .pace import check_pace, Pace
from .sides import check_labels, check_pictures, check_tokenizers
from .start import check_sizes, check_start
from .teacher import check_teacher

log = logging.getLogger("lightning_distill")

# So much is looked at: rows, and tokens of them, but one batch at least.
ROWS, TOKENS = 256, 16_384


@dataclass
class Known:
    """What a run knows of itself, beside its module.

    Attributes:
        data: the data module, set up.
        metrics: by name.
        monitor: the metric that decides, without `val/`.
        tokenizers: where those of `student` and `teacher` lie.
        processors: what of pictures came with `student` and `teacher`.
        becomes_sparse: whether weights of the student are made 0 while it learns.
        is_compiled: whether models are compiled: then they are not asked before the first step.
    """

    data: Any
    metrics: Mapping[str, Any] = field(default_factory=dict)
    monitor: str = "loss"
    tokenizers: Mapping[str, str | None] = field(default_factory=dict)
    processors: Mapping[str, Any] = field(default_factory=dict)
    becomes_sparse: bool = False
    is_compiled: bool = False


class FirstLines(Pace):
    """Says before the first step what the student is and is not, and after some what they take.

    Of a run that goes on only the time of its steps is said. The training is the same, bit for bit,
    as without these lines.

    Args:
        known: of the run.
        weak_teacher: that has measured the teacher before, if any did.
    """

    def __init__(self, known: Known, weak_teacher: WeakTeacher | None = None):
        super().__init__()
        self.known, self.weak_teacher = known, weak_teacher
        self._has_said = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the models and the rows, and say what is found."""
        self._has_said = False
        if trainer.global_step == 0:
            state = random_state(pl_module.device)
            try:
                findings = self._look(pl_module)
            finally:
                set_random_state(state, pl_module.device)
            say_findings(findings)
        super().on_train_start(trainer, pl_module)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Say how long a step takes, as soon as enough were made, where no bar shows it."""
        if self._has_said:
            return
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self.is_enough:
            self._has_said = True
            if trainer.progress_bar_callback is None or not get_console().is_terminal:
                say_findings([check_pace(self)])

    def _look(self, module: Any) -> list[Finding]:
        known, task = self.known, module.task or Task()
        findings, batches = Findings(), []
        try:
            findings.add(check_sizes(module.student, module.taught_by))
            findings.add(check_labels(known.data, module.student, module.taught_by, task))
            findings.add(check_pictures(known.data, known.processors))
            findings.add(self._training_rows(module))
            if not known.is_compiled:
                batches = list(validation_batches(module, known.data))
        except Exception as error:
            # Data and models that can be trained need not be able to do what is asked here.
            text = " ".join(str(error).split())
            log.warning("First lines: left out, for %s: %s", type(error).__name__, text)
        # As many on each process: what counts in them is added up.
        number = torch.tensor(len(batches), device=module.device)
        count = int(module.trainer.strategy.reduce(number, reduce_op="min"))
        if count:
            findings.add(self._at_the_start(module, batches[:count], task))
        return findings.all

    def _training_rows(self, module: Any) -> Iterator[Finding]:
        known = self.known
        if not are_numbered(known.data, "train"):
            # They may be gone once they were read, or come in another order.
            return
        rows = rows_to_look_at(known.data, "train")
        batches = list(some_batches(known.data, "train", rows))
        yield from check_tokenizers(known.data, known.tokenizers, batches[0])
        yield from check_learnt(batches, module, known.data)

    def _at_the_start(self, module: Any, batches: list[Any], task: Task) -> Iterator[Finding]:
        known = self.known
        measured = Look(module).of(batches, known.data)
        rows = sum(map(row_count, batches))
        said = None if self.weak_teacher is None else self.weak_teacher.found
        if said is None or said.name != known.monitor:
            metric = known.metrics.get(known.monitor)
            yield from check_teacher(measured, known.monitor, metric, rows, None, task)
        compared = [name for name, metric in known.metrics.items() if needs_teacher(metric)]
        yield from check_start(measured, module.objective, compared, known.becomes_sparse)
        yield Finding("start.rows", "rows", f"{rows}", brief=f"Start: on {rows} validation rows")


def rows_to_look_at(data: Any, split: str) -> int:
    """How many rows have as many tokens as are looked at."""
    lengths = np.asarray(data.row_lengths()[split])
    mean = max(float(lengths.mean()), 1.0) if len(lengths) else 1.0
    return max(min(ROWS, int(TOKENS / mean)), 1)


def validation_batches(module: Any, data: Any) -> Iterator[Any]:
    """Some batches of validation rows; none where they cannot be read once more."""
    if not module.trainer.enable_validation:
        return
    loader = data.val_dataloader()
    if is_several(loader) or is_one_shot(loader):
        return
    if are_numbered(data, "validation"):
        first = next(iter(loader), None)
        if first is not None:
            rows = rows_to_look_at(data, "validation")
            yield from some_batches(data, "validation", rows, min(row_count(first), rows))
        return
    yield from _as_many(loader, module)


def _as_many(loader: Iterable[Any], module: Any) -> Iterator[Any]:
    rows = tokens = 0
    for batch in islice(loader, ROWS):
        if rows >= ROWS or tokens >= TOKENS:
            return
        rows += row_count(batch)
        tokens += sum(row_lengths(model_inputs(batch, module.student)) or [])
        yield batch


@rank_zero_only
def say_findings(findings: Iterable[Finding]) -> None:
    """A line for each kind of finding, and a warning for each that asks for something."""
    lines: dict[str, list[str]] = {}
    for finding in findings:
        if finding.level in (Level.WARNING, Level.WRONG):
            log.warning("%s: %s. %s", finding.about, finding.found, finding.do)
        elif finding.brief:
            title, _, words = finding.brief.partition(": ")
            lines.setdefault(title, []).append(words)
    for title, each in lines.items():
        log.info("%s: %s", title, ", ".join(each))
