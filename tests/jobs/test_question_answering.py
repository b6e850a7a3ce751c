"""Every job on questions, whose answers stand in a text."""

import json
import random
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from lightning_distill.main import main

pytestmark = pytest.mark.slow

FILES = [
    "data=question_files",
    "data.train=train.jsonl",
    "data.validation=dev.jsonl",
    "data.test=dev.jsonl",
    "data.max_length=24",
    "data.max_question_length=4",
    "data.stride=6",
    "data.vocab_size=60",
    "data.batch_size=8",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=1",
    "callbacks=[best_checkpoint,last_checkpoint,finite_loss]",
]
SMALL = ["hidden_size=16", "num_hidden_layers=2", "intermediate_size=16"]
STUDENT = [f"student.{s}" for s in SMALL] + ["student.num_attention_heads=2"]
TEACHER = ["teacher.max_epochs=2", *(f"teacher.model.{s}" for s in SMALL)]
NAMES = ["ann", "bob", "eve", "ida", "max", "zoe"]


def question(draw: random.Random) -> dict:
    names = draw.choices(NAMES, k=draw.randint(6, 20))
    at = draw.randrange(len(names))
    context = " ".join(names)
    none = draw.random() < 0.2
    start = sum(len(name) + 1 for name in names[:at])
    answers = {"text": [names[at]], "answer_start": [start]}
    if none:
        answers = {"text": [], "answer_start": []}
    return {"question": f"find {names[at]}", "context": context, "answers": answers}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder, draw = tmp_path_factory.mktemp("runs"), random.Random(0)
    for name, count in (("train", 30), ("dev", 14)):
        rows = [question(draw) for _ in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def run(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LIGHTNING_DISTILL_CACHE", str(folder / "cache"))

    def run(name: str, *arguments: str) -> Path:
        target = folder / name
        words = ["lightning-distill", *arguments, f"hydra.run.dir={target}"]
        monkeypatch.setattr(sys, "argv", words)
        main()
        return target

    return run


def report(path: Path) -> dict:
    return json.loads((path / "report.json").read_text())


def losses(path: Path, name: str) -> list[float]:
    lines = [line.split(",") for line in (path / "metrics.csv").read_text().splitlines()]
    at = lines[0].index(f"train/{name}")
    return [float(line[at]) for line in lines[1:] if line[at]]


def test_distil_export_inspect_and_measure(run, folder):
    path = run("own", *FILES, *STUDENT, *TEACHER)
    found = report(path)
    assert found["metric"] == "answer_f1"
    assert {"answer_f1", "answer_exact_match"} <= found["student"]["metrics"].keys()
    assert found["teacher"]["metrics"].keys() >= {"answer_f1", "answer_exact_match"}
    model = AutoModelForQuestionAnswering.from_pretrained(path / "student")
    tokenizer = AutoTokenizer.from_pretrained(path / "student")
    outputs = model(**tokenizer("find ann", "ann bob", return_tensors="pt"))
    assert outputs.start_logits.shape == outputs.end_logits.shape
    again = run("again", "job=evaluate", "job.path=own")
    values = json.loads((again / "evaluation.json").read_text())
    for name in ("answer_f1", "answer_exact_match"):
        assert values[name] == pytest.approx(found["student"]["metrics"][name], abs=1e-6)
    run("exported", "job=export", "job.run=own", "job.to=file")
    state = AutoModelForQuestionAnswering.from_pretrained(folder / "file").state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    run("inspected", "job=inspect", "job.run=own")


def test_a_tuned_teacher_its_cache_and_students_that_are_cut_from_it(run, folder):
    tuned = run("tuned", "job=finetune", *FILES, *STUDENT)
    assert report(tuned)["metric"] == "answer_f1"
    teacher = ["teacher.path=tuned/student", "student=from_teacher", "student.layers=1"]
    both = [*FILES, *teacher, "baseline=false", "criteria=[hard_label,soft_target,hint]"]
    live = run("live", *both, "teacher=pretrained")
    run("answers", "job=cache", "job.folder=kept", *both, "teacher=pretrained")
    cached = run("cached", *both, "teacher=cached", "teacher.folder=kept")
    caching = run("caching", *both, "teacher=caching")
    for path in (cached, caching):
        for name in ("soft_target", "hint", "hard_label"):
            assert losses(path, name) == pytest.approx(losses(live, name), abs=1e-6)
        for name, value in report(live)["student"]["metrics"].items():
            assert report(path)["student"]["metrics"][name] == pytest.approx(value, abs=1e-6)


def test_begin_and_end_may_be_terms_of_their_own(run, folder):
    both = ["baseline=false", *FILES, *STUDENT, *TEACHER]
    whole = run("whole", *both)
    apart = [
        f"+criteria.{end}={{_target_: lightning_distill.Term, weight: 0.45, inputs: "
        f"{{student: student.{end}_logits, teacher: teacher.{end}_logits, mask: null}}, "
        "criterion: {_target_: lightning_distill.criteria.SoftTarget, temperature: 4.0}}"
        for end in ("start", "end")
    ]
    found = run("apart", *both, "criteria=[hard_label]", *apart)
    # Padding counts in these, and rows of one length have none: the first step is the same.
    mean = (losses(found, "start")[0] + losses(found, "end")[0]) / 2
    assert mean == pytest.approx(losses(whole, "soft_target")[0], rel=0.5)
