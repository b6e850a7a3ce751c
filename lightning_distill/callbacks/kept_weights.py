"""Which weights of a training are kept when it has ended."""

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint


def chooser(trainer: L.Trainer) -> ModelCheckpoint | None:
    """The callback that chooses the weights that are kept; with `None` they are the last ones.

    Args:
        trainer: of the training.
    """
    found = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
    return next((c for c in reversed(found) if c.monitor), None)
