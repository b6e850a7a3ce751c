"""What is written is read, at random, by whoever asks."""

import copy
import os
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from kept import ANSWERS, inputs, keep, PER_SHARD, read_all, ROWS, values
from processes import in_two_processes

from lightning_distill.cache import (
    Answer,
    AnswerStore,
    Full,
    row_ids,
    row_index,
    ShardWriter,
    store as store_,
    write_manifest,
)
from lightning_distill.cache.signed_json import read_json, write_json


@pytest.fixture
def folder(tmp_path):
    keep(tmp_path / "kept")
    return tmp_path / "kept"


def expected() -> dict[str, torch.Tensor]:
    """Encoded and decoded without a file between."""
    batch, answers = inputs(), values()
    inside = batch["attention_mask"].bool()
    found = {}
    for answer in ANSWERS:
        tensor = answers[answer.name]
        if answer.name == "scores":
            continue
        tensor = tensor[inside] if answer.per_token else tensor
        ids = torch.zeros(len(tensor), 2, dtype=torch.long)
        found[answer.name] = answer.encoding.decode(
            answer.encoding.encode(tensor, ids), answer.shape
        )
    return found


def test_every_row_is_read_as_it_was_written(folder):
    found = read_all(folder)
    for name, right in expected().items():
        assert torch.equal(found[name], right), name
    shares = found["scores"].exp()
    torch.testing.assert_close(shares.sum(-1), torch.ones(len(shares)))
    assert len(AnswerStore(folder)) == ROWS
    assert len(AnswerStore(folder).shards) == -(-ROWS // PER_SHARD)
    assert AnswerStore(folder).check_files() == []


def test_tokens_of_a_row_are_drawn_apart(folder):
    # Equal logits for all tokens: what is drawn would be the same with one seed for a row.
    writer = ShardWriter(folder, [Answer("scores", True, (50,), ANSWERS[3].encoding)])
    writer.add(row_ids(inputs())[:1], {"scores": torch.zeros(1, 5, 50)}, [5])
    facts = writer.write("shard-00009")
    write_manifest(folder, {}, writer.answers, [facts])
    ids = row_ids(inputs())[:1]
    store = AnswerStore(folder)
    rows, lengths = store.read(ids, store.find(ids), ["scores"])
    assert lengths == [5]
    assert len({tuple(row.tolist()) for row in rows["scores"]}) > 1


def test_rows_that_were_not_written_are_not_found(folder):
    store = AnswerStore(folder)
    ids = row_ids(inputs())
    others = ids.copy()
    others[:, 1] ^= 1
    assert (store.find(others) == -1).all()
    mixed = np.where(np.arange(ROWS)[:, None] % 2, ids, others)
    assert ((store.find(mixed) >= 0) == (np.arange(ROWS) % 2 == 1)).all()
    largest = np.full((1, 2), np.iinfo(np.int64).max)
    assert store.find(largest).tolist() == [-1]
    assert store.find(ids[:0]).tolist() == []


def test_rows_that_share_half_of_their_id_are_told_apart(tmp_path):
    ids = np.array([[5, 3], [5, -9], [5, 7], [-2, 7], [8, 7]], dtype=np.int64)
    writer = ShardWriter(tmp_path, [Answer("logits", False, (1,), Full())])
    writer.add(ids, {"logits": torch.arange(5.0)[:, None]}, None)
    write_manifest(tmp_path, {}, writer.answers, [writer.write("shard-00000")])
    store = AnswerStore(tmp_path)
    for i in (2, 0, 1, 4, 3):
        found, _ = store.read(ids[[i]], store.find(ids[[i]]), ["logits"])
        assert found["logits"].item() == i
    assert store.find(np.array([[5, 4], [5, 8], [9, 7]])).tolist() == [-1] * 3


def test_a_row_that_was_written_twice_is_one_row(tmp_path):
    ids = np.array([[5, 3], [4, 4], [5, 3]], dtype=np.int64)
    writer = ShardWriter(tmp_path, [Answer("logits", False, (1,), Full())])
    writer.add(ids, {"logits": torch.tensor([[1.0], [2.0], [1.0]])}, None)
    write_manifest(tmp_path, {}, writer.answers, [writer.write("shard-00000")])
    assert len(AnswerStore(tmp_path)) == 2
    assert AnswerStore(tmp_path).find(ids).tolist() == [0, 1, 0]


def test_a_cache_of_no_rows_opens(tmp_path):
    write_manifest(tmp_path, {}, ANSWERS, [])
    store = AnswerStore(tmp_path)
    assert len(store) == 0
    assert store.find(row_ids(inputs())).tolist() == [-1] * ROWS


def test_a_store_can_be_copied_and_sent_to_another_process(folder):
    store = AnswerStore(folder)
    ids = row_ids(inputs())
    right = store.read(ids, store.find(ids), ["logits"])[0]["logits"]
    for other in (copy.deepcopy(store), pickle.loads(pickle.dumps(store))):
        assert torch.equal(other.read(ids, other.find(ids), ["logits"])[0]["logits"], right)


def _worker(rank, folder, into):
    torch.save(read_all(folder), f"{into}/{rank}.pt")


def test_two_processes_read_at_once(folder, tmp_path):
    in_two_processes(_worker, (str(folder), str(tmp_path)))
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for name, right in expected().items():
            assert torch.equal(found[name], right)


def test_few_files_are_mapped_at_once_and_pages_are_given_back(folder, monkeypatch):
    monkeypatch.setattr(store_, "MAPPED", 2)
    monkeypatch.setattr(store_, "PAGES", 5000)
    found = read_all(folder)
    for name, right in expected().items():
        assert torch.equal(found[name], right)
    store = AnswerStore(folder)
    assert len(store._open) == 2


def test_answers_of_other_shapes_and_values_that_are_no_numbers_are_refused(tmp_path):
    writer = ShardWriter(tmp_path, [Answer("logits", False, (3,), Full())])
    ids = row_ids(inputs())[:2]
    with pytest.raises(ValueError, match=r"has shape \(2, 4\), and had \(rows, 3\) before"):
        writer.add(ids, {"logits": torch.zeros(2, 4)}, None)
    bad = torch.zeros(2, 3)
    bad[1, 2] = float("nan")
    with pytest.raises(ValueError, match="teacher.logits is NaN in row 1 of this batch"):
        writer.add(ids, {"logits": bad}, None)


def test_no_rows_are_read_as_no_rows(folder):
    store, none = AnswerStore(folder), np.empty((0, 2), np.int64)
    found, lengths = store.read(none, store.find(none), [a.name for a in ANSWERS])
    assert lengths == []
    assert {n: tuple(v.shape) for n, v in found.items()} == {a.name: (0, *a.shape) for a in ANSWERS}


def test_rows_without_tokens_are_read_beside_others_and_alone(folder):
    lengths = inputs()["attention_mask"].sum(1)
    empty = torch.nonzero(lengths == 0).flatten().numpy()
    assert len(empty) > 1
    ids, store = row_ids(inputs())[empty], AnswerStore(folder)
    found, counts = store.read(ids, store.find(ids), ["hidden_states[1]", "layer:pooler"])
    assert counts == [0] * len(empty)
    assert found["hidden_states[1]"].shape == (0, 8)
    assert found["layer:pooler"].shape == (len(empty), 4, 2)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=20))
def test_any_rows_in_any_order_with_repeats(tmp_path_factory, rows):
    folder = tmp_path_factory.getbasetemp() / "any"
    if not folder.exists():
        keep(folder)
    whole, store, ids = read_all(folder), AnswerStore(folder), row_ids(inputs())
    names = [a.name for a in ANSWERS]
    found, counts = store.read(ids[rows], store.find(ids[rows]), names)
    lengths = inputs()["attention_mask"].sum(1)
    assert counts == lengths[rows].tolist()
    starts = lengths.cumsum(0) - lengths
    for answer in ANSWERS:
        pieces = [
            whole[answer.name][starts[i] : starts[i] + lengths[i]]
            if answer.per_token
            else whole[answer.name][i : i + 1]
            for i in rows
        ]
        assert torch.equal(found[answer.name], torch.cat(pieces))


def test_names_that_begin_with_another_name_are_told_apart(tmp_path):
    # A dict of modules may have slashes in its keys.
    answers = [Answer("layer:a", False, (2,), Full()), Answer("layer:a/b", False, (3,), Full())]
    kept = {"layer:a": torch.ones(1, 2), "layer:a/b": torch.zeros(1, 3)}
    ids = np.array([[1, 2]])
    writer = ShardWriter(tmp_path, answers)
    writer.add(ids, kept, None)
    write_manifest(tmp_path, {}, answers, [writer.write("shard-00000")])
    store = AnswerStore(tmp_path)
    found, _ = store.read(ids, store.find(ids), list(kept))
    for name, right in kept.items():
        assert torch.equal(found[name], right)


def test_a_store_is_sent_to_a_process_in_another_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder.parent)
    sent = pickle.dumps(AnswerStore(folder.name))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(pickle.loads(sent)) == ROWS


@pytest.mark.skipif(
    not hasattr(os, "fork"),
    reason="this system does not fork: processes open the files by themselves",
)
def test_a_process_that_was_forked_reads_from_the_open_store(folder):
    store, ids, right = AnswerStore(folder), row_ids(inputs()), expected()
    store.read(ids, store.find(ids), ["logits"])
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            found, _ = store.read(ids, store.find(ids), ["logits", "layer:pooler"])
            os._exit(0 if all(torch.equal(v, right[n]) for n, v in found.items()) else 1)
        children.append(child)
    # The parent gives pages back meanwhile.
    for shard in store._open.values():
        shard.release()
    found, _ = store.read(ids, store.find(ids), ["logits"])
    assert torch.equal(found["logits"], right["logits"])
    assert [os.waitstatus_to_exitcode(os.waitpid(c, 0)[1]) for c in children] == [0, 0, 0]


def test_numbers_as_keys_are_words_when_they_are_read(tmp_path):
    # As numbers 9 comes before 10, as words after it: the checksum must not mind.
    write_json(tmp_path / "a.json", {"about": {9: "a", 10: ("b", 1.5)}})
    assert read_json(tmp_path / "a.json") == {"about": {"9": "a", "10": ["b", 1.5]}}


BITS = st.integers(-(2**63), 2**63 - 1)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(BITS, st.integers(-3, 3)), max_size=60), st.lists(BITS, max_size=5))
def test_a_search_finds_the_first_place_whatever_the_ids(held, others):
    # Evenly spread, all in a corner, many times the same, at both ends.
    high = np.sort(np.array(held, dtype=np.int64))
    wanted = np.array([*held, *others, -(2**63), 2**63 - 1, 0], dtype=np.int64)
    assert row_index._search(high, wanted).tolist() == np.searchsorted(high, wanted).tolist()


@pytest.mark.parametrize("spread", [2**63 - 1, 2**40])
def test_a_search_among_many(spread):
    generator = np.random.default_rng(0)
    high = np.sort(generator.integers(-spread, spread, 200_000))
    wanted = generator.permutation(high)[:500]
    assert (row_index._search(high, wanted) == np.searchsorted(high, wanted)).all()
