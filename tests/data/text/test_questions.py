import json
import random

import datasets
import pytest
import torch

from lightning_distill.data import HubQuestions, QuestionFiles
from lightning_distill.data.text.word_pieces import train_word_pieces

DRAW = random.Random(0)
NAMES = ["Ann", "Bob", "Eve", "Ida", "Max", "Zoe"]


def rows(count: int, words: int = 12) -> list[dict]:
    found = []
    for i in range(count):
        names = DRAW.choices(NAMES, k=words)
        at = DRAW.randrange(words)
        context = f"{i}. " + " and ".join(names)
        start = len(f"{i}. " + "".join(f"{n} and " for n in names[:at]))
        answers = {"text": [names[at]], "answer_start": [start]}
        found.append({"question": f"who is {at}?", "context": context, "answers": answers})
    return found


ROWS = rows(8)
OPTIONS = {
    "vocab_size": 120,
    "batch_size": 4,
    "max_length": 28,
    "max_question_length": 6,
    "stride": 6,
}


def ready(path, **options) -> QuestionFiles:
    data = QuestionFiles(str(path), str(path), str(path), **{**OPTIONS, **options})
    data.setup()
    return data


def lines(path, found) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return str(path)


def squad(found, version=1) -> str:
    paragraphs = []
    for i, row in enumerate(found):
        given = row["answers"]
        answers = [
            {"text": t, "answer_start": s}
            for t, s in zip(given["text"], given["answer_start"], strict=True)
        ]
        asked = {"id": str(i), "question": row["question"], "answers": answers}
        if version == 2:
            asked["is_impossible"] = not answers
        paragraphs.append({"context": row["context"], "qas": [asked]})
    return json.dumps({"version": f"{version}", "data": [{"title": "", "paragraphs": paragraphs}]})


def test_all_forms_of_files_hold_the_same_questions(tmp_path):
    (tmp_path / "a.json").write_text(squad(ROWS))
    first = ready(tmp_path / "a.json")
    flat = [
        {
            **{k: row[k] for k in ("question", "context")},
            "answer": row["answers"]["text"][0],
            "answer_start": row["answers"]["answer_start"][0],
        }
        for row in ROWS
    ]
    lines(tmp_path / "b.jsonl", ROWS)
    lines(tmp_path / "c.jsonl", flat)
    datasets.Dataset.from_list(ROWS).to_parquet(tmp_path / "d.parquet")
    datasets.Dataset.from_list(flat).to_csv(tmp_path / "e.csv")
    as_list = [
        {
            **row,
            "answers": [
                {"text": t, "answer_start": s}
                for t, s in zip(*row["answers"].values(), strict=True)
            ],
        }
        for row in ROWS
    ]
    lines(tmp_path / "f.jsonl", as_list)
    for name in ("b.jsonl", "c.jsonl", "d.parquet", "e.csv", "f.jsonl"):
        data = ready(tmp_path / name)
        assert data.fingerprint() == first.fingerprint(), name
        assert data.questions == first.questions
    split = datasets.Dataset.from_list(ROWS)
    splits = {n: split for n in ("train", "validation", "test")}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "hub")
    hub = HubQuestions(str(tmp_path / "hub"), **OPTIONS)
    hub.setup()
    assert hub.fingerprint() == first.fingerprint()


def test_every_answer_is_found_where_a_window_holds_it_whole(tmp_path):
    data = ready(lines(tmp_path / "a.jsonl", ROWS))
    held: dict[int, int] = {}
    windows = 0
    for batch in data.test_dataloader():
        for i in range(len(batch["row"])):
            windows += 1
            number = int(batch["question"][i])
            context, right = data.questions.contexts[number], data.questions.answers[number][0]
            first, last = batch["labels"][i].tolist()
            begins, ends = batch["begins"][i], batch["ends"][i]
            shown = context[int(begins[begins > 0].min()) - 1 : int(ends.max())]
            place = ROWS[number % len(ROWS)]["answers"]["answer_start"][0]
            whole = int(begins[begins > 0].min()) - 1 <= place and ends.max() >= place + len(right)
            assert (first > 0) is bool(whole), shown
            if first:
                assert context[int(begins[first]) - 1 : int(ends[last])] == right
                held[number] = held.get(number, 0) + 1
    assert len(held) == len(ROWS) < windows
    # Where windows overlap, both may hold it.
    assert max(held.values()) > 1
    assert data.counts()["test questions"] == len(ROWS)


def test_questions_without_an_answer_and_without_a_label(tmp_path):
    none = [{**ROWS[0], "answers": {"text": [], "answer_start": []}}, *ROWS[1:]]
    (tmp_path / "a.json").write_text(squad(none, version=2))
    data = ready(tmp_path / "a.json")
    assert data.questions.some_have_none
    labels = data.splits["test"].labels[data.splits["test"].of_row == 0]
    assert bool((labels == 0).all()) and len(labels) > 1
    unlabelled = [{k: v for k, v in row.items() if k != "answers"} for row in ROWS]
    data = QuestionFiles(
        lines(tmp_path / "u.jsonl", unlabelled),
        lines(tmp_path / "v.jsonl", ROWS),
        **OPTIONS,
    )
    data.setup()
    assert data.counts()["labelled train rows"] == 0
    data = ready(lines(tmp_path / "c.jsonl", ROWS), labelled_rows=3)
    kept = data.training_rows()
    labelled = {int(n) for n in kept.of_row[kept.has_label.numpy()]}
    assert len(labelled) == 3 and all(
        bool(kept.has_label[i]) is (int(n) in labelled) for i, n in enumerate(kept.of_row)
    )


def test_validation_rows_that_are_cut_share_no_text_with_the_training(tmp_path):
    twice = [row for row in rows(10) for _ in range(3)]
    data = QuestionFiles(lines(tmp_path / "a.jsonl", twice), validation_fraction=0.2, **OPTIONS)
    data.setup()
    texts = [
        {data.questions.contexts[int(n) + rows_.first] for n in rows_.of_row}
        for rows_ in data.splits.values()
    ]
    assert len(texts[0]) == 8 and len(texts[1]) == 2 and not texts[0] & texts[1]


BAD = [
    ({"answers": {"text": ["Tom"], "answer_start": [3]}}, r"'Tom' starts at letter 3.*not hold"),
    ({"answers": {"text": ["and"], "answer_start": [0]}}, r"'and' starts at letter 0.*stands at"),
    ({"answers": {"text": ["a", "b"], "answer_start": [0]}}, r"must hold answers as \{text"),
    ({"question": " "}, r"must hold a text in 'question', got ' '"),
    ({"context": ""}, "must hold a text in 'context', got ''"),
]


@pytest.mark.parametrize(("change", "words"), BAD)
def test_bad_questions_are_named_or_left_out(change, words, tmp_path):
    found = [*ROWS[:2], {**ROWS[2], **change}, *ROWS[3:]]
    path = lines(tmp_path / "a.jsonl", found)
    with pytest.raises(ValueError, match=f"Row 2 of the train data .*{words}.*skip_bad_rows"):
        ready(path)
    data = ready(path, skip_bad_rows=True)
    assert data.counts()["test rows left out"] == 1
    assert data.counts()["test questions"] == len(ROWS) - 1
    if '"b"' not in json.dumps(change):
        (tmp_path / "s.json").write_text(squad(found))
        with pytest.raises(ValueError, match=f"Question 2 of .*s.json .*{words}"):
            ready(tmp_path / "s.json")


def test_what_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"data": [{"title": "x"}]}')
    with pytest.raises(ValueError, match=r"a.json is not built as SQuAD.*lacks 'paragraphs'"):
        ready(tmp_path / "a.json")
    path = lines(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(ValueError, match=r"no column 'asked'.*data.question=COLUMN"):
        ready(path, question="asked")
    with pytest.raises(ValueError, match=r"`max_length` is 28.*leave -42 for"):
        ready(path, max_question_length=64)
    with pytest.raises(ValueError, match=r"must be question_answering, got classification"):
        ready(path, task="classification")
    other = train_word_pieces(["x y z"], 60, 32)
    with pytest.raises(ValueError, match=r"Student and teacher point at tokens"):
        ready(path, teacher_tokenizer=other)
    own = train_word_pieces([r["context"] for r in ROWS], 120, 32)
    own.padding_side = "left"
    with pytest.raises(ValueError, match="pads on the left"):
        ready(path, tokenizer=own)


def test_long_questions_are_cut(tmp_path):
    long = [{**row, "question": "who is it " * 30} for row in ROWS]
    data = ready(lines(tmp_path / "a.jsonl", long))
    (batch, *_) = data.val_dataloader()
    before = (batch["begins"] > 0).int().argmax(1)
    # [CLS], six tokens of the question and [SEP].
    assert torch.equal(before, torch.full_like(before, 8))
