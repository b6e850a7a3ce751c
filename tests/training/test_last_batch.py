"""A last batch of one row is refused where the student cannot be trained on one."""

import copy

import pytest
import torch
from tiny import trainer
from torch import nn
from torch.testing import assert_close

from lightning_distill import distill


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(4, 3), nn.BatchNorm1d(3)

    def forward(self, x):
        return self.norm(self.layer(x))


@pytest.mark.parametrize("rows", [9, 10])
def test_a_last_batch_of_one_row_is_refused_before_training(tmp_path, rows):
    data = torch.utils.data.TensorDataset(torch.randn(rows, 4), torch.arange(rows) % 3)
    batches = torch.utils.data.DataLoader(data, batch_size=4)
    student = Normed()
    before = copy.deepcopy(student.state_dict())
    if rows == 10:
        distill(student, nn.Linear(4, 3), batches, trainer=trainer(tmp_path))
        return
    with pytest.raises(ValueError, match=r"last batch .* has one row \(9 rows in batches of 4\)"):
        distill(student, nn.Linear(4, 3), batches, trainer=trainer(tmp_path))
    assert_close(student.state_dict(), before)
    whole = torch.utils.data.DataLoader(data, batch_size=4, drop_last=True)
    distill(student, nn.Linear(4, 3), whole, trainer=trainer(tmp_path))
