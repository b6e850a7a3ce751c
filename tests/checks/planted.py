"""A folder of small data and models that fit, and faults that are planted into it."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tiny import bert, gpt2
from transformers import ViTConfig, ViTForImageClassification

from lightning_distill.data import ImageProcessor
from lightning_distill.data.language.byte_pairs import train_byte_pairs
from lightning_distill.data.text.word_pieces import train_word_pieces

GOOD, BAD = ["fine", "great", "bright", "happy"], ["poor", "awful", "sad", "dull"]
THINGS = ["film", "book", "song", "play", "meal", "walk", "trip", "game"]
COLUMNS = {"train": 320, "dev": 80, "test": 80}
TEMPLATE = (
    "{% for m in messages %}{{ '<' + m['role'] + '> ' + m['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant> ' }}{% endif %}"
)


@dataclass(frozen=True)
class Fault:
    """Something that is wrong with a run.

    Args:
        name: of the fault.
        typed: words behind those of the run that is right.
        finds: the name of the finding that names it, or words of the error.
        run: which of `RUNS` it is planted into.
        write: changes files before.
    """

    name: str
    typed: tuple[str, ...]
    finds: str
    run: str = "texts"
    write: Callable[[Path], None] | None = None


def row(number: int, draw: random.Random) -> tuple[str, str]:
    label = "good" if number % 2 else "bad"
    words = [draw.choice(GOOD if number % 2 else BAD) for _ in range(2)]
    things = [draw.choice(THINGS) for _ in range(3)]
    return f"a {words[0]} {things[0]} and {words[1]} {things[1]} {things[2]} {number % 97}", label


def rows(split: str) -> list[tuple[str, str]]:
    draw = random.Random(split)
    return [row(i, draw) for i in range(COLUMNS[split])]


def write_table(path: Path, found: list[tuple[str, str]]) -> None:
    path.write_text("\n".join(["text,kind", *(f"{text},{kind}" for text, kind in found)]) + "\n")


def learnt(model: Any, batch: dict[str, torch.Tensor], steps: int, rate: float = 1e-2) -> Any:
    """The model after some steps on one batch of all rows."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    return model.eval()


def write_all(folder: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        _write_texts(folder)
        _write_chats(folder)
        _write_pictures(folder)


def _write_texts(folder: Path) -> None:
    for split in COLUMNS:
        write_table(folder / f"{split}.csv", rows(split))
    texts, labels = zip(*rows("train"), strict=True)
    tokenizer = train_word_pieces(list(texts), 150, 32)
    other = [text[::-1] for text in texts]
    train_word_pieces(other, 150, 32).save_pretrained(folder / "reader")
    model = bert(2, 16, num_labels=2, vocab_size=len(tokenizer), hidden_dropout_prob=0.0)
    encoded = dict(tokenizer(list(texts), padding=True, return_tensors="pt"))
    classes = torch.tensor([("bad", "good").index(label) for label in labels])
    learnt(model, {**encoded, "labels": classes}, 25)
    for name in ("teacher", "swapped", "untrained", "undefined", "animals", "three", "few_words"):
        own = model
        if name in ("untrained", "animals", "three", "few_words"):
            size = 9 if name == "few_words" else len(tokenizer)
            count = 3 if name == "three" else 2
            own = bert(1, 16, seed=5, num_labels=count, vocab_size=size)
            own.classifier.weight.data.zero_()
        names = {"animals": ["cat", "dog"], "three": ["bad", "good", "so"]}.get(name)
        names = names or ["bad", "good"]
        if name == "swapped":
            # As a head that was trained with labels in another order, and says nothing of it.
            names = ["LABEL_0", "LABEL_1"]
            own.classifier.weight.data = own.classifier.weight.data.flip(0)
            own.classifier.bias.data = own.classifier.bias.data.flip(0)
        own.config.id2label = dict(enumerate(names))
        own.config.label2id = {label: i for i, label in enumerate(names)}
        if name == "undefined":
            own.classifier.bias.data.fill_(float("nan"))
        own.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        if name == "swapped":
            own.classifier.weight.data = own.classifier.weight.data.flip(0)
            own.classifier.bias.data = own.classifier.bias.data.flip(0)


def conversation(i: int) -> list[dict[str, str]]:
    first, second = i % 8, i // 8 % 8
    return [
        {"role": "user", "content": f"What is {first} + {second}?"},
        {"role": "assistant", "content": f"It is {first + second}."},
    ]


def _write_chats(folder: Path) -> None:
    lines = [json.dumps({"messages": conversation(i)}) for i in range(64)]
    # Every fourth sum is for validation.
    train, later = [n for i, n in enumerate(lines) if i % 4], lines[::4]
    (folder / "chats.jsonl").write_text("\n".join(train) + "\n")
    (folder / "later.jsonl").write_text("\n".join(later) + "\n")
    texts = [message["content"] for i in range(64) for message in conversation(i)]
    tokenizer = train_byte_pairs(texts * 3, 300, 64)
    tokenizer.chat_template = TEMPLATE
    model = gpt2(1, 16, len(tokenizer))
    written = [tokenizer.apply_chat_template(conversation(i), tokenize=False) for i in range(64)]
    encoded = dict(tokenizer(written, return_tensors="pt", padding=True))
    encoded["labels"] = encoded["input_ids"].masked_fill(encoded["attention_mask"] == 0, -100)
    learnt(model, encoded, 60)
    for name, template in (
        ("speaker", TEMPLATE),
        ("stranger", TEMPLATE.replace("'<' +", "'[' +").replace("<assistant>", "[assistant>")),
        ("endless", TEMPLATE.replace(" + eos_token", "")),
    ):
        tokenizer.chat_template = template
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def _write_pictures(folder: Path) -> None:
    draw = np.random.default_rng(0)
    processor = ImageProcessor(8, 8, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    inputs, classes = [], []
    for split, count in (("train", 48), ("val", 24)):
        for i in range(count):
            pixels = draw.integers(0, 100, (8, 8, 3)).astype(np.uint8)
            pixels[:, :, i % 3] += 150
            for name in (split, "test") if split == "val" else (split,):
                path = folder / "pictures" / name / f"kind{i % 3}" / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
            if split == "train":
                inputs.append(processor(torch.from_numpy(pixels).permute(2, 0, 1)))
                classes.append(i % 3)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=8,
        patch_size=4,
        num_labels=3,
        hidden_dropout_prob=0.0,
        id2label={i: f"kind{i}" for i in range(3)},
        label2id={f"kind{i}": i for i in range(3)},
    )
    batch = {"pixel_values": torch.stack(inputs), "labels": torch.tensor(classes)}
    learnt(ViTForImageClassification(config), batch, 40).save_pretrained(folder / "eye")
    processor.save_pretrained(folder / "eye")


SMALL = ("trainer.accelerator=cpu", "trainer.max_epochs=4", "job.seconds=0.01", "job.rows=80")
SMALL += ("job.memory=false",)
SIZES = tuple(
    f"student.{name}={value}"
    for name, value in {
        "hidden_size": 8,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "intermediate_size": 8,
    }.items()
)
LLAMA = tuple(
    f"student.{name}={value}"
    for name, value in {
        "hidden_size": 8,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "num_hidden_layers": 1,
        "intermediate_size": 8,
        "head_dim": 4,
    }.items()
)
# Runs of which nothing is wrong.
RUNS: dict[str, tuple[str, ...]] = {
    "texts": (
        *("data=text_files", "data.train=train.csv", "data.validation=dev.csv"),
        *("data.test=test.csv", "data.label=kind", "data.max_length=24", "data.batch_size=16"),
        *("teacher=pretrained", "teacher.path=teacher", *SIZES, *SMALL),
        "student.max_position_embeddings=32",
    ),
    "chats": (
        *("data=chat_files", "data.train=chats.jsonl", "data.validation=later.jsonl"),
        *("data.test=later.jsonl", "data.packing=false", "data.max_length=64"),
        *("data.batch_size=8", "teacher=pretrained", "teacher.path=speaker"),
        *("student=causal_lm", "metrics=[perplexity,agreement]", *LLAMA),
        *("criteria=[hard_label,soft_target]", *SMALL),
    ),
    "pictures": (
        *("data=image_folder", "data.folder=pictures", "data.batch_size=8"),
        *("teacher=pretrained", "teacher.path=eye", "student=vit", *SIZES, *SMALL),
        *("++student.patch_size=4",),
    ),
}


def without(words: tuple[str, ...], *beginnings: str) -> tuple[str, ...]:
    return tuple(word for word in words if not word.startswith(beginnings))


RUNS["alone"] = (
    *without(RUNS["texts"], "teacher"),
    *("~teacher", "criteria=[hard_label]", "metrics=[accuracy]"),
)
RUNS["half"] = (*without(RUNS["texts"], "student"), "student=from_teacher", "student.layers=1")


def all_in_one(folder: Path) -> None:
    """Tables in which one thing is wrong."""
    train, dev = rows("train"), rows("dev")
    write_table(folder / "constant.csv", [(text, "good") for text, _ in train])
    write_table(folder / "leaking.csv", [*dev[:40], *train[:40]])
    write_table(folder / "unlike.csv", [(text, k) for text, _ in train for k in ("good", "bad")])
    write_table(folder / "repeated.csv", train[:4] * 80)
    write_table(folder / "one_kind.csv", [row for row in dev if row[1] == "good"])
    mostly = [(text, kind if i < 8 else "") for i, (text, kind) in enumerate(train)]
    write_table(folder / "unlabelled.csv", mostly)
    write_table(folder / "nothing.csv", [(text, "") for text, _ in train])
    write_table(folder / "foreign.csv", [("\u6f22\u5b57 \u4eee\u540d", k) for _, k in train])
    write_table(folder / "empty.csv", [("" if i % 3 else t, k) for i, (t, k) in enumerate(train)])
    rare = [*(r for r in train if r[1] == "good"), *[r for r in train if r[1] == "bad"][:3]]
    write_table(folder / "rare.csv", rare)
    write_table(folder / "header.csv", [])
    write_table(folder / "few.csv", train[:12])
