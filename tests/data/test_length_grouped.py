"""Each row once an epoch, whatever the number of ranks, and the same global batches."""

import itertools

import pytest
import torch
from hypothesis import given, strategies as st

from lightning_distill.data import EvenRows, LengthGroupedBatches
from lightning_distill.data.labelled_rows import LabelledRows

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


def distinct(n: int) -> list[int]:
    """Lengths of which no two are equal, so that sorting leaves nothing to chance."""
    return (torch.randperm(n, generator=torch.Generator().manual_seed(n)) + 1).tolist()


def steps(n: int, epoch: int, world: int = 1, size: int = 32, **options):
    """The rows of every global batch of an epoch."""
    ranks = []
    for rank in range(world):
        sampler = on_rank(LengthGroupedBatches(distinct(n), size, **options), rank, world)
        sampler.set_epoch(epoch)
        ranks.append([list(batch) for batch in sampler])
    return [frozenset(itertools.chain(*parts)) for parts in zip(*ranks, strict=True)]


# Fewer rows than make two batches cannot but meet again.
MEET_ANEW = [
    *((n, world, None) for n, world in ((320, 1), (1000, 1), (1600, 1), (1601, 1), (320, 2))),
    *((n, world, None) for n, world in ((1600, 8), (65, 1), (33, 1), (97, 1))),
    *((n, world, 4000) for n, world in ((320, 1), (320, 2), (320, 8), (1000, 1), (97, 1))),
]


@pytest.mark.parametrize(("n", "world", "tokens"), MEET_ANEW)
def test_no_batch_comes_again_in_the_next_epoch(n, world, tokens):
    first, second = (set(steps(n, e, world, tokens_per_batch=tokens)) for e in (0, 1))
    assert not first & second


@pytest.mark.parametrize("n", [1, 31, 32])
def test_rows_of_a_single_batch_are_all_of_it(n):
    assert steps(n, 0) == steps(n, 1) == [frozenset(range(n))]


@pytest.mark.parametrize("world", [1, 2])
def test_in_twenty_epochs_a_row_meets_more_than_half_of_those_it_meets_without_grouping(world):
    def partners(**options):
        met = [set() for _ in range(320)]
        for epoch in range(20):
            for batch in steps(320, epoch, world, 32 // world, **options):
                for row in batch:
                    met[row] |= batch
        return sum(len(rows) - 1 for rows in met) / len(met)

    # 184 and 278; before, 43.
    assert partners() > 0.6 * partners(grouped=False)


@pytest.mark.parametrize("n", [33, 321, 1000])
def test_the_longest_rows_count_as_much_as_the_others(n):
    """A row of a short batch has a larger part of the mean; which rows these are is chance."""
    weights = torch.zeros(n)
    for epoch in range(400):
        for batch in steps(n, epoch):
            weights[list(batch)] += 32 / len(batch) / 400
    longest = torch.tensor(distinct(n)).argsort(descending=True)[: max(n // 50, 1)]
    # Before 32, 4.9 and 1.6 against a mean of 1.9, 1.1 and 1.0.
    assert (weights[longest].mean() - weights.mean()).abs() < 0.5 * weights.mean()
    assert weights.max() < 3


@pytest.mark.parametrize("world", [1, 8])
def test_a_group_of_similar_rows_makes_two_steps_or_more(world):
    sampler = on_rank(LengthGroupedBatches(lengths(3000), 4, tokens_per_batch=512), 0, world)
    counts = [sampler._count(group) for group in sampler._groups()]
    assert len(counts) > 1 and min(counts) >= 2
    assert torch.cat(sampler._groups()).tolist() == sorted(lengths(3000))


BATCH = 4
# One row, fewer than a batch, a batch, one more, and many, with a last batch of each kind.
SIZES = [1, 2, 3, 4, 5, 8, 9, 13, 24, 30, 31]


def epochs_of(n, world, count, **options):
    """Global batches of each epoch, as the ranks together see them."""
    found = []
    samplers = [
        on_rank(LengthGroupedBatches(lengths(n), BATCH, **options), rank, world)
        for rank in range(world)
    ]
    for epoch in range(count):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        steps = zip(*samplers, strict=True)
        found.append([[row for part in step for row in part] for step in steps])
    return found


OPTIONS = [{"grouped": True}, {"grouped": False}, {"tokens_per_batch": 240}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("n", SIZES)
def test_the_order_differs_from_epoch_to_epoch_whenever_it_can(n, world, options):
    orders = {
        tuple(frozenset(batch) for batch in epoch) for epoch in epochs_of(n, world, 12, **options)
    }
    steps = len(next(iter(orders)))
    if steps == 1:
        assert orders == {(frozenset(range(n)),)}
    else:
        assert len(orders) > 1
    # Where there is room for it, other rows meet too, and the same epoch hardly comes again.
    if steps > 2:
        assert len({frozenset(order) for order in orders}) > 1
        assert len(orders) >= 5


@pytest.mark.parametrize("options", OPTIONS[:2], ids=str)
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("n", [n for n in SIZES if n > 1])
def test_over_many_epochs_no_row_counts_more_than_another(n, world, options):
    count = 300
    weights = torch.zeros(count, n, dtype=torch.float64)
    for epoch, batches in enumerate(epochs_of(n, world, count, **options)):
        for batch in batches:
            for row in batch:
                # A step takes the mean over its rows.
                weights[epoch, row] += 1 / len(batch)
    means = weights.mean(dim=0)
    # Five standard errors of a mean; all rows of a batch weigh the same where batches are full.
    allowed = 5 * weights.std() / count**0.5 + 1e-9
    assert float((means - weights.mean()).abs().max()) <= float(allowed)


@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("seed", [0, 1, 7])
def test_rows_that_the_same_seed_has_chosen_are_spread_over_the_first_epoch(seed, grouped):
    """As those that keep their labels: with one stream of numbers they came all in one pool."""
    chosen = torch.randperm(1000, generator=torch.Generator().manual_seed(seed))[:100].tolist()
    rows = LabelledRows(torch.zeros(1000, dtype=torch.long), torch.arange(1000))
    for some in (chosen, rows.keeping_labels(100, seed).has_label.nonzero().flatten().tolist()):
        batches = list(LengthGroupedBatches(lengths(1000), 10, seed=seed, grouped=grouped))
        without = sum(not set(batch) & set(some) for batch in batches)
        # Of ten draws of 1000 rows, 35 of 100 batches have none of the 100 on average.
        assert 20 <= without <= 50
