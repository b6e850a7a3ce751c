"""What of a conversation is learnt, against the text of the answers."""

import json
import logging

import datasets
import pytest
from data.language.test_language_model import in_order

from lightning_distill.data import ChatFiles
from lightning_distill.data.language.byte_pairs import train_byte_pairs

PLAIN = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
TAGGED = (
    "{% for m in messages %}<|{{ m.role }}|>\n{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}<|end|>{% endgeneration %}{% else %}{{ m.content }}<|end|>"
    "{% endif %}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
# Drops what was thought in all turns but the last, as Qwen3 and DeepSeek-R1 do.
FORGETFUL = (
    "{% for m in messages %}<|{{ m.role }}|>\n"
    "{% if loop.last %}{{ m.content }}{% else %}{{ m.content.split('~')[-1] }}{% endif %}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def said(*turns):
    return [{"role": role, "content": content} for role, content in turns]


CHATS = [
    said(("user", "What is 狐?"), ("assistant", "A fox, naïve 🦊.")),
    said(
        ("system", "Be brief."),
        ("user", "One?"),
        ("assistant", "1"),
        ("user", "And then two?"),
        ("assistant", "The number 2, of course"),
    ),
    said(("user", "Hi"), ("assistant", "Hello you"), ("user", "Bye")),
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_DISTILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def bpe(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTNING_DISTILL_CACHE", str(tmp_path_factory.mktemp("cache")))
        texts = [m["content"] for chat in CHATS for m in chat] * 2
        tokenizer = train_byte_pairs(texts, 300, 256)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    return tokenizer


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def made(tmp_path, bpe, template=PLAIN, rows=None, **options):
    rows = [{"messages": chat} for chat in CHATS] if rows is None else rows
    file = written(tmp_path / "train.jsonl", rows)
    held = written(tmp_path / "held.jsonl", [{"messages": CHATS[0]}])
    path = tmp_path / "template.jinja"
    path.write_text(template)
    options = {"chat_template": str(path), "max_length": 200, "tokenizer": bpe} | options
    data = ChatFiles(file, held, held, **options)
    data.setup()
    return data


def learnt(row, tokenizer):
    """What is predicted, in words, and where each stretch of it begins."""
    labels = row["labels"][0].tolist()
    stretches, last = [], None
    for place, label in enumerate(labels):
        if label != -100:
            if last != place - 1:
                stretches.append([])
            stretches[-1].append(label)
            last = place
            # It is the token that follows.
            assert place + 1 == len(labels) or label == int(row["input_ids"][0, place + 1])
    return [tokenizer.decode(ids) for ids in stretches]


@pytest.mark.parametrize(("template", "end"), [(PLAIN, "<|end|>\n"), (TAGGED, "<|end|>")])
@pytest.mark.parametrize("packing", [False, True])
def test_the_answers_are_learnt_and_nothing_else(tmp_path, bpe, template, end, packing):
    data = made(tmp_path, bpe, template, packing=packing)
    answers = [m["content"] + end for c in CHATS for m in c if m["role"] == "assistant"]
    found = [text for row in in_order(data) for text in learnt(row, data.tokenizer)]
    assert sorted(found) == sorted(answers)
    if packing:
        # Whole conversations share a row, each from position 0.
        assert data.num_rows < len(CHATS)
        assert sum(int((row["position_ids"][0] == 0).sum()) for row in in_order(data)) >= 3
    for row, text in zip(in_order(data), CHATS, strict=False):
        if not packing:
            whole = data.tokenizer.decode(row["input_ids"][0])
            assert whole == data.tokenizer.apply_chat_template(text, tokenize=False)
            answers = "".join(m["content"] for m in text if m["role"] == "assistant")
            turns = sum(m["role"] == "assistant" for m in text)
            # `<|end|>` stands for no text.
            size = len(answers.encode()) + (turns if end.endswith("\n") else 0)
            assert int(row["label_bytes"].sum()) == size


def test_a_token_that_reaches_into_the_answer_is_learnt(tmp_path, bpe):
    # The space belongs to the invitation, and the token to both.
    template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    chats = [{"messages": said(("user", "number?"), ("assistant", "number"))}]
    tokenizer = train_byte_pairs([": number number number\n"] * 9, 270, 64)
    data = made(tmp_path, tokenizer, template, rows=chats, packing=False)
    (row,) = in_order(data)
    assert learnt(row, tokenizer) == [" number\n"]


def test_prompts_and_completions_are_conversations_too(tmp_path, bpe):
    rows = [
        {"prompt": "One?", "completion": "1"},
        {
            "prompt": said(("system", "Be brief."), ("user", "One?")),
            "completion": said(("assistant", "1")),
        },
    ]
    for row, ask in zip(rows, ("", "<|system|>\nBe brief.<|end|>\n"), strict=True):
        data = made(tmp_path, bpe, rows=[row], packing=False)
        (found,) = in_order(data)
        assert learnt(found, data.tokenizer) == ["1<|end|>\n"]
        text = data.tokenizer.decode(found["input_ids"][0])
        assert text == ask + "<|user|>\nOne?<|end|>\n<|assistant|>\n1<|end|>\n"


def test_parquet_and_a_stream_give_the_same(tmp_path, bpe):
    data = made(tmp_path, bpe, packing=False)
    path = tmp_path / "chats.parquet"
    datasets.Dataset.from_list([{"messages": chat} for chat in CHATS]).to_parquet(path)
    options = {"chat_template": str(tmp_path / "template.jinja"), "tokenizer": bpe}
    options |= {"max_length": 200, "packing": False}
    other = ChatFiles(str(path), str(path), str(path), **options)
    other.setup()
    expected = [row["labels"].tolist() for row in in_order(data)]
    assert [row["labels"].tolist() for row in in_order(other)] == expected
    stream = ChatFiles(
        str(path), str(path), str(path), streaming=True, shuffle_rows=1, batch_size=1, **options
    )
    stream.setup()
    assert [row["labels"].tolist() for row in stream.train_dataloader()] == expected


def test_a_template_that_forgets_is_refused_and_tags_are_the_way_out(tmp_path, bpe):
    rows = [
        {"messages": said(("user", "a"), ("assistant", "hm~b"), ("user", "c"), ("assistant", "d"))}
    ]
    with pytest.raises(
        ValueError, match=r"writes the beginning of row 1 of .*train.jsonl differently"
    ):
        made(tmp_path, bpe, FORGETFUL, rows=rows)
    with pytest.raises(ValueError, match=r"\{% generation %\} .* data.chat_template=FILE"):
        made(tmp_path, bpe, FORGETFUL, rows=rows)


def test_an_answer_to_nothing_is_refused_without_tags(tmp_path, bpe):
    rows = [{"messages": said(("assistant", "b"), ("user", "c"), ("assistant", "d"))}]
    with pytest.raises(ValueError, match="row 1 of .* begins with a turn of the assistant"):
        made(tmp_path, bpe, rows=rows)
    data = made(tmp_path, bpe, TAGGED, rows=rows, packing=False)
    assert learnt(in_order(data)[0], data.tokenizer) == ["b<|end|>", "d<|end|>"]


def test_a_tokenizer_without_a_template_is_refused(tmp_path, bpe):
    with pytest.raises(ValueError, match="has no chat template.*data.chat_template=FILE"):
        made(tmp_path, bpe, chat_template=None)
    with pytest.raises(FileNotFoundError, match=r"no file none.jinja \(data.chat_template"):
        made(tmp_path, bpe, chat_template="none.jinja")
    # The caller's own tokenizer is not given one.
    made(tmp_path, bpe)
    assert bpe.chat_template is None


def test_a_conversation_that_the_template_cannot_write_is_named(tmp_path, bpe):
    template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ValueError, match=r"row 1 of .* \(user, assistant\): roles must"):
        made(tmp_path, bpe, template)


def test_what_is_cut_before_its_answer_is_left_out_and_counted(tmp_path, bpe, caplog):
    rows = [{"messages": CHATS[0]}, {"messages": said(("user", "long " * 60), ("assistant", "x"))}]
    with caplog.at_level(logging.WARNING):
        data = made(tmp_path, bpe, rows=rows, max_length=80)
    assert "1 of 2 documents of the train data have nothing to predict within 80" in caplog.text
    assert data.num_rows == 1
    assert "data.max_length=80 tokens cuts 1 of 2 train documents (50.0 %)" in caplog.text
    assert data.counts()["train documents cut by max_length"] == 1


def test_conversations_without_an_answer_are_left_out_and_counted(tmp_path, bpe, caplog):
    rows = [{"messages": CHATS[0]}, {"messages": said(("user", "hello"))}]
    with caplog.at_level(logging.WARNING):
        data = made(tmp_path, bpe, rows=rows)
    assert "1 of 2 conversations of the train data have no turn of the assistant" in caplog.text
    assert data.counts()["train documents"] == 1
    with pytest.raises(ValueError, match="The train data has no rows"):
        made(tmp_path, bpe, rows=rows[1:])


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"messages": "text"}, "row 1 of .* must hold a list of {role: ..., content: ...}"),
        ({"messages": []}, r"must hold a list of .* in 'messages', got \[\]"),
        ({"messages": [{"from": "human", "value": "x"}]}, "Rename `from` to `role`"),
        ({"conversations": [{"role": "user", "content": "x"}]}, "mean data.messages=conversations"),
        ({"prompt": "x"}, "has no column 'messages' .*, nor 'completion'; it has prompt"),
        ({"prompt": "x", "completion": 3}, "must hold a list of .* in 'completion', got 3"),
    ],
)
def test_rows_that_are_no_conversations(tmp_path, bpe, row, words):
    with pytest.raises(ValueError, match=words):
        made(tmp_path, bpe, rows=[row])


def test_files_of_other_kinds(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("x")
    with pytest.raises(ValueError, match=r"a.txt \(data.train\) must end in .jsonl, .json"):
        ChatFiles(str(path)).setup()


def test_a_tokenizer_is_trained_on_what_is_said_and_the_teacher_takes_the_template(tmp_path, bpe):
    data = made(tmp_path, None, tokenizer=None, vocab_size=280, teacher_tokenizer=bpe)
    assert data.tokenizer.decode(data.tokenizer("A fox")["input_ids"]) == "A fox"
    for row in in_order(data):
        ours, theirs = learnt(row, data.tokenizer), learnt(row["teacher"], data.teacher_tokenizer)
        assert ours == theirs and ours
    assert data.preprocessing()["chat_templates"] == [PLAIN, PLAIN]


def test_rows_that_are_no_conversations_are_left_out_and_counted_where_that_is_asked(
    tmp_path, bpe, caplog
):
    rows = [{"messages": CHATS[0]}, {"messages": []}, {"messages": CHATS[1]}]
    with pytest.raises(ValueError, match="row 2 of .*To leave such rows out: data.skip_bad_rows"):
        made(tmp_path, bpe, rows=rows)
    with caplog.at_level(logging.WARNING):
        data = made(tmp_path, bpe, rows=rows, skip_bad_rows=True)
    assert data.counts()["train documents"] == 2
    assert data.counts()["train rows left out"] == 1
    assert "1 of 3 rows of the train data were left out" in caplog.text
    assert len(list(data.documents("train", 0))) == 2
    # Epochs of a stream do not count again what is held.
    assert data.counts()["train rows left out"] == 1
    with pytest.raises(ValueError, match="None of the 1 rows of the train data can be used"):
        made(tmp_path, bpe, rows=rows[1:2], skip_bad_rows=True)
