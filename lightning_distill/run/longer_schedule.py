"""A schedule over the whole run, for a run that is made longer."""

import copy
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

# What torch's schedulers keep of the length that they were made for, and read from checkpoints.
LENGTHS = ("total_steps", "_schedule_phases", "T_max", "total_iters")


class LongerSchedule(Callback):
    """Schedules of a resumed run have the length of the run as it is now, and not as it was."""

    def __init__(self) -> None:
        self._lengths: list[dict[str, Any]] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remember the lengths, before a checkpoint is read."""
        self._lengths = [copy.deepcopy(_lengths(one)) for one in _schedulers(trainer)]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put them back."""
        for scheduler, lengths in zip(_schedulers(trainer), self._lengths, strict=True):
            vars(scheduler).update(lengths)


def _schedulers(trainer: L.Trainer) -> list[Any]:
    found = [config.scheduler for config in trainer.lr_scheduler_configs]
    for scheduler in found:
        # Of those that are made of others.
        found += getattr(scheduler, "_schedulers", [])
    return found


def _lengths(scheduler: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(scheduler).items() if name in LENGTHS}
