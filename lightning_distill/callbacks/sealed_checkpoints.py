"""Checkpoints that are written whole, and never read where they were changed since."""

import os
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO

from ..sealed import check_sealed, remove_sealed, write_sealed


class SealedCheckpointIO(TorchCheckpointIO):
    """As Lightning's own, with a SHA-256 beside each file, which is compared before it is read.

    Files elsewhere than in a local folder are left to Lightning.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write it whole or not at all.

        Raises:
            OSError: if there is no room, saying what is left.
        """
        if storage_options is not None or not _is_local(path):
            return super().save_checkpoint(checkpoint, path, storage_options)
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sealed(path, lambda file: torch.save(checkpoint, file))

    def load_checkpoint(self, path: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        """Read what was written.

        Raises:
            ChangedFileError: if it is something else.
        """
        if _is_local(path) and Path(path).is_file():
            check_sealed(Path(path))
        return super().load_checkpoint(path, *arguments, **options)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove it, and its sum."""
        super().remove_checkpoint(path)
        if _is_local(path):
            remove_sealed(Path(path))


def seal_checkpoints(trainer: L.Trainer) -> None:
    """Let a trainer write and read its checkpoints so, unless its user has chosen another way."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = SealedCheckpointIO()


def _is_local(path: Any) -> bool:
    return "://" not in os.fspath(path)
