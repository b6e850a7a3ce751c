"""Every job on masked language models."""

import csv
import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM

from lightning_distill.data import MaskedCorpus
from lightning_distill.main import main

pytestmark = pytest.mark.slow

DATA = ["data=masked_corpus", "data.train=train.txt", "data.validation=dev.txt"]
DATA += ["data.test=dev.txt", "data.document=line", "data.vocab_size=300", "data.max_length=16"]
DATA += ["data.batch_size=8", "data.whole_word=true"]
SMALL = ["trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.log_every_n_steps=1"]
SMALL += ["callbacks=[best_checkpoint,last_checkpoint,finite_loss]"]
STUDENT = [
    "student.hidden_size=16",
    "student.num_attention_heads=2",
    "student.intermediate_size=16",
]
TEACHER = [
    "teacher.max_epochs=2",
    "teacher.model.hidden_size=16",
    "teacher.model.intermediate_size=16",
]
TEACHER += ["teacher.model.num_hidden_layers=2", "teacher.model.num_attention_heads=2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    words = [
        "the",
        "a",
        "fox",
        "dog",
        "cat",
        "sees",
        "chases",
        "likes",
        "old",
        "young",
        "quick",
        "lazy",
        "bird",
    ]
    lines = [" ".join(words[i * k % 13] for k in range(1, 4 + i % 17)) for i in range(1, 49)]
    (folder / "train.txt").write_text("".join(f"{line}\n" for line in lines))
    (folder / "dev.txt").write_text("".join(f"{line}\n" for line in lines[::4]))
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


def report(path: Path) -> dict:
    return json.loads((path / "report.json").read_text())


def column(path: Path, name: str) -> list[float]:
    with (path / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def perplexity_of(path: Path) -> float:
    """Of a saved model, row by row, by transformers' own loss."""
    model = AutoModelForMaskedLM.from_pretrained(path).eval()
    data = MaskedCorpus(train="train.txt", validation="dev.txt", test="dev.txt", document="line",
                        max_length=16, whole_word=True, tokenizer=str(path))  # fmt: skip
    data.setup()
    total, count = 0.0, 0
    for batch in data.test_dataloader():
        batch.pop("row")
        with torch.no_grad():
            loss = model(**batch).loss
        masked = int((batch["labels"] != -100).sum())
        total, count = total + float(loss) * masked, count + masked
    return float(torch.tensor(total / count).exp())


def test_a_run_and_the_jobs_on_what_it_leaves(run, folder):
    first = run("first", *DATA, *STUDENT, *TEACHER, "optimizer.lr=1e-2")
    found = report(first)
    assert found["metric"] == "perplexity" and found["higher_is_better"] is False
    assert found["baseline"] is not None and found["student"]["agreement"] is not None
    config = json.loads((first / "student" / "config.json").read_text())
    assert config["architectures"] == ["BertForMaskedLM"]
    expected = perplexity_of(first / "student")
    assert found["student"]["metrics"]["perplexity"] == pytest.approx(expected, rel=1e-5)
    evaluated = run("evaluated", "job=evaluate", "job.path=first", *DATA)
    of_job = json.loads((evaluated / "evaluation.json").read_text())["perplexity"]
    assert of_job == pytest.approx(expected, rel=1e-5)
    run("exported", "job=export", "job.run=first", "job.to=out")
    assert perplexity_of(folder / "out") == pytest.approx(expected, rel=1e-5)
    inspected = run("inspected", "job=inspect", *DATA, *STUDENT, *TEACHER)
    shapes = json.loads((inspected / "layers.json").read_text())["student"]
    assert "cls.predictions.decoder" in shapes


def test_a_tuned_teacher_its_cache_and_students_that_are_cut_from_it(run, folder, capsys):
    tuned = run("tuned", "job=finetune", *DATA, *STUDENT, "student.num_hidden_layers=2",
                "optimizer.lr=1e-2")  # fmt: skip
    assert report(tuned)["metric"] == "perplexity"
    models = ["teacher.path=tuned/student", "student=from_teacher", "student.layers=1"]
    # A temperature squared would multiply what float32 rounds of models that hardly differ.
    views = [*DATA, "data.views=2", "baseline=false", "trainer.max_epochs=3",
             "criteria.soft_target.criterion.temperature=1"]  # fmt: skip
    live = run("live", *views, "teacher=pretrained", *models)
    run("answers", "job=cache", "job.folder=kept", *views, "teacher=pretrained", *models)
    cached = run("cached", *views, "teacher=cached", "teacher.folder=kept", *models)
    caching = run("caching", *views, "teacher=caching", *models)
    expected = column(live, "train/soft_target")
    assert len(expected) == len(column(live, "train/loss")) > 3
    for path in (cached, caching):
        assert column(path, "train/soft_target") == pytest.approx(expected, rel=1e-6, abs=1e-6)
        figures = [report(p)["student"]["metrics"]["perplexity"] for p in (path, live)]
        assert figures[0] == pytest.approx(figures[1], rel=1e-6)
    # Without views no cache could hold what is drawn.
    with pytest.raises(SystemExit):
        run("refused", "job=cache", *DATA, "teacher=pretrained", *models)
    assert "data.views=N" in capsys.readouterr().err
