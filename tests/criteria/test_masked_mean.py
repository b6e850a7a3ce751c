import pytest
import torch
from processes import in_two_processes
from torch import multiprocessing as mp
from torch.testing import assert_close

from lightning_distill.criteria import masked_mean


def test_it_is_the_mean_of_what_counts():
    values = torch.arange(6.0).reshape(2, 3)
    mask = torch.tensor([[1, 0, 1], [0, 0, 1]])
    assert_close(masked_mean(values, mask), torch.tensor((0.0 + 2 + 5) / 3))
    assert_close(masked_mean(values), values.mean())


def test_an_empty_tensor_has_mean_zero():
    assert masked_mean(torch.zeros(0)) == 0


def _worker(rank, store, results):
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    weight = torch.tensor(2.0, requires_grad=True)
    # Three values count on one rank, one on the other.
    x = torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])[rank]
    mask = torch.tensor([[True, True, True], [False, True, False]])[rank]
    loss = masked_mean(weight * x, mask)
    loss.backward()
    torch.distributed.all_reduce(weight.grad)
    with torch.no_grad():
        local = masked_mean(x, mask)
    results[rank] = (weight.grad.item() / 2, local.item())
    torch.distributed.destroy_process_group()


def test_ranks_that_count_unequally_many_give_the_gradient_of_one_process(tmp_path):
    with mp.Manager() as manager:
        results = manager.dict()
        in_two_processes(_worker, (str(tmp_path / "store"), results))
        found = dict(results)
    whole = (1.0 + 2 + 3 + 20) / 4
    assert found[0][0] == pytest.approx(whole) and found[1][0] == pytest.approx(whole)
    # Without gradients each rank speaks for itself, so that uneven evaluation cannot hang.
    assert [found[0][1], found[1][1]] == [2.0, 20.0]
