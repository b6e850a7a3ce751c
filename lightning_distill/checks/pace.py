"""How long the steps of a training take, told from its first batches."""

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import lightning as L
import torch

from ..models.batch import tensors
from .finding import Finding

# The first steps wait for memory and kernels.
WARM_UP, LEAST, MOST = 2, 4, 40


class Pace(L.Callback):
    """Takes the time of the first batches of a training.

    Args:
        enough: seconds after which no further batch is measured.
        clock: what they are read from.

    Attributes:
        seconds: of each measured batch, from the end of one to that of the next.
        sizes: numbers that each of them holds.
        total: how many steps the run will take; infinite for a stream without an end.
        accumulated: batches of a step.
    """

    def __init__(self, enough: float = 2.0, clock: Callable[[], float] = time.perf_counter):
        self.enough, self.clock = enough, clock
        self.seconds: list[float] = []
        self.sizes: list[int] = []
        self.total, self.accumulated = math.inf, 1
        self._seen, self._last = 0, 0.0

    @property
    def is_enough(self) -> bool:
        """Whether so many batches were measured that their mean tells something."""
        count = len(self.seconds)
        return count >= MOST or (count >= LEAST and sum(self.seconds) >= self.enough)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """See how long the run will be."""
        steps = trainer.estimated_stepping_batches
        self.total = math.inf if steps < 0 else float(steps)
        self.accumulated = trainer.accumulate_grad_batches
        self._last = self.clock()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Take the time of a batch."""
        if trainer.strategy.root_device.type == "cuda":
            # Kernels are only queued when a step returns.
            torch.cuda.synchronize()
        now = self.clock()
        self._seen += 1
        if self._seen > WARM_UP:
            self.seconds.append(now - self._last)
            self.sizes.append(size_of(batch))
        self._last = now


def size_of(batch: Any) -> int:
    """How many numbers a batch holds; what a step takes grows with it."""
    return sum(tensor.numel() for tensor in tensors(batch))


def seconds_at(pace: Pace, size: float) -> float:
    """What a batch of this size takes: as a line through those that were measured.

    Args:
        pace: after it was in a training.
        size: see [`size_of`][].
    """
    seconds, sizes = statistics.fmean(pace.seconds), statistics.fmean(pace.sizes)
    spread = statistics.pvariance(pace.sizes)
    if not spread:
        return seconds
    pairs = zip(pace.sizes, pace.seconds, strict=True)
    slope = statistics.fmean((x - sizes) * (y - seconds) for x, y in pairs) / spread
    # Neither does a larger batch take less, nor an empty one less than nothing.
    slope = min(max(slope, 0.0), seconds / sizes)
    return seconds + slope * (size - sizes)


def check_pace(pace: Pace, size: float | None = None) -> Finding:
    """How long a step takes, and all of them.

    Args:
        pace: after it has measured batches.
        size: of batches in the mean, see [`size_of`][]; by default that of those measured.
    """
    each = seconds_at(pace, statistics.fmean(pace.sizes) if size is None else size)
    each *= pace.accumulated
    found = f"{each:.3g} s per step, measured on {len(pace.seconds)} batches"
    brief = f"Time: {each:.3g} s per step"
    if math.isfinite(pace.total):
        all_steps = f"about {in_words(each * pace.total)} for all"
        found += f"; {all_steps} steps, without validation"
        brief += f", {all_steps} {pace.total:,.0f} steps, without validation"
    return Finding("cost.seconds", "time", found, brief=brief)


def in_words(seconds: float) -> str:
    """A time as people say it, such as `2 h 5 min`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
