"""Every job on questions about texts."""

import json
import random
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from lightning_distill.main import main
from lightning_distill.tasks.answers import word_f1

pytestmark = pytest.mark.slow

SMALL = [
    *("trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.log_every_n_steps=1"),
    "callbacks=[best_checkpoint,last_checkpoint,finite_loss]",
    *("data=question_files", "data.train=train.json", "data.validation=dev.json"),
    *("data.test=dev.json", "data.batch_size=8", "data.max_length=24", "data.stride=6"),
]
STUDENT = ["student.hidden_size=16", "student.num_attention_heads=2"]
STUDENT += ["student.intermediate_size=16"]
PLACES, PEOPLE = ["rome", "new york", "oslo", "paris"], ["ann lee", "bob", "eve"]


def paragraph(draw: random.Random, number: int) -> dict:
    person, place = draw.choice(PEOPLE), draw.choice(PLACES)
    context = f"today as ever {person} flies to {place} and not to london or to any other town"
    asked = (("who flies", person), ("where to", place))
    return {"context": context, "qas": [
        {"id": f"{number}{i}", "question": question,
         "answers": [{"text": text, "answer_start": context.index(text)}]}
        for i, (question, text) in enumerate(asked)
    ]}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder, draw = tmp_path_factory.mktemp("runs"), random.Random(0)
    for name, count in (("train", 24), ("dev", 8)):
        paragraphs = [paragraph(draw, i) for i in range(count)]
        (folder / f"{name}.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
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
    """F1 of a saved model, question by question, by transformers alone; all pairs are tried."""
    model = AutoModelForQuestionAnswering.from_pretrained(path).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    values = []
    for article in json.loads((folder / "dev.json").read_text())["data"]:
        for entry in article["paragraphs"]:
            for asked in entry["qas"]:
                given = tokenizer(
                    asked["question"], entry["context"], truncation="only_second", max_length=24,
                    stride=6, return_overflowing_tokens=True, return_offsets_mapping=True,
                )  # fmt: skip
                found = []
                for i, ids in enumerate(given["input_ids"]):
                    with torch.no_grad():
                        out = model(
                            torch.tensor([ids]),
                            token_type_ids=torch.tensor([given["token_type_ids"][i]]),
                        )
                    inside = [n for n, s in enumerate(given.sequence_ids(i)) if s == 1]
                    places = given["offset_mapping"][i]
                    found += [
                        (float(out.start_logits[0, a] + out.end_logits[0, b]),
                         entry["context"][places[a][0] : places[b][1]])
                        for a in inside for b in inside if a <= b < a + 30
                    ]  # fmt: skip
                values.append(word_f1(max(found)[1], asked["answers"][0]["text"]))
    return sum(values) / len(values)


def report(path: Path) -> dict:
    return json.loads((path / "report.json").read_text())


def test_a_run_and_the_jobs_on_what_it_leaves(run, folder):
    teacher = ["teacher.max_epochs=2", "teacher.model.hidden_size=16"]
    teacher += ["teacher.model.num_hidden_layers=1", "teacher.model.intermediate_size=16"]
    first = run("first", *STUDENT, *teacher, "optimizer.lr=1e-2", "data.labelled_rows=20")
    found = report(first)
    assert found["metric"] == "answer_f1" and found["baseline"] is not None
    assert found["student"]["agreement"] is not None and "answer_f1" in found["teacher"]["metrics"]
    config = json.loads((first / "student" / "config.json").read_text())
    assert config["architectures"] == ["BertForQuestionAnswering"]
    expected = f1_of(first / "student", folder)
    assert found["student"]["metrics"]["answer_f1"] == pytest.approx(expected, abs=1e-6)
    names = (first / "metrics.csv").read_text().splitlines()[0].split(",")
    for term in ("hard_label", "soft_target"):
        assert {f"train/{term}", f"train/{term}_start", f"train/{term}_end"} <= {*names}
    evaluated = run("evaluated", "job=evaluate", "job.path=first")
    of_job = json.loads((evaluated / "evaluation.json").read_text())["answer_f1"]
    assert of_job == pytest.approx(expected, abs=1e-6)
    run("exported", "job=export", "job.run=first", "job.to=out")
    assert f1_of(folder / "out", folder) == pytest.approx(expected, abs=1e-6)
    inspected = run("inspected", "job=inspect", *STUDENT, *teacher)
    shapes = json.loads((inspected / "layers.json").read_text())["student"]
    assert shapes["qa_outputs"].endswith("x2")
