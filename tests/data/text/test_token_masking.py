"""What is masked depends on the seed, the row and the view, and on nobody who asks."""

import os

import pytest
import torch
import torch.distributed
from data.text.test_text import Given

from lightning_distill.data import Draw, TokenMasking
from lightning_distill.data.text.word_pieces import train_word_pieces

WORDS = ["one", "two", "three", "four", "five", "sixteen", "seven", "eight", "nine", "ten"]


def rows(count):
    generator = torch.Generator().manual_seed(count)
    texts = [
        " ".join(WORDS[i] for i in torch.randint(0, len(WORDS), (3 + n % 9,), generator=generator))
        for n in range(count)
    ]
    return {"text": texts, "label": [("a", "b")[i % 2] for i in range(count)]}


def made(count=60, **options) -> Given:
    data = Given(
        {"train": rows(count), "validation": rows(10), "test": rows(10)},
        vocab_size=90,
        **{"augmentation": TokenMasking(0.3, seed=1), "batch_size": 8} | options,
    )
    data.setup()
    return data


def by_row(loader, epoch=None) -> dict[int, list[int]]:
    if epoch is not None:
        loader.sampler.set_epoch(epoch)
    return {
        int(number): ids[mask.bool()].tolist()
        for batch in loader
        for number, ids, mask in zip(
            batch["row"], batch["input_ids"], batch["attention_mask"], strict=True
        )
    }


def test_order_workers_and_batches_do_not_matter():
    data = made()
    expected = by_row(data.train_dataloader(), epoch=3)
    assert len(expected) == 60
    changes = [{"num_workers": 2}, {"batch_size": 1}, {"length_bucketing": False}, {"seed": 5}]
    for change in [*changes, {"tokens_per_batch": 64}]:
        torch.manual_seed(7)
        assert by_row(data.replace(**change).train_dataloader(), epoch=3) == expected, change
    plan = [("train", [5, 59, 0], 3), ("train", [7], 3)]
    assert by_row(data.rows_dataloader(plan)) == {r: expected[r] for r in (5, 59, 0, 7)}


def test_the_view_reaches_worker_processes_that_live_on():
    loader = made(num_workers=2).train_dataloader()
    epochs = [by_row(loader, epoch) for epoch in (0, 1, 0)]
    assert epochs[0] == epochs[2] != epochs[1]
    unchanged = made(augmentation=None)
    plain, mask = by_row(unchanged.train_dataloader()), unchanged.tokenizer.mask_token_id
    # Every epoch hides others, and no word stands in another's place.
    for epoch in epochs:
        for row, ids in epoch.items():
            assert all(a in (b, mask) for a, b in zip(ids, plain[row], strict=True))


def on_rank(rank, store, folder):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2
    )
    torch.save(by_row(made().train_dataloader(), epoch=3), os.path.join(folder, f"{rank}.pt"))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_ranks_do_not_matter(tmp_path):
    from processes import in_two_processes

    in_two_processes(on_rank, (str(tmp_path / "store"), str(tmp_path)))
    both = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert not both[0].keys() & both[1].keys()
    assert both[0] | both[1] == by_row(made().train_dataloader(), epoch=3)


def test_views_return():
    data = made(views=2)
    loader = data.train_dataloader()
    epochs = [by_row(loader, epoch) for epoch in range(4)]
    assert epochs[0] == epochs[2] and epochs[1] == epochs[3] and epochs[0] != epochs[1]


def test_another_seed_masks_others():
    other = made(augmentation=TokenMasking(0.3, seed=2))
    assert by_row(other.train_dataloader(), 0) != by_row(made().train_dataloader(), 0)


def test_the_share_is_the_probability_and_special_tokens_stay():
    tokenizer = train_word_pieces(rows(60)["text"], 90, 64)
    masking = TokenMasking(0.3)
    masking.use_tokenizer(tokenizer)
    ids = torch.randint(5, len(tokenizer), (100_000,), generator=torch.Generator().manual_seed(0))
    special = torch.tensor(tokenizer.all_special_ids).repeat(100)
    before = torch.cat([special, ids])
    kept = before.clone()
    after = masking(before, torch.Generator().manual_seed(3))
    assert torch.equal(before, kept), "the rows of the data set were written to"
    changed = after != before
    assert not changed[: len(special)].any()
    # Five standard deviations of a binomial share.
    assert abs(changed.float().mean() - 0.3) < 5 * (0.3 * 0.7 / 100_000) ** 0.5 + len(special) / 1e5
    assert (after[changed] == tokenizer.mask_token_id).all()
    for probability, share in ((0, 0), (1, 1)):
        masking = TokenMasking(probability)
        masking.use_tokenizer(tokenizer)
        masked = masking(ids, torch.Generator()) == tokenizer.mask_token_id
        assert masked.float().mean() == share


def test_rows_for_evaluation_are_never_changed():
    data, plain = made(augmentation=TokenMasking(1.0)), made(augmentation=None)
    assert by_row(data.val_dataloader()) == by_row(plain.val_dataloader())
    assert by_row(data.test_dataloader()) == by_row(plain.test_dataloader())
    plan = [("validation", [0, 1], 0), ("test", [3], 1)]
    assert by_row(data.rows_dataloader(plan)) == by_row(plain.rows_dataloader(plan))
    assert by_row(data.train_dataloader(), 0) != by_row(plain.train_dataloader(), 0)
    asked_plainly = by_row(data.rows_dataloader([("train", range(60), None)]))
    assert asked_plainly == by_row(plain.train_dataloader())


def reverse_some(tokens, generator):
    return tokens.flip(0) if torch.rand((), generator=generator) < 0.5 else tokens.tolist()


def test_an_augmentation_of_ones_own():
    plain = by_row(made(augmentation=None).train_dataloader())
    data = made(augmentation=reverse_some)
    loader = data.train_dataloader()
    found = by_row(loader, 0)
    assert found == by_row(data.train_dataloader(), 0) != by_row(loader, 1)
    reversed_ = sum(found[row] == plain[row][::-1] != plain[row] for row in found)
    assert all(found[row] in (plain[row], plain[row][::-1]) for row in found)
    assert 15 <= reversed_ <= 45
    # It has no seed of its own.
    other = by_row(made(augmentation=reverse_some, seed=9).train_dataloader(), 0)
    assert other != found
    assert "0x" not in data.preprocessing()["augmentation"]


def test_what_cannot_work_is_refused(unchecked_types):
    with pytest.raises(ValueError, match="must return as many tokens"):
        by_row(made(augmentation=lambda tokens, generator: tokens[:-1]).train_dataloader())
    with pytest.raises(ValueError, match="must be a callable .* got 'mask'"):
        made(augmentation="mask")
    with pytest.raises(ValueError, match="`views` is 2, but there is no `augmentation`"):
        made(augmentation=None, views=2)
    with pytest.raises(ValueError, match="`views` must be at least 1, got 0"):
        made(views=0)
    with pytest.raises(ValueError, match="lies between 0 and 1, got 1.5"):
        TokenMasking(1.5)
    with pytest.raises(ValueError, match="must be a number, got 'half'"):
        TokenMasking("half")
    other = train_word_pieces(["abc def"], 90, 32)
    with pytest.raises(ValueError, match="another tokenizer than the student"):
        made(teacher_tokenizer=other)
    bare = train_word_pieces(rows(60)["text"], 90, 64)
    bare.mask_token = None
    with pytest.raises(ValueError, match="TokenMasking needs a tokenizer with a mask token"):
        made(tokenizer=bare)


def test_a_draw_is_a_list_that_knows_its_view():
    assert Draw([1, 2], 3) == [1, 2] and Draw([1, 2], 3).view == 3 and Draw([1]).view is None
