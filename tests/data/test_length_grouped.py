"""Each row once an epoch, whatever the number of ranks, and the same global batches."""

import itertools

import pytest
import torch
from hypothesis import given, strategies as st

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


LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=120)


def plans(given_lengths, world, budget, epoch=0, **options):
    found = []
    for rank in range(world):
        sampler = on_rank(
            LengthGroupedBatches(given_lengths, 4, tokens_per_batch=budget, **options), rank, world
        )
        sampler.set_epoch(epoch)
        found.append(list(sampler))
        assert len(sampler) == len(found[-1])
    return found


@given(LENGTHS, st.integers(40, 300), st.integers(1, 3), st.integers(0, 5), st.booleans())
def test_a_budget_of_tokens_is_kept_and_each_row_comes_once(given_lengths, budget, world, epoch, g):
    ranks = plans(given_lengths, world, budget, epoch, grouped=g)
    assert len({len(plan) for plan in ranks}) == 1
    for plan in ranks:
        for batch in plan:
            assert batch and len(batch) * max(given_lengths[row] for row in batch) <= budget
    seen = []
    for steps in zip(*ranks, strict=True):
        rows = [row for batch in steps for row in batch]
        # Only a step of fewer rows than ranks repeats some.
        assert len(rows) == len(set(rows)) or len(rows) == world
        seen += set(rows)
    assert sorted(seen) == list(range(len(given_lengths)))


@given(st.lists(st.sampled_from([1, 2, 4, 8, 16]), min_size=2, max_size=120), st.integers(0, 3))
def test_two_ranks_see_what_one_sees_with_twice_the_tokens(given_lengths, epoch):
    (whole,) = plans(given_lengths, 1, 64, epoch)
    halves = plans(given_lengths, 2, 32, epoch)
    for batch, first, second in zip(whole, *halves, strict=True):
        assert set(batch) == set(first + second)


def test_the_number_of_steps_is_that_of_every_epoch_and_the_batches_are_not():
    many = lengths(500)
    epochs = [plans(many, 1, 256, epoch)[0] for epoch in range(4)]
    assert len({len(plan) for plan in epochs}) == 1
    assert len({frozenset(frozenset(b) for b in plan) for plan in epochs}) == 4
    means = [sum(many[i] for i in b) / len(b) for b in epochs[0]]
    assert means != sorted(means)


def test_a_budget_computes_little_padding_and_is_well_used():
    many = lengths(2000)
    (plan,) = plans(many, 1, 1024)
    padded = [len(b) * max(many[i] for i in b) for b in plan]
    assert sum(padded) < 1.08 * sum(many)
    assert sum(padded) / len(padded) > 0.8 * 1024


def test_a_row_longer_than_the_budget_is_refused():
    words = (
        "Row 1 of the training data has 9 tokens, and a batch may have 8: raise .* to 9 at least"
    )
    with pytest.raises(ValueError, match=words):
        LengthGroupedBatches([3, 9], 4, tokens_per_batch=8)


def test_views_come_in_turn():
    def views(epochs, **options):
        sampler = LengthGroupedBatches(lengths(9), 4, **options)
        found = []
        for epoch in range(epochs):
            sampler.set_epoch(epoch)
            found.append({draw.view for draw in sampler})
        return found

    assert views(5, views=2) == [{0}, {1}, {0}, {1}, {0}]
    assert views(3) == [{0}, {1}, {2}]
