"""Intents and slots of one student: what the jobs leave, by transformers alone, and refusals."""

import json
import random
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForTokenClassification, AutoTokenizer

from lightning_distill.main import main

pytestmark = pytest.mark.slow

SMALL = ["trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.log_every_n_steps=1"]
SMALL += ["callbacks=[best_checkpoint,last_checkpoint,finite_loss]"]
SIZES = ["hidden_size=16", "num_hidden_layers=1", "num_attention_heads=2", "intermediate_size=16"]
STUDENT = [f"student.{size}" for size in SIZES]
FILES = ["data=token_files", "data.train=train", "data.validation=dev", "data.test=dev"]
FILES += ["data.batch_size=8", "data.vocab_size=60"]
BOTH = [*FILES, "data.parallel=[seq.in,seq.out,label]"]
PLACES = ["rome", "new york", "oslo"]


def sentence(draw: random.Random) -> tuple[str, str, str]:
    intent, place = draw.choice(["fly", "stay"]), draw.choice(PLACES).split()
    words = [draw.choice(["i", "we"]), intent, "in" if intent == "stay" else "to", *place]
    tags = ["O", "O", "O", "B-loc", *["I-loc"] * (len(place) - 1)]
    return " ".join(words), " ".join(tags), intent


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder, draw = tmp_path_factory.mktemp("runs"), random.Random(0)
    for name, count in (("train", 40), ("dev", 17)):
        rows = [sentence(draw) for _ in range(count)]
        (folder / name).mkdir()
        for part, file in enumerate(("seq.in", "seq.out", "label")):
            (folder / name / file).write_text("".join(row[part] + "\n" for row in rows))
    return folder


@pytest.fixture
def run(folder, monkeypatch):
    def run_(name: str, *arguments: str) -> Path:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setenv("LIGHTNING_DISTILL_CACHE", str(folder / "cache"))
        monkeypatch.setattr(sys, "argv", ["x", *SMALL, *arguments, f"hydra.run.dir={name}"])
        main()
        return folder / name

    return run_


def intents_of(path: Path, folder: Path) -> float:
    """Accuracy of intents of a saved model, sentence by sentence, by transformers alone."""
    model, info = AutoModelForTokenClassification.from_pretrained(path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    tokenizer, head = AutoTokenizer.from_pretrained(path), path / "row_head"
    weights = load_file(head / "model.safetensors")
    names = json.loads((head / "config.json").read_text())["label_names"]
    texts, labels = ((folder / "dev" / n).read_text().splitlines() for n in ("seq.in", "label"))
    right = 0
    for text, label in zip(texts, labels, strict=True):
        with torch.no_grad():
            body = model.eval().base_model(**tokenizer(text, return_tensors="pt"))
        logits = body[0][0, 0] @ weights["linear.weight"].T + weights["linear.bias"]
        right += names[int(logits.argmax())] == label
    return right / len(labels)


def report(path: Path) -> dict:
    return json.loads((path / "report.json").read_text())


def test_transformers_alone_finds_the_intents_that_a_run_reports(run, folder):
    tuned = run("tuned", "job=finetune", *BOTH, *STUDENT, "trainer.max_epochs=4",
                "optimizer.lr=1e-2", "monitor=val/row_accuracy")  # fmt: skip
    found = report(tuned)["student"]["metrics"]
    # Without a teacher nothing is compared with one.
    assert found.keys() == {"entity_f1", "row_accuracy"}
    expected = intents_of(tuned / "student", folder)
    assert found["row_accuracy"] == pytest.approx(expected, abs=1e-6)
    assert "with hard_label, row_label" in (tuned / "log.txt").read_text()
    run("out", "job=export", "job.run=tuned", "job.to=exported")
    assert intents_of(folder / "exported", folder) == expected
