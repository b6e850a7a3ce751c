import pytest
import torch
from torch.ao.pruning import WeightNormSparsifier
from torch.nn.utils import prune

from lightning_distill.sparsity.pattern import Pattern


def scores(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_single_weights_as_torch_prunes_them(share):
    matrix = scores(8, 12)
    (mask,) = Pattern.parse("single").masks([matrix], share)
    method = prune.L1Unstructured(share)
    assert torch.equal(mask.float(), method.compute_mask(matrix, torch.ones_like(matrix)))


@pytest.mark.parametrize("pattern", ["2:4", "1:4", "3:8"])
def test_some_of_a_row_as_torch_prunes_them(pattern):
    kept, of = map(int, pattern.split(":"))
    layer = torch.nn.Linear(24, 8, bias=False)
    (mask,) = Pattern.parse(pattern).masks([layer.weight.detach().abs()], 1.0)
    peer = WeightNormSparsifier(1.0, (1, of), of - kept)
    holder = torch.nn.Sequential(layer)
    peer.prepare(holder, [{"tensor_fqn": "0.weight"}])
    peer.step()
    assert torch.equal(mask, layer.parametrizations.weight[0].mask.bool())
    assert torch.equal(mask.view(8, -1, of).sum(-1), torch.full((8, 24 // of), kept))


def test_blocks_by_their_mean():
    matrix = scores(4, 6)
    (mask,) = Pattern.parse("2x3").masks([matrix], 0.5)
    means = {
        (i, j): matrix[2 * i : 2 * i + 2, 3 * j : 3 * j + 3].mean() for i in (0, 1) for j in (0, 1)
    }
    largest = sorted(means, key=means.get)[2:]
    for i, j in means:
        block = mask[2 * i : 2 * i + 2, 3 * j : 3 * j + 3]
        assert bool(block.all()) is ((i, j) in largest) and block.all() == block.any()


def test_half_of_the_rows_of_four_lose_the_least():
    matrix = scores(4, 8)
    (mask,) = Pattern.parse("2:4").masks([matrix], 0.5)
    rows, kept = matrix.view(-1, 4), mask.view(-1, 4)
    lost = rows.sort(dim=-1).values[:, :2].sum(-1)
    for row, keeps, loses in zip(rows, kept, lost, strict=True):
        cut = loses <= lost.sort().values[3]
        assert int(keeps.sum()) == (2 if cut else 4)
        if cut:
            assert torch.equal(keeps, row >= row.sort().values[2])


def test_layers_together():
    small, large = scores(2, 4) * 0.1, 1 + scores(4, 4)
    masks = Pattern.parse("single").masks([small, large], 8 / 24, together=True)
    assert not masks[0].any() and masks[1].all()
    masks = Pattern.parse("single").masks([small, large], 0.25)
    assert [int((~mask).sum()) for mask in masks] == [2, 4]


def test_of_equal_scores_exactly_so_many():
    (mask,) = Pattern.parse("single").masks([torch.zeros(3, 3)], 5 / 9)
    assert int((~mask).sum()) == 5


def test_what_fits():
    assert Pattern.parse("2:4").fits(scores(3, 8)) and not Pattern.parse("2:4").fits(scores(8, 6))
    assert Pattern.parse("16x16").fits(scores(32, 16))
    assert not Pattern.parse("16x16").fits(scores(24, 16))
    assert Pattern.parse("2:4").share == 0.5 and Pattern.parse("16x16").share is None


@pytest.mark.parametrize("text", ["4:2", "0:4", "2-4", "0x4", "unstructured", ""])
def test_a_pattern_that_there_is_not(text):
    with pytest.raises(ValueError, match=r"`pattern` must be single .*2:4.*16x16"):
        Pattern.parse(text)
