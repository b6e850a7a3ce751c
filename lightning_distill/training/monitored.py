"""What chooses the best weights must have been measured."""

import warnings
from collections.abc import Iterable
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint


def check_measured(
    trainer: L.Trainer, stage: str, expected: Iterable[str], found: set[str]
) -> None:
    """Refuse figures of a whole validation, or warn of them, that were taken of no row at all.

    Args:
        trainer: of the run, at the end of a validation or a test.
        stage: `val` or `test`.
        expected: names that are logged, such as `val/accuracy`.
        found: those that at least one row or token of any rank counts in.

    Raises:
        ValueError: if one of them chooses the best weights, the end of the run or the learning
            rate.
    """
    missing = [name for name in expected if name not in found]
    if not missing or not _whole(trainer):
        return
    names = ", ".join(missing)
    what = "validation" if stage == "val" else stage
    told = (
        f"No row of the {what} data counts in {names}: the labels are absent, or all of them are "
        "ones that do not count (-100)."
    )
    watched = [name for name in missing if name in _monitored(trainer)]
    if watched:
        raise ValueError(
            f"{told} Yet {watched[0]} is what the run goes by (monitor={watched[0]!r}). Give "
            f"{what} data with labels, or go by something that needs none, such as the term that "
            "compares with the teacher."
        )
    if not trainer.sanity_checking:
        warnings.warn(told, stacklevel=2)


def _whole(trainer: L.Trainer) -> bool:
    """Whether every batch was seen, which a sanity check often does not."""
    if not trainer.sanity_checking:
        return True
    return list(trainer.num_sanity_val_batches) == list(trainer.num_val_batches)


def _monitored(trainer: L.Trainer) -> set[str]:
    if trainer.state.fn != "fit":
        return set()
    watching: list[Any] = [
        *(c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)),
        *trainer.early_stopping_callbacks,
        *trainer.lr_scheduler_configs,
    ]
    return {w.monitor for w in watching if w.monitor is not None}
