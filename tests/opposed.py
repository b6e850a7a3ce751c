"""Terms that pull a model in opposite directions."""

import torch
from torch import nn


class Problem:
    """Three losses of one weight vector, of which the first two disagree."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(8, 5, generator=generator)
        self.y = torch.randn(8, generator=generator)
        self.weight = nn.Parameter(0.1 * torch.randn(5, generator=generator))
        self.bias = nn.Parameter(torch.zeros(()))
        self.weights = {"a": 1.0, "b": 0.5, "c": 2.0}
        self.parameters = {"linear.weight": self.weight, "linear.bias": self.bias}

    def losses(self, rows=slice(None)):
        out = self.x[rows] @ self.weight + self.bias
        y = self.y[rows]
        return {
            "a": (out - y).square().mean(),
            "b": (out + 3 * y).square().mean(),
            "c": out.abs().mean(),
        }

    def gradients(self, loss):
        return torch.cat(
            [
                g.flatten()
                for g in torch.autograd.grad(loss, [self.weight, self.bias], retain_graph=True)
            ]
        )
