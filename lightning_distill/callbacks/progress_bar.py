"""A bar on one line, which counts epochs as people do."""

import math
import time
from datetime import timedelta
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar
from rich import get_console
from rich.progress import ProgressColumn, Task
from rich.text import Text

BAR = 12
# What stands beside the metrics: the epoch, the bar, the batches and the time left.
BESIDE = len("Epoch 10 of 12 ") + BAR + len(" 1000/1000 10:00:00 left ")


class ProgressBar(RichProgressBar):
    """As Lightning's, with `Epoch 1 of 12` for the first of twelve, and on one line.

    The time left is that of the whole training, and not of the epoch. Metrics lose `train/` and
    `val/`, and those that do not fit into the width of the terminal are left out.
    """

    _begun: tuple[float, int] = (0.0, 0)
    _steps: float = math.inf

    def configure_columns(self, trainer: L.Trainer) -> list[Any]:
        """What is shown, from left to right."""
        description, bar, batches, *_ = super().configure_columns(trainer)
        bar.bar_width = BAR
        return [description, bar, batches, _TimeLeft(self)]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to measure; a run that goes on has made steps before."""
        self._begun = time.monotonic(), trainer.global_step
        self._steps = trainer.estimated_stepping_batches
        super().on_train_start(trainer, pl_module)

    def get_metrics(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """What the bar shows of the metrics: as many as fit."""
        room, found = get_console().width - BESIDE, {}
        for name, value in super().get_metrics(trainer, pl_module).items():
            short = name.removeprefix("train/").removeprefix("val/")
            if name == "v_num" or short in found:
                continue
            shown = f"{value:{self.theme.metrics_format}}" if isinstance(value, float) else value
            room -= len(f"{short}: {shown} ")
            if room < 0:
                break
            found[short] = value
        return found

    def seconds_left(self, task: Task) -> float | None:
        """Of the whole training, or of a validation or test; `None` if nobody knows."""
        if task.id != self.train_progress_bar_id:
            return task.time_remaining
        start, before = self._begun
        done = self.trainer.global_step - before
        if done <= 0 or not math.isfinite(self._steps):
            return None
        each = (time.monotonic() - start) / done
        return max(self._steps - self.trainer.global_step, 0) * each

    def _get_train_description(self, current_epoch: int) -> str:
        epochs = self.trainer.max_epochs
        limited = epochs is not None and epochs > 0
        text = f"Epoch {current_epoch + 1}" + (f" of {epochs}" if limited else "")
        return text.ljust(len(self.validation_description))


class _TimeLeft(ProgressColumn):
    def __init__(self, bar: ProgressBar):
        self.bar = bar
        super().__init__()

    def render(self, task: Task) -> Text:
        seconds = self.bar.seconds_left(task)
        if seconds is None:
            return Text("")
        return Text(f"{timedelta(seconds=round(seconds))} left", no_wrap=True)
