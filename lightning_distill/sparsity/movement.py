"""Weights that training moves towards 0 become 0."""

from typing import Any

import lightning as L
import torch
from torch import nn, Tensor

from .sparsity import Sparsity


class MovementSparsity(Sparsity):
    r"""Weights become 0 that training moves towards 0, and come back if they should have grown.

    The score of a weight is $-\sum_t g_t w_t$ over all steps, where $g_t$ is the gradient of the
    loss with the zeros in place, also at those, and $w_t$ the value without them. A weight that
    comes back has the value that it had. It is for a student with weights that fit something else
    before, as a pretrained one; see also [`MagnitudeSparsity`][].

    References:
        Sanh et al., *Movement Pruning: Adaptive Sparsity by Fine-Tuning*, 2020,
        https://arxiv.org/abs/2005.07683, section 4 (hard movement pruning; a constant learning rate
        of the scores changes no order).
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # By the paths of layers: the scores, and the values that weights had when they became 0.
        self._moved: dict[str, Tensor] = {}
        self._whole: dict[str, Tensor] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the weights, before a checkpoint is read."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and self.matrices is not None:
            weights = self.matrices.weights
            self._moved = {path: torch.zeros_like(w) for path, w in weights.items()}
            self._whole = {path: w.detach().clone() for path, w in weights.items()}

    @torch.no_grad()
    def see(self, path: str, weight: nn.Parameter) -> None:
        """Add what this step does to the scores."""
        moved = -weight.grad * self._values(path, weight)  # type: ignore[operator]
        # With float16 a step may be left out, whose gradients are not finite.
        self._moved[path] = self._there(self._moved, path) + torch.nan_to_num(moved, 0.0, 0.0, 0.0)

    def scores(self, path: str, weight: Tensor) -> Tensor:
        """What the steps so far have added."""
        return self._there(self._moved, path)

    def update(self, share: float) -> None:
        """Keep the values of weights that become 0, and give them back where they come back."""
        assert self.matrices is not None
        for path, weight in self.matrices.weights.items():
            self._whole[path] = self._values(path, weight).clone()
        super().update(share)
        for path, weight in self.matrices.weights.items():
            weight.copy_(self._whole[path])

    def _values(self, path: str, weight: Tensor) -> Tensor:
        """As they would be without a mask."""
        return torch.where(self._mask(path), weight, self._there(self._whole, path))

    def _there(self, tensors: dict[str, Tensor], path: str) -> Tensor:
        assert self.matrices is not None
        device = self.matrices.weights[path].device
        if tensors[path].device != device:
            tensors[path] = tensors[path].to(device)
        return tensors[path]

    def state_dict(self) -> dict[str, Any]:
        """What a run needs to go on."""
        moved, whole = (
            {path: tensor.cpu() for path, tensor in one.items()}
            for one in (self._moved, self._whole)
        )
        return {**super().state_dict(), "moved": moved, "whole": whole}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up again."""
        super().load_state_dict(state_dict)
        self._moved, self._whole = dict(state_dict["moved"]), dict(state_dict["whole"])
