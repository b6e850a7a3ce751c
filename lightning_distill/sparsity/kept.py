"""Weights that are 0 stay 0."""

from collections.abc import Sequence

import lightning as L
from torch import nn, Tensor

from .matrices import Matrices
from .sparsity import Sparsity


class KeptSparsity(Sparsity):
    """Trains a student that is sparse already, as in a stage after one that made it so.

    Of layers that are not trained nothing has to be kept.

    Args:
        layers: see `Matrices`.
    """

    # An average of weights that are 0 all the time is 0.
    can_be_averaged = True

    def __init__(self, layers: Sequence[str] | None = None):
        super().__init__(0.5, start=0.0, stop=0.0, updates=1, layers=layers)

    @property
    def state_key(self) -> str:
        """A training may have several of these, of other layers each."""
        return self._generate_state_key(layers=self.layers)

    def check(self, student: nn.Module) -> Matrices:
        """The student's weights, of which none need be trained."""
        return Matrices(student, self.layers, may_be_none=True)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take what is 0 now; all zeros are in place from the first step on."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and self.matrices is not None:
            self.masks = {path: weight != 0 for path, weight in self.matrices.weights.items()}
            self._done = self.updates

    def scores(self, path: str, weight: Tensor) -> Tensor:
        """Not asked: nothing more becomes 0."""
        return weight.abs()
