"""Each row once an epoch, whatever the number of ranks, and the same global batches."""

import itertools

import pytest
import torch

from lightning_distill.data import EvenRows, LengthGroupedBatches

WORLDS = [1, 2, 3]


def lengths(n: int) -> list[int]:
    return torch.randint(3, 60, (n,), generator=torch.Generator().manual_seed(n)).tolist()


def on_rank(sampler, rank: int, world: int):
    sampler.rank, sampler.num_replicas = rank, world
    return sampler


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize(("n", "world"), list(itertools.product([1, 7, 11, 64, 500], WORLDS)))
def test_an_epoch_has_each_row_once_over_all_ranks(n, world, grouped):
    plans = [
        list(on_rank(LengthGroupedBatches(lengths(n), 4, grouped=grouped), rank, world))
        for rank in range(world)
    ]
    assert len({len(plan) for plan in plans}) == 1, "a rank would wait for the others forever"
    sampler = on_rank(LengthGroupedBatches(lengths(n), 4, grouped=grouped), 0, world)
    assert len(sampler) == len(plans[0])
    assert all(batch for plan in plans for batch in plan)
    rows = sorted(row for plan in plans for batch in plan for row in batch)
    # Only a batch of fewer rows than ranks repeats some.
    repeated = len(rows) - n
    assert set(rows) == set(range(n))
    last = n % (4 * world)
    assert repeated == (world - last if 0 < last < world else 0)


def test_two_ranks_see_what_one_sees_with_the_whole_batch():
    whole = list(LengthGroupedBatches(lengths(100), 16))
    halves = [list(on_rank(LengthGroupedBatches(lengths(100), 8), rank, 2)) for rank in (0, 1)]
    for batch, first, second in zip(whole, *halves, strict=True):
        assert sorted(batch) == sorted(first + second)
        assert abs(len(first) - len(second)) <= 1


def test_each_epoch_has_another_order_and_the_same_one_again():
    sampler = LengthGroupedBatches(lengths(64), 4, seed=3)
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    second = list(sampler)
    assert second != first
    # Anew means other batches too, not only another order of the same ones.
    assert {tuple(sorted(b)) for b in second} != {tuple(sorted(b)) for b in first}
    sampler.set_epoch(0)
    assert list(sampler) == first
    assert list(LengthGroupedBatches(lengths(64), 4, seed=4)) != first


def test_grouping_saves_padding_and_the_batches_are_not_in_order_of_length():
    many = lengths(2000)

    def padded(batches):
        return sum(len(b) * max(many[i] for i in b) for b in batches)

    grouped = list(LengthGroupedBatches(many, 16))
    shuffled = list(LengthGroupedBatches(many, 16, grouped=False))
    total = sum(many)
    assert padded(grouped) < 1.08 * total
    assert padded(shuffled) > 1.5 * total
    means = [sum(many[i] for i in b) / len(b) for b in grouped]
    assert means != sorted(means)


@pytest.mark.parametrize(("n", "world"), list(itertools.product([1, 7, 11, 64], WORLDS)))
def test_evaluation_counts_each_row_once(n, world):
    plans = [list(on_rank(EvenRows(lengths(n), 4), rank, world)) for rank in range(world)]
    assert len({len(plan) for plan in plans}) == 1
    assert len(plans[0]) == len(on_rank(EvenRows(lengths(n), 4), 0, world))
    rows = [row for plan in plans for batch in plan for row in batch]
    assert sorted(row for row in rows if row >= 0) == list(range(n))
    assert all(0 <= -row - 1 < n for row in rows if row < 0)
    assert sum(row < 0 for row in rows) == -n % world
