"""Questions, contexts and answers of files, and the windows in which models read them."""

import csv
import gzip
import itertools
import json

import datasets
import pytest
import torch

from lightning_distill.data import HubQuestions, QuestionFiles, TextFiles
from lightning_distill.data.text.word_pieces import train_word_pieces

FIRST = "Ann Lee was born in Rome, and moved to Oslo in 1998."
SECOND = "The river Unbelievably flows from the hills of the north to the grey sea near Oslo."
ROWS = [
    ("a", "Where was Ann born?", FIRST, ["Rome", "in Rome"]),
    ("b", "When did she move?", FIRST, ["1998"]),
    ("c", "Which river is it?", SECOND, ["Unbelievably"]),
    ("d", "Near which town is the sea?", SECOND, ["Oslo"]),
]


TEXTS = [FIRST, SECOND, *(row[1] for row in ROWS)]


def of_rows(rows=ROWS) -> list[dict]:
    return [
        {
            "id": name,
            "question": question,
            "context": context,
            "answers": [{"text": t, "answer_start": context.index(t)} for t in texts],
        }
        for name, question, context, texts in rows
    ]


def squad(rows, path, **more):
    """SQuAD's json, a paragraph for each context."""
    paragraphs: dict[str, list] = {}
    for row in rows:
        paragraphs.setdefault(row["context"], []).append(
            {k: v for k, v in row.items() if k != "context"}
        )
    entries = [{"context": context, "qas": qas} for context, qas in paragraphs.items()]
    content = json.dumps({"version": "v2.0", "data": [{"title": "x", "paragraphs": entries}]})
    if str(path).endswith(".gz"):
        with gzip.open(path, "wt") as file:
            file.write(content)
    else:
        path.write_text(content)
    return path


def flat(rows):
    """A single answer in columns of its own."""
    first = [row["answers"][0] if row["answers"] else {} for row in rows]
    return [
        {"question": row["question"], "context": row["context"], "text": own.get("text", ""),
         "answer_start": own.get("answer_start", "")}
        for row, own in zip(rows, first, strict=True)
    ]  # fmt: skip


def write(kind, path):
    rows = of_rows()
    if kind in ("squad.json", "squad.json.gz"):
        return squad(rows, path / kind)
    lists = [
        {**row, "answers": {key: [one[key] for one in row["answers"]] for key in
                            ("text", "answer_start")}} for row in rows
    ]  # fmt: skip
    file = path / kind
    if kind == "lists.jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in lists))
    elif kind == "rows.json":
        file.write_text(json.dumps(rows))
    elif kind == "lists.parquet":
        datasets.Dataset.from_list(lists).to_parquet(str(file))
    else:
        given = flat(rows) if kind == "flat.csv" else [
            {**row, "answers": json.dumps(row["answers"])} for row in rows
        ]  # fmt: skip
        with file.open("w", newline="") as opened:
            writer = csv.DictWriter(opened, list(given[0]))
            writer.writeheader()
            writer.writerows(given)
    return file


def ready(file, validation=None, **options) -> QuestionFiles:
    given = {"batch_size": 2, "max_length": 64, "stride": 8, **options}
    given.setdefault("tokenizer", train_word_pieces(TEXTS, 300, 64))
    data = QuestionFiles(str(file), str(validation or file), str(validation or file), **given)
    data.setup()
    return data


def answers(data, loader) -> dict[str, set]:
    """By question the texts between the first and the last token of each window."""
    known, found = data.references, {}
    for batch in loader:
        for number, (start, end) in zip(batch["window"].tolist(), batch["labels"].tolist(),
                                        strict=True):  # fmt: skip
            own = found.setdefault(known.questions[number], set())
            if start == -100:
                own.add(None)
            elif start != known.nulls[number]:
                own.add(known.text(number, start, end))
    return found


@pytest.mark.parametrize(
    "kind",
    ["squad.json", "squad.json.gz", "rows.json", "lists.jsonl", "lists.parquet", "flat.csv",
     "json.csv"],
)  # fmt: skip
def test_every_kind_of_file_is_read_alike(kind, tmp_path):
    data = ready(write(kind, tmp_path))
    assert data.num_labels == 2 and data.no_answer is False
    found = answers(data, data.val_dataloader())
    assert found == {i + 4: {row[3][0]} for i, row in enumerate(ROWS)}
    both = [row[3] if kind != "flat.csv" else row[3][:1] for row in ROWS]
    assert data.references.answers[:4] == both


def test_a_data_set_of_the_hub_is_read_alike(tmp_path):
    rows = [{**row, "answers": {key: [one[key] for one in row["answers"]] for key in
                                ("text", "answer_start")}} for row in of_rows()]  # fmt: skip
    split = datasets.Dataset.from_list(rows)
    datasets.DatasetDict({"train": split, "validation": split}).save_to_disk(str(tmp_path / "hub"))
    data = HubQuestions(str(tmp_path / "hub"), max_length=64, stride=8, vocab_size=200)
    data.setup()
    assert answers(data, data.val_dataloader()) == {i + 4: {r[3][0]} for i, r in enumerate(ROWS)}


def test_windows_overlap_and_hold_the_whole_context(tmp_path):
    file = squad(of_rows(), tmp_path / "train.json")
    data = ready(file, max_length=24, stride=6)
    rows = data.splits["train"]
    assert len(rows) > 4 and max(rows.lengths) <= 24
    windows, cls = rows.windows, data.tokenizer.cls_token_id
    for question, (_, asked, context, _texts) in enumerate(ROWS):
        own = [i for i, q in enumerate(windows.questions) if q == question]
        places = []
        for i in own:
            ids, starts, ends = (r[i] for r in (rows.student["input_ids"], windows.starts,
                                                windows.ends))  # fmt: skip
            assert ids[windows.nulls[i]] == cls
            inside = starts >= 0
            mask = rows.student["answer_mask"][i]
            assert mask.tolist() == [int(j == 0 or inside[j]) for j in range(len(ids))]
            pieces = data.tokenizer.convert_ids_to_tokens(ids[1 : list(inside).index(True) - 1])
            assert "".join(pieces).replace("##", "") == asked.lower().replace(" ", "")
            places.append(set(zip(starts[inside].tolist(), ends[inside].tolist(), strict=True)))
        letters = {n for part in places for a, b in part for n in range(a, b)}
        assert letters == {n for n, letter in enumerate(context) if letter != " "}
        for one, other in itertools.pairwise(places):
            assert len(one & other) == 6
    found = answers(data, data.val_dataloader())
    assert found == {i + 4: {row[3][0]} for i, row in enumerate(ROWS)}
    # Some windows hold no answer.
    assert any(bool((batch["labels"] == 0).any()) for batch in data.val_dataloader())


def test_questions_without_an_answer(tmp_path):
    rows = of_rows()
    rows[1] = {**rows[1], "answers": [], "is_impossible": True,
               "plausible_answers": [{"text": "Oslo", "answer_start": 39}]}  # fmt: skip
    data = ready(squad(rows, tmp_path / "two.json"))
    assert data.no_answer is True and data.references.no_answer
    assert answers(data, data.val_dataloader())[5] == set()
    assert data.references.answers[5] == []
    with pytest.raises(ValueError, match="say is_impossible, and data.no_answer=false says"):
        ready(tmp_path / "two.json", no_answer=False)
    del rows[1]["is_impossible"]
    # An empty list of answers is no label, unless it is said that there may be none.
    file = squad(rows, tmp_path / "one.json")
    assert answers(ready(file), ready(file).val_dataloader())[5] == {None}
    data = ready(file, no_answer=True)
    assert answers(data, data.val_dataloader())[5] == set()


def changed(**changes):
    rows = of_rows()
    rows[2] |= changes
    return rows


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            changed(answers=[{"text": "Unbelievably", "answer_start": 9}]),
            r"Question c of .*bad.json says that its answer 'Unbelievably' begins at letter 9 of "
            r"its context, where ' Unbelievabl' stands; it begins at 10. Correct `answer_start`",
        ),
        (
            changed(answers=[{"text": "sand", "answer_start": 9}]),
            r"Question c of .*bad.json .*, nor anywhere else in it",
        ),
        (changed(question=" "), r"Question c of .*bad.json has an empty text in 'question'"),
        (changed(question=None), r"Question c .*must hold a text in 'question', got None"),
        (
            changed(answers=[{"text": "sea", "answer_start": None}]),
            r"Question c of .*whole number in `answer_start`, got None",
        ),
    ],
)
def test_what_cannot_be_used_is_named_or_left_out(rows, words, tmp_path, caplog):
    squad(rows, tmp_path / "bad.json")
    good = squad(of_rows(), tmp_path / "good.json")
    with pytest.raises(ValueError, match=f"{words}.*data.skip_bad_rows=true"):
        ready(tmp_path / "bad.json", good)
    data = ready(tmp_path / "bad.json", good, skip_bad_rows=True)
    assert data.counts()["train rows left out"] == 1
    assert data.counts()["train questions"] == 3
    assert "1 of 4 rows of the train data were left out" in caplog.text


def test_files_that_are_none_are_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"data": [{"title": "x"}]}')
    with pytest.raises(ValueError, match="Entry 0 of `data` in .*a.json has no list `paragraphs`"):
        ready(tmp_path / "a.json")
    (tmp_path / "b.csv").write_text("frage,context\na,b\n")
    with pytest.raises(ValueError, match=r"no 'question' \(data.question\); it has context"):
        ready(tmp_path / "b.csv")
    tokenizer = train_word_pieces([FIRST], 200, 64)
    tokenizer.padding_side = "left"
    file = squad(of_rows(), tmp_path / "c.json")
    with pytest.raises(ValueError, match="pads before a text, which moves the positions"):
        ready(file, tokenizer=tokenizer)
    with pytest.raises(ValueError, match="max_length=16 leaves no room for a question"):
        ready(file, max_length=16, stride=12)


def test_tasks_and_files_that_do_not_fit_are_refused(tmp_path):
    file = write("flat.csv", tmp_path)
    with pytest.raises(ValueError, match="of QuestionFiles must be question_answering, or"):
        ready(file, task="classification")
    with pytest.raises(ValueError, match="got question_answering, which is read by data=question_"):
        TextFiles(str(file), str(file), text="question", task="question_answering", label="text")


def test_validation_questions_are_on_texts_of_their_own(tmp_path):
    file = squad(of_rows(), tmp_path / "train.json")
    options = {"max_length": 64, "stride": 8, "vocab_size": 200}
    data = QuestionFiles(str(file), validation_fraction=0.3, **options)
    data.setup()
    known = data.references
    sides = [{known.contexts[q] for q in known.questions[first : first + len(rows)]}
             for rows in data.splits.values() for first in [rows.first_window]]  # fmt: skip
    assert len(sides[0]) == len(sides[1]) == 1 and sides[0] != sides[1]


def test_labels_are_kept_by_questions(tmp_path):
    file = squad(of_rows(), tmp_path / "train.json")
    data = ready(file, max_length=24, stride=6, labelled_rows=2, seed=3)
    found = answers(data, data.train_dataloader())
    assert sorted(v == {None} for v in found.values()) == [False, False, True, True]
    assert data.counts()["labelled train rows"] == 2
    labelled = answers(data, data.replace(drop_unlabelled=True).train_dataloader())
    assert labelled == {q: v for q, v in found.items() if v != {None}}
    with pytest.raises(ValueError, match="`labelled_rows` is 5, but only 4 training questions"):
        ready(file, labelled_rows=5)


def test_windows_are_kept_and_found_again(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_DISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lightning_distill.data.text.windows.LEAST", 1)
    file = squad(of_rows(), tmp_path / "train.json")
    made = ready(file, max_length=24, stride=6)
    files = sorted((tmp_path / "cache" / "tokens").iterdir())
    found = ready(file, max_length=24, stride=6)
    assert files and sorted((tmp_path / "cache" / "tokens").iterdir()) == files
    assert made.fingerprint() == found.fingerprint()
    assert torch.equal(made.splits["train"].labels, found.splits["train"].labels)
    ready(file, max_length=24, stride=7)
    assert len(list((tmp_path / "cache" / "tokens").iterdir())) > len(files)
