"""Every job on rerankers, and a model of sentences that learns from one."""

import json
import random
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lightning_distill.data import EmbeddingFiles
from lightning_distill.main import main

pytestmark = pytest.mark.slow

SMALL = [
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=1",
    "callbacks=[best_checkpoint,last_checkpoint,finite_loss]",
]
SIZES = ["hidden_size=16", "num_hidden_layers=1", "num_attention_heads=2", "intermediate_size=16"]
STUDENT = [f"student.{size}" for size in SIZES]
TEACHER = ["teacher.max_epochs=1", *(f"teacher.model.{size}" for size in SIZES)]
FILES = ["data=embedding_files", "data.train=train.jsonl", "data.validation=dev.jsonl"]
FILES += ["data.test=dev.jsonl", "data.batch_size=4", "data.text=query", "data.text_pair=docs"]
LISTS = [*FILES, "data.relevance=labels", "data.task=ranking"]
WORDS = ["a", "the", "cat", "dog", "sits", "runs", "rain", "in", "on", "park", "mat", "two", "men"]


def row(draw: random.Random) -> dict:
    query = draw.sample(WORDS, 3)
    docs = [" ".join(draw.choices(WORDS, k=4)) for _ in range(draw.randint(2, 4))]
    labels = [float(sum(word in doc.split() for word in query)) for doc in docs]
    taught = [y + draw.random() for y in labels]
    return {"query": " ".join(query), "docs": docs, "labels": labels, "taught": taught}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder, draw = tmp_path_factory.mktemp("runs"), random.Random(0)
    for name, count in (("train", 22), ("dev", 9)):
        rows = [row(draw) for _ in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
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


def scores_of(path: Path, rows: list[dict]) -> list[list[float]]:
    """The score of each candidate, pair by pair and without padding, by transformers alone."""
    model = AutoModelForSequenceClassification.from_pretrained(path).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    with torch.no_grad():
        return [
            [float(model(**tokenizer(r["query"], d, return_tensors="pt"))[0]) for d in r["docs"]]
            for r in rows
        ]


def ndcg_of(path: Path, folder: Path) -> float:
    """nDCG of the whole lists, by its definition; torchmetrics takes labels as gains."""
    rows, found = read(folder), []
    for scores, r in zip(scores_of(path, rows), rows, strict=True):
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        gains = [[r["labels"][i] for i in order], sorted(r["labels"], reverse=True)]
        own, best = (
            sum(g / torch.log2(torch.tensor(i + 2.0)).item() for i, g in enumerate(gs))
            for gs in gains
        )
        found += [own / best] if best else []
    return sum(found) / len(found)


def read(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "dev.jsonl").read_text().splitlines()]


def report(path: Path) -> dict:
    return json.loads((path / "report.json").read_text())


def steps(path: Path, name: str) -> list[float]:
    lines = [line.split(",") for line in (path / "metrics.csv").read_text().splitlines()]
    at = lines[0].index(f"train/{name}")
    return [float(line[at]) for line in lines[1:] if line[at]]


def test_a_run_and_the_jobs_on_what_it_leaves(run, folder):
    first = run("first", *LISTS, *STUDENT, *TEACHER)
    found = report(first)
    assert found["metric"] == "ndcg" and found["baseline"] is not None
    assert found["teacher"]["metrics"]["mrr"] is not None
    expected = ndcg_of(first / "student", folder)
    assert found["student"]["metrics"]["ndcg"] == pytest.approx(expected, abs=1e-5)
    evaluated = run("evaluated", "job=evaluate", "job.path=first", *LISTS)
    of_job = json.loads((evaluated / "evaluation.json").read_text())["ndcg"]
    assert of_job == pytest.approx(expected, abs=1e-5)
    run("exported", "job=export", "job.run=first", "job.to=out")
    st = pytest.importorskip("sentence_transformers")
    rows = read(folder)
    theirs = st.CrossEncoder(str(folder / "out"), device="cpu")
    given = [(r["query"], d) for r in rows for d in r["docs"]]
    ours = [s for scores in scores_of(folder / "out", rows) for s in scores]
    assert theirs.predict(given).tolist() == pytest.approx(ours, abs=1e-6)


def test_a_tuned_teacher_of_another_tokenizer_and_all_that_learns_from_it(run, folder):
    tuned = run("tuned", "job=finetune", *LISTS, *STUDENT, "data.vocab_size=60")
    assert report(tuned)["metric"] == "ndcg"
    data = EmbeddingFiles("train.jsonl", text="query", text_pair="docs", vocab_size=90)
    data.setup()
    data.tokenizer.save_pretrained(folder / "tokens")
    teacher = [*LISTS, *STUDENT, "teacher.path=tuned/student", "baseline=false"]
    teacher += ["data.tokenizer=tokens", "data.teacher_tokenizer=tuned/student"]
    teacher += ["criteria=[hard_label,soft_target,margin_mse]"]
    live = run("live", "teacher=pretrained", *teacher)
    run("answers", "job=cache", "job.folder=kept", "teacher=pretrained", *teacher)
    cached = run("cached", "teacher=cached", "teacher.folder=kept", *teacher)
    expected = report(live)["student"]["metrics"]
    assert report(cached)["student"]["metrics"] == pytest.approx(expected, abs=1e-6)
    for name in ("hard_label", "soft_target", "margin_mse"):
        assert steps(cached, name) == pytest.approx(steps(live, name), abs=1e-6)
    # A model of vectors learns from the same one, and another from scores of a column.
    column = ["data.scores=taught", "criteria=[hard_label,margin_mse]", "~teacher"]
    column += ["criteria.margin_mse.inputs.teacher=batch.scores"]
    ranked = run("ranked", *LISTS, *column, *STUDENT)
    assert report(ranked)["metric"] == "ndcg" and len(steps(ranked, "margin_mse")) == 6
    pairs = [*FILES, "data.relevance=labels", "data.teacher_pairs=true", "metrics=[ndcg]"]
    pairs += ["criteria=[of_candidates]", "criteria.of_candidates.inputs.teacher=teacher.logits"]
    pairs += ["criteria.of_candidates.criterion.similarity=dot", *STUDENT]
    pairs += ["teacher.path=tuned/student", "data.tokenizer=tuned/student"]
    pairs += ["trainer.max_epochs=2", "teacher.auto_class=AutoModelForSequenceClassification"]
    live = run("vectors", *pairs, "teacher=pretrained")
    taught = ndcg_of(folder / "tuned" / "student", folder)
    assert report(live)["teacher"]["metrics"]["ndcg"] == pytest.approx(taught, abs=1e-5)
    assert report(live)["baseline"] is not None
    # In the second epoch answers are read from disk.
    caching = run("vectors_caching", *pairs, "teacher=caching", "baseline=false")
    assert steps(caching, "of_candidates") == pytest.approx(steps(live, "of_candidates"), abs=1e-6)
    assert len(steps(live, "of_candidates")) == 12
    found = [report(path)["student"]["metrics"]["ndcg"] for path in (live, caching)]
    assert found[0] == pytest.approx(found[1], abs=1e-6)
