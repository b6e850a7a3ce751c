"""Criteria that compare samples with each other, over two processes."""

import pytest
import torch
import torch.multiprocessing as mp
from processes import in_two_processes
from torch import nn
from torch.testing import assert_close

from lightning_distill.criteria import (
    CKA,
    CorrelationCongruence,
    DIST,
    MLKD,
    PearsonFeature,
    PKT,
    RKD,
    SimilarityPreserving,
)


class Maps(nn.Module):
    """A criterion between feature maps, given maps of one place and four channels."""

    def __init__(self, criterion):
        super().__init__()
        self.criterion = criterion

    def forward(self, student, teacher, mask):
        return self.criterion(student[..., None, None], teacher[..., None, None], mask)


CRITERIA = {
    "DIST": lambda gather: DIST(gather=gather),
    "MLKD": lambda gather: MLKD((2.0, 4.0), gather=gather),
    "SimilarityPreserving": lambda gather: SimilarityPreserving(gather=gather),
    "PKT": lambda gather: PKT(gather=gather),
    "CKA": lambda gather: CKA(gather=gather),
    "RKD": lambda gather: RKD(gather=gather),
    "PearsonFeature": lambda gather: Maps(PearsonFeature(gather=gather)),
    "CorrelationCongruence": lambda gather: CorrelationCongruence(gather=gather),
}
# Unequal parts, some of them masked.
ROWS = [slice(0, 5), slice(5, 8)]


def inputs():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    teacher = torch.randn(8, 4, generator=generator, dtype=torch.float64)
    weight = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([True, True, False, True, True, True, False, True])
    return x, teacher, weight, mask


def _worker(rank, store, results):
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    for name in CRITERIA:
        for gather in (True, False):
            x, teacher, weight, mask = inputs()
            rows = ROWS[rank]
            loss = CRITERIA[name](gather)(x[rows] @ weight, teacher[rows], mask[rows])
            loss.backward()
            # What DDP does.
            torch.distributed.all_reduce(weight.grad)
            results[name, gather, rank] = (loss.item(), (weight.grad / 2).tolist())
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Value and gradient by criterion, gathered or not, and rank; two processes do them all."""
    with mp.Manager() as manager:
        results = manager.dict()
        in_two_processes(_worker, (str(tmp_path_factory.mktemp("gather") / "store"), results))
        return dict(results)


@pytest.mark.parametrize("name", CRITERIA)
def test_two_processes_are_one_with_all_rows(name, found):
    x, teacher, weight, mask = inputs()
    expected = CRITERIA[name](False)(x @ weight, teacher, mask)
    expected.backward()
    for value, gradient in (found[name, True, rank] for rank in (0, 1)):
        assert value == pytest.approx(expected.item())
        assert_close(torch.tensor(gradient, dtype=torch.float64), weight.grad)
    assert found[name, False, 0][0] != pytest.approx(expected.item())
