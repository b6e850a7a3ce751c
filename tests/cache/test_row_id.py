"""A row is what the teacher is given for it, and nothing else."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

from lightning_distill.cache import row_ids, row_lengths, token_count

# A row without a token that counts has no padding either: the test below is for it.
TEXTS = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=6), min_size=1, max_size=5)


def inputs(texts, extra=0, left=False, **more):
    longest = max(map(len, texts)) + extra
    rows, masks = [], []
    for text in texts:
        empty = [0] * (longest - len(text))
        ones = [1] * len(text)
        rows.append(empty + text if left else text + empty)
        masks.append(empty + ones if left else ones + empty)
    shape = (len(texts), longest)
    return {
        "input_ids": torch.tensor(rows, dtype=torch.long).reshape(shape),
        "attention_mask": torch.tensor(masks, dtype=torch.long).reshape(shape),
        **more,
    }


def ids(*args, **more):
    return [tuple(row) for row in row_ids(inputs(*args, **more)).tolist()]


@settings(max_examples=150, deadline=None)
@given(TEXTS, st.integers(0, 3))
def test_equal_texts_are_equal_rows_and_others_are_not(texts, extra):
    found = ids(texts, extra)
    for i, one in enumerate(texts):
        assert found[i] == ids([one])[0]
        for j, other in enumerate(texts):
            assert (found[i] == found[j]) == (one == other)


def test_neither_the_type_of_numbers_nor_their_order_in_a_dict_matters():
    one = inputs([[1, 2, 3], [4]])
    other = {k: v.int() for k, v in reversed(one.items())}
    assert (row_ids(one) == row_ids(other)).all()


def test_what_a_model_may_see_makes_another_row():
    texts = [[1, 2, 3], [4, 5]]
    plain = ids(texts)
    assert ids(texts, left=True)[1] != plain[1]
    types = torch.tensor([[0, 0, 1], [0, 0, 0]])
    assert ids(texts, token_type_ids=types)[0] != plain[0]
    holes = inputs(texts)
    holes["attention_mask"][0, 1] = 0
    assert (row_ids(holes)[0] != list(plain[0])).any()
    # The same bytes under another name.
    renamed = {"position_ids": types} | inputs(texts)
    assert (row_ids(renamed)[1] != row_ids(inputs(texts, token_type_ids=types))[1]).any()


def test_images_tuples_and_single_tensors():
    pixels = torch.randn(4, 3, 8, 8)
    found = row_ids(pixels)
    assert (found == row_ids((pixels,))).all()
    assert (found[1:3] == row_ids(pixels[1:3])).all()
    changed = pixels.clone()
    changed[2, 0, 0, 0] += 1e-6
    assert [(a == b).all() for a, b in zip(found, row_ids(changed), strict=True)] == [1, 1, 0, 1]
    assert (found != row_ids(pixels.transpose(2, 3).reshape(4, 3, 4, 16))).any()
    assert (found[0] != row_ids(pixels.double())[0]).any()
    strided = pixels.permute(0, 2, 3, 1)
    assert (row_ids(strided) == row_ids(strided.contiguous())).all()


def test_lengths_end_at_the_last_token_that_counts():
    assert row_lengths(inputs([[1, 2, 3], [4], []])) == [3, 1, 0]
    assert row_lengths(inputs([[1, 2], [4]], left=True)) == [2, 2]
    assert row_lengths({"input_ids": torch.ones(2, 3)}) is None
    assert row_lengths(torch.ones(2, 3)) is None


def test_inputs_without_rows_are_refused():
    with pytest.raises(ValueError, match="there are none: name, scale"):
        row_ids({"name": "a", "scale": torch.tensor(1.0)})
    with pytest.raises(ValueError, match="but b has 3 and another 2"):
        row_ids({"a": torch.ones(2, 1), "b": torch.ones(3, 1)})


def test_a_tensor_that_is_as_wide_as_the_mask_by_chance_is_read_whole():
    texts = [[1, 2], [1, 2, 3]]
    pixels = torch.rand(2, 3, 4, 4) + 0.1
    plain = row_ids(inputs(texts, pixel_values=pixels))
    # The blue channel stands where the third token would.
    for channel in range(3):
        changed = pixels.clone()
        changed[0, channel, 1, 1] += 1
        other = row_ids(inputs(texts, pixel_values=changed))
        assert (plain != other).any(axis=1).tolist() == [True, False]
    black = pixels.clone()
    black[:, 2] = 0
    assert (plain != row_ids(inputs(texts, pixel_values=black))).any(axis=1).all()
    # What is zero where padding is, such as boxes, is padding.
    boxes = torch.ones(2, 3, 4, dtype=torch.long)
    boxes[0, 2:] = 0
    found = row_ids(inputs(texts, bbox=boxes))
    assert (found[0] == row_ids(inputs(texts[:1], bbox=boxes[:1, :2]))[0]).all()


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.sampled_from(["input_ids", "token_type_ids", "position_ids", "inputs_embeds"]))
def test_what_the_padding_holds_does_not_matter(texts, name):
    one = inputs(texts, extra=2)
    one[name] = one["input_ids"].clone()
    other = one | {name: one[name] + 7 * (1 - one["attention_mask"])}
    assert (row_ids(one) == row_ids(other)).all()


def test_what_is_the_same_for_all_rows_counts_too():
    x = torch.ones(2, 3)
    plain = row_ids({"x": x})
    found = [
        row_ids({"x": x, **more})
        for more in (
            {"scale": torch.tensor(1.0)},
            {"scale": torch.tensor(2.0)},
            {"scale": None},
            {"mode": "a"},
            {"mode": "b"},
            {"mode": 1},
        )
    ]
    distinct = {tuple(each[0].tolist()) for each in [plain, *found]}
    assert len(distinct) == 7
    assert all((each[0] == each[1]).all() for each in found)


def test_tensors_within_lists_and_dicts_count():
    x, state = torch.ones(2, 3), torch.ones(2, 4)
    other = state.clone()
    other[1, 2] = 0
    for wrap in (lambda s: {"x": x, "states": [s, s]}, lambda s: (x, {"h": s})):
        one, two = row_ids(wrap(state)), row_ids(wrap(other))
        assert (one != two).any(axis=1).tolist() == [False, True]
    assert (row_ids([x, (x, x)])[0] != row_ids([x, x, x])[0]).any()
    with pytest.raises(ValueError, match="is given cache, a object; a row is known by tensors"):
        row_ids({"x": x, "cache": object()})


def test_a_batch_without_rows_has_no_ids():
    assert row_ids(inputs([[1, 2]])).shape == (1, 2)
    assert row_ids({k: v[:0] for k, v in inputs([[1, 2]]).items()}).shape == (0, 2)
    assert row_ids(torch.zeros(3, 0)).shape == (3, 2)


def test_rows_without_a_token_that_counts_are_told_apart_by_all_they_hold():
    batch = {"input_ids": torch.tensor([[3, 4], [3, 5]]), "attention_mask": torch.zeros(2, 2)}
    first, second = row_ids(batch)
    assert (first != second).any()


def test_packed_rows_are_full_and_known_by_tokens_and_positions():
    ids = torch.tensor([[3, 4, 5, 6], [3, 4, 5, 6]])
    positions = torch.tensor([[0, 1, 0, 1], [0, 1, 2, 0]])
    packed = {"input_ids": ids, "position_ids": positions}
    assert row_lengths(packed) == [4, 4] and token_count(packed) == 4
    first, second = row_ids(packed)
    # Where the texts meet decides what the teacher sees.
    assert (first != second).any()
    assert (first == row_ids({k: v[:1] for k, v in packed.items()})[0]).all()
    # What stands at the end counts: nothing says that it is padding.
    longer = {k: torch.nn.functional.pad(v, (0, 1)) for k, v in packed.items()}
    assert row_lengths(longer) == [5, 5]
    assert (row_ids(longer) != row_ids(packed)).any(axis=1).all()
    # With a mask it is that which says so.
    masked = inputs([[1, 2, 3], [4]], position_ids=torch.arange(3).expand(2, -1))
    assert row_lengths(masked) == [3, 1] and token_count(masked) == 3
    # Positions of another shape belong to something else.
    assert row_lengths(packed | {"position_ids": positions[:, :2]}) is None
    assert token_count({"input_ids": ids}) is None and token_count(ids) is None
