"""A stream gives what is held in memory, whoever reads it, and holds little."""

import tracemalloc
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from data.language.test_language_model import Documents, TEXTS
from processes import in_two_processes

from lightning_distill.data import TextCorpus
from lightning_distill.data.language import streamed_rows
from lightning_distill.data.language.byte_pairs import train_byte_pairs
from lightning_distill.data.language.streamed_rows import shuffled


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_DISTILL_CACHE", str(tmp_path / "cache"))


LINES = [f"{i} {text}" for i in range(30) for text in TEXTS][:-1]


def corpus(folder, **options):
    """Two files of lines, and one for validation."""
    for name, lines in (("a", LINES[:100]), ("b", LINES[100:]), ("c", LINES[:5])):
        # Never written twice: of two ranks, one would read what the other has just emptied.
        if not (folder / f"{name}.txt").exists():
            (folder / f"{name}.txt").write_text("\n".join(lines))
    held = str(folder / "c.txt")
    options = {
        "tokenizer": train_byte_pairs(LINES[:8], 280, 64),
        "max_length": 16,
        "batch_size": 3,
        "num_workers": 0,
    } | options
    train = [str(folder / "a.txt"), str(folder / "b.txt")]
    data = TextCorpus(train, held, held, document="line", **options)
    data.setup()
    return data


def rows_of(batches):
    """Each row as a tuple of all that it holds."""
    found = []
    for batch in batches:
        names = sorted(k for k in batch if k not in ("row", "teacher"))
        teacher = batch.get("teacher")
        for i in range(len(batch["row"])):
            row = tuple(tuple(batch[n][i].tolist()) for n in names)
            if teacher is not None:
                row += tuple(tuple(teacher[n][i].tolist()) for n in sorted(teacher))
            found.append(row)
    return found


@pytest.mark.parametrize("chunk", [1, 200, 10**6])
def test_a_stream_of_one_reader_gives_the_rows_that_are_held(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(streamed_rows, "CHUNK", chunk)
    held = corpus(tmp_path)
    stream = corpus(tmp_path, streaming=True, shuffle_rows=1)
    # In the order of the files, which an epoch may change.
    stream.in_order_of = lambda files, epoch: files
    batches = list(stream.train_dataloader())
    everything = held.rows_dataloader([("train", range(held.num_rows), None)])
    assert rows_of(batches) == rows_of(everything)
    assert torch.cat([b["row"] for b in batches]).tolist() == list(range(held.num_rows))
    assert [len(b["row"]) for b in batches[:-1]] == [3] * (len(batches) - 1)
    assert stream.num_rows is None
    assert rows_of(stream.val_dataloader()) == rows_of(held.val_dataloader())


@pytest.mark.parametrize(("workers", "shuffle"), [(0, 1), (0, 7), (2, 1), (2, 1000)])
@pytest.mark.parametrize("packing", [True, False])
def test_each_document_is_given_once_an_epoch_by_any_number_of_readers(
    tmp_path, workers, shuffle, packing
):
    # A document that fits is never continued, so that it is found whole in one row.
    options = {"packing": packing, "max_length": 300, "shuffle_rows": shuffle}
    held = corpus(tmp_path, **{**options, "packing": False})
    stream = corpus(tmp_path, streaming=True, num_workers=workers, **options)
    loader = stream.train_dataloader()
    wanted = [row[: int(mask.sum())] for row, mask in pairs(held)]
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        batches = list(loader)
        numbers = torch.cat([b["row"] for b in batches]).tolist()
        assert len(set(numbers)) == len(numbers) and min(numbers) >= 0
        found = documents_of(batches, held.tokenizer, max(workers, 1))
        assert sorted(found) == sorted(tuple(row.tolist()) for row in wanted)


def pairs(data):
    (batch,) = data.rows_dataloader([("train", range(data.num_rows), None)])
    return zip(batch["input_ids"], batch["attention_mask"], strict=True)


def documents_of(batches, tokenizer, readers):
    """Documents, told by their end tokens, of rows of which each reader numbers its own."""
    rows = {}
    for batch in batches:
        for number, ids in zip(batch["row"].tolist(), batch["input_ids"].tolist(), strict=True):
            rows[number] = [i for i in ids if i != tokenizer.pad_token_id]
    found = []
    for reader in range(readers):
        document: list[int] = []
        for number in sorted(n for n in rows if n % readers == reader):
            for token in rows[number]:
                document.append(token)
                if token == tokenizer.eos_token_id:
                    found.append(tuple(document))
                    document = []
        assert not document
    return found


def test_an_epoch_has_an_order_of_its_own_and_the_same_one_again(tmp_path):
    loader = corpus(tmp_path, streaming=True, shuffle_rows=50).train_dataloader()
    first, again = rows_of(loader), rows_of(loader)
    loader.set_epoch(1)
    second = rows_of(loader)
    assert first == again != second
    other = corpus(tmp_path, streaming=True, shuffle_rows=50, seed=1).train_dataloader()
    assert rows_of(other) not in (first, second)


def test_lightning_tells_a_stream_the_epoch(tmp_path):
    seen = []

    class Seen(L.LightningModule):
        def training_step(self, batch, batch_idx):
            seen.append(batch["row"].tolist())

        def configure_optimizers(self):
            return None

    data = corpus(tmp_path, streaming=True, shuffle_rows=50, batch_size=40)
    options = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    options |= {"accelerator": "cpu", "max_epochs": 2, "enable_model_summary": False}
    trainer = L.Trainer(default_root_dir=tmp_path, limit_val_batches=0, **options)
    trainer.fit(Seen(), datamodule=data)
    half = len(seen) // 2
    assert seen[:half] != seen[half:]
    loader = data.train_dataloader()
    wanted = [b["row"].tolist() for b in loader]
    loader.set_epoch(1)
    assert seen == wanted + [b["row"].tolist() for b in loader]


def _rank(rank, folder, store, results):
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    options = {"streaming": True, "packing": False, "max_length": 300, "batch_size": 1}
    loader = corpus(Path(folder), **options).train_dataloader()
    epochs = [list(loader), list(loader)]
    torch.save([*epochs, len(list(loader.stream))], f"{results}/{rank}")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_share_the_documents_and_take_equally_many_steps(tmp_path):
    # Written before both processes read them.
    held = corpus(tmp_path, packing=False, max_length=300)
    in_two_processes(_rank, (str(tmp_path), str(tmp_path / "store"), str(tmp_path)))
    first, second = (torch.load(tmp_path / str(rank)) for rank in (0, 1))
    # 239 documents: one rank had one more, and stopped with the other.
    assert (first[2], second[2]) == (120, 119)
    wanted = {tuple(row[: int(mask.sum())].tolist()) for row, mask in pairs(held)}
    for epoch in (0, 1):
        assert len(first[epoch]) == len(second[epoch]) == 119
        numbers = torch.cat([b["row"] for b in first[epoch] + second[epoch]]).tolist()
        assert len(set(numbers)) == len(numbers)
        found = [tuple(b["input_ids"][0].tolist()) for b in first[epoch] + second[epoch]]
        assert len(set(found)) == len(found) == 238 and set(found) < wanted


def test_what_a_stream_holds_does_not_grow_with_the_corpus(tmp_path, monkeypatch):
    monkeypatch.setattr(streamed_rows, "CHUNK", 2000)
    path = tmp_path / "train.txt"
    path.write_text("a small text for the beginning")
    options = {"tokenizer": train_byte_pairs(LINES[:8], 280, 64), "num_workers": 0}
    options |= {"max_length": 16, "shuffle_rows": 20, "document": "line"}
    data = TextCorpus(str(path), str(path), str(path), streaming=True, **options)
    data.setup()

    def peak(lines):
        path.write_text("\n".join(f"{i} {TEXTS[3]}" for i in range(lines)))
        tracemalloc.start()
        count = sum(len(batch["row"]) for batch in data.train_dataloader())
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return count, most

    peak(50)
    rows, small = peak(50)
    more, large = peak(500)
    assert more > 9 * rows
    assert large < 1.5 * small


def test_rows_are_drawn_from_those_that_are_held():
    rng = np.random.default_rng(0)
    drawn = list(shuffled(range(1000), 50, rng))
    assert sorted(drawn) == list(range(1000)) != drawn
    # None is drawn before it was read.
    assert max(row - place for place, row in enumerate(drawn)) <= 50
    assert list(shuffled(range(10), 1, rng)) == list(range(10))


@pytest.mark.parametrize("packing", [True, False])
def test_a_teacher_of_another_tokenizer_reads_the_same_texts_in_a_stream(tmp_path, packing):
    teacher = train_byte_pairs(LINES[8:9], 300, 64)
    options = {"teacher_tokenizer": teacher, "packing": packing, "max_length": 40}
    held = corpus(tmp_path, **options)
    stream = corpus(tmp_path, streaming=True, **options)
    texts = [text for batch in stream.train_dataloader() for text in written(batch, stream)]
    (batch,) = held.rows_dataloader([("train", range(held.num_rows), None)])
    assert sorted(texts) == sorted(written(batch, held))


def written(batch, data):
    """The documents of all rows, which both sides must have."""
    found = []
    for row in range(len(batch["row"])):
        texts = []
        for side, tokenizer in (
            (batch, data.tokenizer),
            (batch["teacher"], data.teacher_tokenizer),
        ):
            ids = [i for i in side["input_ids"][row].tolist() if i != tokenizer.pad_token_id]
            texts.append(tokenizer.decode(ids))
        assert texts[0] == texts[1]
        found += texts[0].split("<|endoftext|>")
    return [text for text in found if text]


def test_a_stream_needs_validation_data_of_its_own(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("some text\n" * 30)
    data = TextCorpus(str(path), document="line", streaming=True, vocab_size=300)
    with pytest.raises(ValueError, match=r"name a validation file .data.validation=FILE"):
        data.setup()


def test_a_stream_cannot_be_walked_by_number(tmp_path):
    data = corpus(tmp_path, streaming=True)
    with pytest.raises(ValueError, match=r"streams its training rows.*teacher=caching"):
        data.rows_dataloader([("train", [0], None)])
    with pytest.raises(TypeError, match="has no len"):
        len(data.train_dataloader())


def test_data_that_only_loads_cannot_be_streamed():
    data = Documents(streaming=True, vocab_size=300)
    with pytest.raises(ValueError, match="Documents cannot be streamed: set data.streaming=false"):
        data.setup()
