"""Every job on words with tags, and on pictures: heads that are no text classifier's."""

import json
import random
import sys
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForImageClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    ViTImageProcessor,
)

from lightning_distill.main import main
from lightning_distill.metrics.entity_f1 import entities

pytestmark = pytest.mark.slow

SMALL = [
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=1",
    "callbacks=[best_checkpoint,last_checkpoint,finite_loss]",
]
STUDENT = [
    "student.hidden_size=16",
    "student.num_attention_heads=2",
    "student.intermediate_size=16",
]
TEACHER = [
    "teacher.max_epochs=3",
    "teacher.learning_rate=1e-2",
    "teacher.model.hidden_size=16",
    "teacher.model.num_hidden_layers=2",
    "teacher.model.intermediate_size=16",
]
FILES = ["data=token_files", "data.train=train", "data.validation=dev", "data.test=dev"]
FILES += ["data.batch_size=8"]
PLACES, PEOPLE = ["rome", "new york", "oslo"], ["ann lee", "bob", "eve"]


def sentence(draw: random.Random) -> tuple[str, str]:
    place, person = draw.choice(PLACES), draw.choice(PEOPLE)
    words, tags = [], []
    for text, kind in ((person, "per"), ("flies to", ""), (place, "loc"), ("today", "")):
        for i, word in enumerate(text.split()):
            words.append(word)
            tags.append(f"{'I' if i else 'B'}-{kind}" if kind else "O")
    return " ".join(words), " ".join(tags)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder, draw = tmp_path_factory.mktemp("runs"), random.Random(0)
    for name, count in (("train", 40), ("dev", 16)):
        rows = [sentence(draw) for _ in range(count)]
        (folder / name).mkdir()
        for file, part in (("seq.in", 0), ("seq.out", 1)):
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


def f1_of(path: Path, folder: Path) -> float:
    """Entity F1 of a saved model, sentence by sentence, by transformers alone."""
    model = AutoModelForTokenClassification.from_pretrained(path).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    right = found = there = 0
    texts, tags = ((folder / "dev" / n).read_text().splitlines() for n in ("seq.in", "seq.out"))
    for text, own in zip(texts, tags, strict=True):
        given = tokenizer(text.split(), is_split_into_words=True, return_tensors="pt")
        with torch.no_grad():
            chosen = model(**given).logits[0].argmax(-1)
        ids = given.word_ids(0)
        first = [ids.index(i) for i in range(len(text.split()))]
        ours = entities([model.config.id2label[int(chosen[i])] for i in first])
        theirs = entities(own.split())
        right, found, there = right + len(ours & theirs), found + len(ours), there + len(theirs)
    return 2 * right / max(found + there, 1)


def report(path: Path) -> dict:
    return json.loads((path / "report.json").read_text())


def test_a_run_and_the_jobs_on_what_it_leaves(run, folder):
    more = ["optimizer.lr=1e-2", "trainer.max_epochs=4", "data.labelled_rows=10"]
    first = run("first", *FILES, *STUDENT, *TEACHER, *more)
    found = report(first)
    assert found["metric"] == "entity_f1" and found["baseline"] is not None
    assert found["student"]["agreement"] is not None
    config = json.loads((first / "student" / "config.json").read_text())
    assert config["architectures"] == ["BertForTokenClassification"]
    assert sorted(config["label2id"]) == ["B-loc", "B-per", "I-loc", "I-per", "O"]
    expected = f1_of(first / "student", folder)
    assert found["student"]["metrics"]["entity_f1"] == pytest.approx(expected, abs=1e-6)
    evaluated = run("evaluated", "job=evaluate", "job.path=first", *FILES)
    of_job = json.loads((evaluated / "evaluation.json").read_text())["entity_f1"]
    assert of_job == pytest.approx(expected, abs=1e-6)
    run("exported", "job=export", "job.run=first", "job.to=out")
    assert f1_of(folder / "out", folder) == pytest.approx(expected, abs=1e-6)
    inspected = run("inspected", "job=inspect", *FILES, *STUDENT, *TEACHER)
    shapes = json.loads((inspected / "layers.json").read_text())["student"]
    assert shapes["classifier"].startswith("8x") and shapes["classifier"].endswith("x5")


def test_a_teacher_with_another_tokenizer_is_compared_by_words(run, folder):
    from lightning_distill.data.text.word_pieces import train_word_pieces

    words = [(folder / "train" / "seq.in").read_text()]
    train_word_pieces(words, 45, 32).save_pretrained(folder / "letters")
    tuned = run("third", "job=finetune", *FILES, *STUDENT, "optimizer.lr=1e-2",
                "trainer.max_epochs=3")  # fmt: skip
    both = [*FILES, *STUDENT, "data.tokenizer=letters", "optimizer.lr=1e-2", "baseline=false"]
    teacher = ["teacher=pretrained", "teacher.path=third/student"]
    live = report(run("two_live", *both, *teacher))
    run("two_answers", "job=cache", "job.folder=two", *both, *teacher)
    cached = report(run("two_cached", *both, "teacher=cached", "teacher.folder=two"))
    caching = report(run("two_caching", *both, "teacher=caching", "teacher.path=third/student"))
    # The teacher is measured by the student's words, and knows as much as it did by its own.
    own = report(tuned)["student"]["metrics"]["entity_f1"]
    assert live["teacher"]["metrics"]["entity_f1"] == pytest.approx(own, abs=1e-6)
    assert sorted(live["teacher"]["parts"]) == ["loc", "per"]
    assert "entity_f1 of" in (folder / "two_live" / "report.md").read_text()
    for found in (cached, caching):
        for name in ("entity_f1", "soft_target"):
            expected = live["student"]["metrics"].get(name)
            assert found["student"]["metrics"].get(name) == pytest.approx(expected, abs=1e-6)
        assert found["student"]["agreement"] == live["student"]["agreement"]


def test_layers_of_two_tokenizers_are_not_compared(run, folder, capsys):
    from lightning_distill.data.text.word_pieces import train_word_pieces

    words = [(folder / "train" / "seq.in").read_text()]
    train_word_pieces(words, 45, 32).save_pretrained(folder / "letters")
    run("fourth", "job=finetune", *FILES, *STUDENT)
    with pytest.raises(SystemExit):
        run("refused", *FILES, *STUDENT, "data.tokenizer=letters", "teacher=pretrained",
            "teacher.path=fourth/student", "criteria=[hard_label,hint]")  # fmt: skip
    assert "Term 'hint' compares layers token by token" in capsys.readouterr().err


def test_long_sentences_are_read_in_windows(run, folder):
    path = run("windows", *FILES, *STUDENT, *TEACHER, "data.max_length=6", "data.stride=2",
               "data.vocab_size=60", "baseline=false")  # fmt: skip
    assert report(path)["facts"]["train rows"] != "40"
    found = run("windows_again", "job=evaluate", "job.path=windows")
    values = json.loads((found / "evaluation.json").read_text())
    expected = report(path)["student"]["metrics"]["entity_f1"]
    assert values["entity_f1"] == pytest.approx(expected, abs=1e-6)
    assert {"entity_f1/loc", "entity_f1/per"} <= values.keys()


PICTURES = """
import lightning as L
import torch
from torch.utils.data import DataLoader
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor


class Pictures(L.LightningDataModule):
    num_labels = 3
    num_rows = 16
    processor = ViTImageProcessor(size={"height": 8, "width": 8})

    def rows(self):
        generator = torch.Generator().manual_seed(0)
        pixels = torch.rand(16, 3, 8, 8, generator=generator)
        labels = torch.arange(16) % 3
        rows = [{"pixel_values": p, "labels": l} for p, l in zip(pixels, labels)]
        return DataLoader(rows, batch_size=4)

    train_dataloader = val_dataloader = test_dataloader = rows


def vit(num_labels, seed=0):
    torch.manual_seed(seed)
    return ViTForImageClassification(ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        image_size=8, patch_size=4, num_labels=num_labels))
"""


def test_pictures_are_exported_and_measured_with_their_own_head(run, folder):
    (folder / "pictures.py").write_text(PICTURES)
    data = ["~data", "+data._target_=pictures.Pictures"]
    student = ["~student", "+student._target_=pictures.vit"]
    seen = run("seen", "job=finetune", *data, *student, "optimizer.lr=1e-2")
    assert (seen / "student" / "preprocessor_config.json").is_file()
    evaluated = run("seen_again", "job=evaluate", "job.path=seen", *data)
    found = json.loads((evaluated / "evaluation.json").read_text())["accuracy"]
    assert found == pytest.approx(report(seen)["student"]["metrics"]["accuracy"])
    run("seen_out", "job=export", "job.run=seen", "job.to=pictures_out")
    out = folder / "pictures_out"
    model = AutoModelForImageClassification.from_pretrained(out)
    assert model.config.num_labels == 3
    assert ViTImageProcessor.from_pretrained(out).size == {"height": 8, "width": 8}


OWN_TASK = '''
from lightning_distill.tasks import Regression


class Halves(Regression):
    """Numbers that agree within a half of each other's size."""

    name = "halves"
    metrics = ("mean_squared_error", "agreement")

    def __init__(self, share=0.5):
        self.share = share

    def agree(self, student, teacher, tolerance):
        return (student - teacher).abs() <= self.share * teacher.abs()
'''


def test_a_task_of_ones_own_is_named_by_target_and_brings_its_metrics(run, folder):
    (folder / "halves.py").write_text(OWN_TASK)
    rows = [{"text": f"{'good' if i % 2 else 'bad'} film {i}", "label": i % 5} for i in range(24)]
    (folder / "numbers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = ["data=text_files", "data.train=numbers.jsonl", "data.validation=numbers.jsonl"]
    task = "data.task={_target_: halves.Halves, share: 0.3}"
    found = report(run("own", *files, task, "criteria=[hard_label,logit_mse]", *STUDENT, *TEACHER))
    assert found["metric"] == "mean_squared_error" and found["higher_is_better"] is False
    # Untouched metrics follow the task; the name alone does too.
    plain = run("numbers", *files, "data.task=regression", "criteria=[hard_label]", "~teacher",
                *STUDENT)  # fmt: skip
    assert report(plain)["metric"] == "pearson"
