"""Tokens are found again, and nothing about the folder can harm a run."""

import os
from pathlib import Path

import pytest
from processes import forked

from lightning_distill.data import tokens
from lightning_distill.data.text.word_pieces import train_word_pieces

TEXTS = [f"the {w} fox number {i}" for i in range(600) for w in ("quick", "slow")]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LIGHTNING_DISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tokens, "_said", set())
    return tmp_path / "cache" / "tokens"


def tokenizer():
    return train_word_pieces(TEXTS, 100, 16)


class Counted:
    """A tokenizer that says how many texts it was given."""

    def __init__(self):
        self.inner, self.count = tokenizer(), 0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __call__(self, texts, *more, **options):
        self.count += len(texts)
        return self.inner(texts, *more, **options)


def plain(found):
    return {name: [row.tolist() for row in rows] for name, rows in found.items()}


def expected(*texts, length=6):
    found = tokenizer()(*map(list, texts), truncation=True, max_length=length)
    return {name: list(rows) for name, rows in found.items()}


def test_the_second_time_nothing_is_tokenised(folder):
    first, second = Counted(), Counted()
    made = tokens.tokenise([TEXTS], first, 6)
    assert plain(made) == expected(TEXTS) and first.count == len(TEXTS)
    assert plain(tokens.tokenise([TEXTS], second, 6)) == expected(TEXTS)
    assert second.count == 0 and len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("change", ["text", "length", "pair", "tokenizer", "border"])
def test_other_tokens_are_never_taken_for_these(folder, change):
    tokens.tokenise([TEXTS], tokenizer(), 6)
    texts, length, other = [list(TEXTS)], 6, Counted()
    if change == "text":
        texts[0][-1] += " fox"
    elif change == "length":
        length = 5
    elif change == "pair":
        texts.append(TEXTS)
    elif change == "border":
        # The same letters in the same order, but other rows.
        texts[0][0], texts[0][1] = TEXTS[0] + TEXTS[1][:1], TEXTS[1][1:]
    else:
        other.inner.add_tokens(["quick"])
    found = plain(tokens.tokenise(texts, other, length))
    asked = other.inner(*texts, truncation=True, max_length=length)
    assert found == {name: list(rows) for name, rows in asked.items()}
    assert other.count == len(TEXTS)


@pytest.mark.parametrize("is_fast", [True, False])
@pytest.mark.parametrize("pairs", [False, True])
def test_which_rows_are_cut_is_kept_with_them(folder, is_fast, pairs):
    texts = [["the fox", "the quick fox number", "the quick slow fox number"] * 400]
    texts += [["fox"] * 1200] if pairs else []
    own = tokenizer()
    lengths = [len(ids) for ids in own(*texts)["input_ids"]]
    wanted = sorted(set(lengths))[1]

    class Plain:
        """As a tokenizer that is written in Python: it does not say what it has cut."""

        pad_token_id = own.pad_token_id

        def __getattr__(self, name):
            return getattr(own, name)

        def __call__(self, *more, **options):
            return dict(own(*more, **options))

    for _ in range(2):
        found = tokens.tokenise(texts, own if is_fast else Plain(), wanted)
        assert found.cut.tolist() == [length > wanted for length in lengths]
    assert 0 < found.cut.sum() < 1200


def test_few_rows_leave_no_file(folder):
    assert plain(tokens.tokenise([TEXTS[:10]], tokenizer(), 6)) == expected(TEXTS[:10])
    assert not folder.exists()


def test_a_tokenizer_written_in_python_leaves_no_file(folder):
    own = Counted()
    own.is_fast = False
    tokens.tokenise([TEXTS], own, 6)
    tokens.tokenise([TEXTS], own, 6)
    assert own.count == 2 * len(TEXTS) and not folder.exists()


def test_a_folder_that_cannot_be_written_is_said_once(folder, caplog):
    folder.parent.mkdir()
    # Works for root too, whom no permission stops.
    folder.write_text("a file in its place")
    for _ in range(2):
        assert plain(tokens.tokenise([TEXTS], tokenizer(), 6)) == expected(TEXTS)
    (said,) = [r.getMessage() for r in caplog.records]
    assert "tokens cannot be kept in" in said and "LIGHTNING_DISTILL_CACHE" in said


def test_a_full_disk_is_said_and_leaves_no_half_file(folder, caplog, monkeypatch):
    made = tokens.datasets.arrow_writer.ArrowWriter.write_batch

    def full(self, *args, **kwargs):
        if self._path is not None:
            raise OSError(28, "No space left on device")
        return made(self, *args, **kwargs)

    monkeypatch.setattr(tokens.datasets.arrow_writer.ArrowWriter, "write_batch", full)
    assert plain(tokens.tokenise([TEXTS], tokenizer(), 6)) == expected(TEXTS)
    assert "No space left" in caplog.text and not list(folder.iterdir())


@pytest.mark.parametrize("harm", ["cut", "emptied", "garbage"])
def test_a_broken_file_is_made_anew(folder, harm):
    tokens.tokenise([TEXTS], tokenizer(), 6)
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    broken = {"cut": whole[: len(whole) // 2], "emptied": b"", "garbage": b"x" * 5000}[harm]
    file.unlink()
    file.write_bytes(broken)
    assert plain(tokens.tokenise([TEXTS], tokenizer(), 6)) == expected(TEXTS)
    tokens.tokenise([TEXTS], tokenizer(), 6)
    again = Counted()
    assert plain(tokens.tokenise([TEXTS], again, 6)) == expected(TEXTS) and again.count == 0


def _run(killed, folder):
    os.environ["LIGHTNING_DISTILL_CACHE"] = folder
    if killed:
        tokens.datasets.arrow_writer.ArrowWriter.finalize = lambda *_, **__: os._exit(9)
    assert plain(tokens.tokenise([TEXTS], tokenizer(), 6)) == expected(TEXTS)


@pytest.mark.slow
def test_a_killed_process_and_two_at_once_leave_one_whole_file(folder):
    def start(killed):
        process = forked(_run, killed, os.environ["LIGHTNING_DISTILL_CACHE"])
        process.start()
        return process

    def ended(process):
        process.join()
        return process.exitcode

    assert ended(start(True)) == 9
    assert not list(folder.glob("*.arrow"))
    both = [start(False), start(False)]
    assert [ended(process) for process in both] == [0, 0]
    assert len(list(folder.glob("*.arrow"))) == 1
    again = Counted()
    assert plain(tokens.tokenise([TEXTS], again, 6)) == expected(TEXTS) and again.count == 0
