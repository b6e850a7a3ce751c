"""Batch norm that keeps what it saw only while training, and copes with a single value."""

import torch.nn.functional as F
from torch import nn, Tensor

from ._parts import learns


class BatchNorm(nn.BatchNorm1d):
    """`torch.nn.BatchNorm`, for inputs of any shape (batch, channels, ...).

    Its statistics move in training under gradients only, and a batch with one value per channel
    or none, which has no spread, is normed as in evaluation.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normed over all dimensions but the second, in the precision of the statistics."""
        mean, variance = self.running_mean, self.running_var
        assert mean is not None
        input = input.to(mean.dtype)
        alone = input.numel() <= input.shape[1]
        if self.training and not alone:
            if learns(self):
                flat = input if input.dim() == 2 else input.flatten(2)
                return super().forward(flat).view_as(input)
            return F.batch_norm(input, None, None, self.weight, self.bias, True, eps=self.eps)
        return F.batch_norm(input, mean, variance, self.weight, self.bias, eps=self.eps)
