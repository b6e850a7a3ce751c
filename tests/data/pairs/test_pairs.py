import json

import pytest
import torch

from lightning_distill.data import (
    FunctionDocs,
    KeepByEditDistance,
    KeepByLogProbability,
    KeepByRouge,
    KeepByWordErrorRate,
    PairFiles,
)
from lightning_distill.data.pairs.function_docs import functions_of
from lightning_distill.data.pairs.teacher_texts import read_texts

ROWS = [
    {"source": "a long and winding road to the hills", "target": "a road"},
    {"source": "short", "target": "the shortest of all the texts that are here"},
    {"source": "three blind mice run", "target": "mice"},
    {"source": "see how they run", "target": "they run"},
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def ready(path, **options) -> PairFiles:
    data = PairFiles(path, path, path, **{"vocab_size": 300, "batch_size": 4, **options})
    data.setup()
    return data


def test_sources_and_targets_come_back_from_a_batch(tmp_path):
    data = ready(write(tmp_path / "a.jsonl", ROWS))
    (batch,) = data.val_dataloader()
    end = data.tokenizer.eos_token_id
    for number, ids, mask, labels in zip(
        batch["row"], batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True
    ):
        row = ROWS[int(number)]
        assert data.tokenizer.decode(ids[mask.bool()]) == row["source"]
        kept = labels[labels != -100]
        assert int(kept[-1]) == end and bool((labels[len(kept) :] == -100).all())
        assert data.tokenizer.decode(kept[:-1]) == row["target"]
    lengths = [len(data.tokenizer(r["source"])["input_ids"]) for r in ROWS]
    lengths = [n + len(data.tokenizer(r["target"])["input_ids"]) + 1
               for n, r in zip(lengths, ROWS, strict=True)]  # fmt: skip
    assert data.row_lengths()["train"].tolist() == lengths
    assert data.num_rows == 4 and data.counts()["labelled train rows"] == 4


def test_a_target_is_cut_and_a_prefix_stands_before_each_source(tmp_path, caplog):
    path = write(tmp_path / "a.jsonl", ROWS)
    with caplog.at_level("WARNING", logger="lightning_distill"):
        data = ready(path, max_target_length=4, prefix="say: ")
    (batch,) = data.val_dataloader()
    assert batch["labels"].shape[1] == 4
    assert "data.max_target_length=4 tokens cuts" in caplog.text
    assert data.counts()["train targets cut"] == int(data.splits["train"].cut_targets.sum()) > 0
    text = data.tokenizer.decode(batch["input_ids"][0][batch["attention_mask"][0].bool()])
    assert text.startswith("say: ")
    assert data.fingerprint() != ready(path, max_target_length=4).fingerprint()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"source": "x", "target": "  "}, "Row 1 of the train data .*a.jsonl.* must have a target"),
        ({"source": "x", "target": None}, "target .column 'target'., and it holds None"),
        ({"source": "", "target": "y"}, "must have a source .*Write a text there, or delete"),
    ],
)
def test_a_row_without_a_source_or_a_target_is_a_bad_row(row, words, tmp_path):
    path = write(tmp_path / "a.jsonl", [ROWS[0], row, *ROWS[1:]])
    with pytest.raises(ValueError, match=words):
        ready(path)
    data = ready(path, skip_bad_rows=True)
    assert data.num_rows == 4 and data.counts()["train rows left out"] == 1


def test_columns_and_files_that_are_not_there_are_named(tmp_path):
    path = write(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(ValueError, match="no column 'targets' .data.target.*mean data.target=targ"):
        ready(path, target="targets")
    with pytest.raises(ValueError, match="data.train must be files of one kind"):
        ready(str(tmp_path / "a.txt")) if (tmp_path / "a.txt").write_text("x") else None
    with pytest.raises(ValueError, match="`keep` chooses among texts of a teacher.*job=generate"):
        ready(path, keep=KeepByRouge())
    with pytest.raises(FileNotFoundError, match="no file none.jsonl .data.targets.*job=generate"):
        ready(path, targets="none.jsonl")
    with pytest.raises(ValueError, match="`task` of PairFiles must be sequence_to_sequence"):
        ready(path, task="classification")


def texts(rows, made, sure=-0.5):
    return [{**row, "text": text, "log_probability": sure * (i + 1)}
            for i, (row, text) in enumerate(zip(rows, made, strict=True))]  # fmt: skip


def test_a_teachers_texts_take_the_place_of_training_targets(tmp_path, caplog):
    path = write(tmp_path / "a.jsonl", ROWS)
    made = ["the road", "shortest", "", "they run"]
    file = write(tmp_path / "texts.jsonl", texts(ROWS, made))
    with caplog.at_level("INFO", logger="lightning_distill"):
        data = ready(path, targets=file, keep=[KeepByLogProbability(least=-1.9)])
    # The third is empty, and of the fourth the teacher was not sure.
    assert [target for _, target in data.splits["train"].texts] == made[:2]
    assert [t for _, t in data.splits["test"].texts] == [row["target"] for row in ROWS]
    assert data.counts()["train rows left out by data.keep"] == 2
    assert "2 of 4 training rows are left out (KeepByLogProbability(least=-1.9))" in caplog.text
    write(tmp_path / "some.jsonl", texts(ROWS[:3], made[:3]))
    with pytest.raises(ValueError, match="no text for 1 of 4 training rows; the first is row 3"):
        ready(path, targets=str(tmp_path / "some.jsonl"))
    with pytest.raises(ValueError, match="None of the 4 texts .* passes data.keep"):
        ready(path, targets=file, keep=KeepByLogProbability(least=0.5))


def test_a_line_that_was_cut_off_is_no_text(tmp_path):
    path = tmp_path / "texts.jsonl"
    write(path, texts(ROWS[:2], ["one", "two"]))
    path.write_text(path.read_text() + '{"source": "see how')
    assert [text for text, _ in read_texts(path).values()] == ["one", "two"]
    path.write_text('{"source": 1}\n' + path.read_text())
    with pytest.raises(ValueError, match="Line 1 of .* must be an object with source, target"):
        read_texts(path)


def test_filters_are_their_measures():
    own = "the cat sat on the mat"
    near, far = "the cat sat on a mat", "nobody knows"
    # Three letters of 22 differ, one word of six, and five of six words are shared.
    assert KeepByEditDistance(3 / 22 + 1e-6)(own, near, 0) is True
    assert KeepByEditDistance(3 / 22 - 1e-2)(own, near, 0) is False
    assert KeepByWordErrorRate(1 / 6 + 1e-6)(own, near, 0)
    assert not KeepByWordErrorRate(1 / 6 - 1e-3)(own, near, 0)
    assert KeepByRouge(5 / 6 - 1e-6)(own, near, 0) and not KeepByRouge(5 / 6 + 1e-3)(own, near, 0)
    assert not any(f(own, far, 0) for f in (KeepByEditDistance(), KeepByRouge(),
                                            KeepByWordErrorRate()))  # fmt: skip
    assert KeepByWordErrorRate(0.0)("The cat.", "the CAT", 0)
    assert not KeepByWordErrorRate(0.0, normalized=False)("The cat.", "the CAT", 0)
    assert KeepByLogProbability(-1.0)(own, far, -0.9) and not KeepByLogProbability()(own, own, -1.1)
    with pytest.raises(ValueError, match="`most` lies between 0 and 1, got 2"):
        KeepByEditDistance(2)


def test_functions_and_what_they_do(tmp_path):
    (tmp_path / "a.py").write_text(
        'def add(a, b):\n    """Give the sum of\n    two numbers.\n\n    More."""\n'
        "    return a + b\n"
        'def none():\n    """Only a docstring here."""\n'
        "def without(a):\n    return a\n"
    )
    (found,) = functions_of(tmp_path / "a.py")
    assert found == ("def add(a, b):\n    return a + b", "Give the sum of two numbers.")


def test_the_standard_library_is_dealt_to_three_splits():
    first, second = (FunctionDocs(rows=200, vocab_size=400) for _ in range(2))
    for data in (first, second):
        data.setup()
    assert first.fingerprint() == second.fingerprint()
    assert sum(first.counts()[f"{n} rows"] for n in ("train", "validation", "test")) == 200
    train = set(first.splits["train"].texts)
    assert not train & set(first.splits["test"].texts)
    assert torch.is_tensor(next(iter(first.train_dataloader()))["labels"])
    with pytest.raises(ValueError, match="`rows` must be a whole number of 20 at least, got 3"):
        FunctionDocs(rows=3)
