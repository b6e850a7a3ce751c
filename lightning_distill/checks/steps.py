"""The first steps of a training: how long they take, how far they go, and the whole schedule."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import lightning as L
import torch
from rich.filesize import decimal
from torch import nn, Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ..training.scheduling import scheduler_config
from .finding import Finding, Level
from .pace import check_pace, Pace

# So many weights tell how far a step goes.
WEIGHTS = 10_000_000
# A step that changes weights by as much as they are, and a run in which none can move.
TOO_FAR, NOWHERE = 1.0, 1e-4
# Longer runs are not gone through step by step.
LONGEST = 200_000
# Of the learning rate that was asked for.
HALF = 0.5


class FirstSteps(Pace):
    """Takes the first steps of a training and then ends it.

    Args:
        enough: seconds after which no further step is measured.
        clock: what they are read from.

    Attributes:
        batches: of an epoch.
        epochs: of the run; `None` where steps are counted.
        rates: the learning rate of each step; empty if that is not known before.
        asked: the learning rate of the optimizer, without a schedule.
        refused: what the scheduler says of the steps; `None` if it can take them all.
        moved: of how much of their size the weights change in a step at the highest learning rate.
        finite: whether every loss was a number.
        peak: bytes of memory on an accelerator; `None` on a CPU.
    """

    def __init__(self, enough: float = 2.0, clock: Callable[[], float] = time.perf_counter):
        super().__init__(enough, clock)
        self.batches = 0.0
        self.epochs: int | None = None
        self.rates: list[float] = []
        self.asked = self.moved = math.nan
        self.refused: str | None = None
        self.finite = True
        self.peak: int | None = None
        self._before: list[Tensor] | None = None
        self._rate = math.nan

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Go through the schedule of the whole run."""
        super().on_train_start(trainer, pl_module)
        self.batches, self.epochs = float(trainer.num_training_batches), trainer.max_epochs
        self._go_through(trainer, pl_module)
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def _go_through(self, trainer: L.Trainer, module: Any) -> None:
        optimizer = module.optimizer([{"params": [nn.Parameter(torch.zeros(1))]}])
        self.asked = float(optimizer.param_groups[0]["lr"])
        if not self.total <= LONGEST:
            return
        by_step, scheduler = True, None
        if module.scheduler is not None:
            found = scheduler_config(module.scheduler, optimizer, module.watched(), trainer)
            scheduler, by_step = found["scheduler"], found["interval"] == "step"
        if isinstance(scheduler, ReduceLROnPlateau):
            return
        every = 1 if by_step else max(round(self.batches / self.accumulated), 1)
        optimizer.step()
        for step in range(int(self.total)):
            self.rates.append(float(optimizer.param_groups[0]["lr"]))
            # What follows the last step counts no more.
            if scheduler is None or (step + 1) % every or step + 1 == self.total:
                continue
            try:
                scheduler.step()
            except ValueError as error:
                self.refused = f"at step {step + 1} of {self.total:.0f}: {error}"
                return

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Keep the weights as they are before the first step."""
        if self._before is None:
            self._before = [p.detach().clone() for p in _some(pl_module)]
            self._rate = float(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Take the time, and end the training after enough steps."""
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        self.finite &= loss is None or math.isfinite(float(loss))
        if self._before is not None and math.isnan(self.moved):
            self._look_how_far(pl_module)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self.is_enough or not self.finite:
            self._end(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """An epoch is enough, however short it is."""
        self._end(trainer)

    def _end(self, trainer: L.Trainer) -> None:
        trainer.should_stop = True
        if trainer.strategy.root_device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated()

    def _look_how_far(self, module: L.LightningModule) -> None:
        assert self._before is not None
        pairs = list(zip(self._before, _some(module), strict=True))
        size = math.sqrt(sum(float(old.float().square().sum()) for old, _ in pairs))
        far = math.sqrt(sum(float((new - old).float().square().sum()) for old, new in pairs))
        highest = max([*self.rates, self.asked])
        self.moved = far / size * highest / self._rate if size and self._rate else 0.0
        self._before = []


def _some(module: Any) -> Iterator[Tensor]:
    left = WEIGHTS
    for parameter in module.student.parameters():
        if parameter.requires_grad and left > 0:
            left -= parameter.numel()
            yield parameter.detach()


def check_steps(first: FirstSteps, rows: int | None, size: float) -> Iterator[Finding]:
    """What the first steps and the schedule show.

    Args:
        first: after it was in a training.
        rows: how many training rows there are; `None` where nobody knows.
        size: of batches in the mean, see [`size_of`][].
    """
    yield from _length(first, rows)
    yield from _rates(first)
    yield from _size(first)
    if not first.finite:
        found = "is no number after the first steps"
        do = "Lower optimizer.lr, or train in another precision (trainer.precision=bf16-mixed)."
        yield Finding("step.finite", "loss", found, Level.WRONG, do)
    if first.seconds:
        yield check_pace(first, size)
    if first.peak is not None:
        yield Finding("cost.measured", "memory", f"{decimal(first.peak)} measured in a step")


def _length(first: FirstSteps, rows: int | None) -> Iterator[Finding]:
    if not math.isfinite(first.total):
        yield Finding("schedule.steps", "steps", "as many as the stream has", Level.UNKNOWN)
        return
    found = f"{first.total:.0f}"
    if not math.isfinite(first.batches) or not first.batches:
        yield Finding("schedule.steps", "steps", found)
        return
    epochs = first.total * first.accumulated / first.batches
    found += f", which are {epochs:.3g} epochs of {first.batches:.0f} batches"
    if first.batches <= first.accumulated and (rows or 2) > 1:
        do = "Lower data.batch_size or trainer.accumulate_grad_batches: few steps learn little."
        found += ": one step is all of the data"
        yield Finding("schedule.one_step", "steps", found, Level.WARNING, do)
    elif epochs < HALF:
        do = "Most rows are never learnt from: raise trainer.max_steps or trainer.max_epochs."
        yield Finding("schedule.few_rows", "steps", found, Level.WARNING, do)
    else:
        yield Finding("schedule.steps", "steps", found)


def _rates(first: FirstSteps) -> Iterator[Finding]:
    if first.refused is not None:
        found = f"the scheduler ends before the training does, {first.refused}"
        do = "Leave out its number of steps: it takes that of the run."
        yield Finding("schedule.ends", "learning rate", found, Level.WRONG, do)
        return
    if not first.rates:
        yield Finding("schedule.rate", "learning rate", f"{first.asked:g} to begin with")
        return
    highest = max(first.rates)
    at = first.rates.index(highest) + 1
    found = f"highest {highest:.3g} at step {at} of {len(first.rates)}, {first.rates[-1]:.3g} at "
    found += "the end"
    if highest >= HALF * first.asked:
        yield Finding("schedule.rate", "learning rate", found)
        return
    found += f"; optimizer.lr is {first.asked:.3g}"
    do = "The schedule is longer than the training: leave out its number of steps, or train longer."
    yield Finding("schedule.longer", "learning rate", found, Level.WARNING, do)


def _size(first: FirstSteps) -> Iterator[Finding]:
    if math.isnan(first.moved):
        return
    found = f"changes the weights by {first.moved:.2g} of their size at the highest learning rate"
    steps = first.total if math.isfinite(first.total) else LONGEST
    if first.moved > TOO_FAR:
        do = "What they know is gone after one step: lower optimizer.lr (null is what suits)."
        yield Finding("step.too_far", "first step", found, Level.WRONG, do)
    elif first.moved * steps < NOWHERE:
        found += f", and all {steps:.0f} together by less than {NOWHERE:g}"
        do = "Nothing can be learnt: raise optimizer.lr (null is what suits)."
        yield Finding("step.nowhere", "first step", found, Level.WRONG, do)
    else:
        yield Finding("step.size", "first step", found)
