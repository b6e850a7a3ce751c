"""Weights that are 0 stay 0."""

from collections.abc import Sequence

import lightning as L
from torch import Tensor

from .sparsity import Sparsity


class KeptSparsity(Sparsity):
    """Trains a student that is sparse already, as in a stage after one that made it so.

    Args:
        layers: see `Matrices`.
    """

    def __init__(self, layers: Sequence[str] | None = None):
        super().__init__(0.5, start=0.0, stop=0.0, updates=1, layers=layers)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take what is 0 now; all zeros are in place from the first step on."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and self.matrices is not None:
            self.masks = {path: weight != 0 for path, weight in self.matrices.weights.items()}
            self._done = self.updates

    def scores(self, path: str, weight: Tensor) -> Tensor:
        """Not asked: nothing more becomes 0."""
        return weight.abs()
