"""A control: the teacher's answers, given to the wrong rows."""

import torch
from torch import nn

from lightning_distill.criteria import SoftTarget


class ShuffledSoftTarget(nn.Module):
    """Soft targets of other rows of the batch: the teacher's taste in classes, not its answers."""

    def __init__(self, temperature: float = 4.0):
        super().__init__()
        self.criterion = SoftTarget(temperature)

    def forward(self, student, teacher):
        rows = torch.randperm(len(teacher), device=teacher.device)
        return self.criterion(student, teacher[rows])
