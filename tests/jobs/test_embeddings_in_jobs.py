"""Every job on models of sentences: pairs, lists of candidates, and texts alone."""

import json
import random
import sys
from pathlib import Path

import pytest
import torch
from scipy.stats import spearmanr
from transformers import AutoModel, AutoTokenizer

from lightning_distill.main import main

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
    "teacher.max_epochs=2",
    "teacher.model.hidden_size=24",
    "teacher.model.num_hidden_layers=2",
    "teacher.model.num_attention_heads=2",
    "teacher.model.intermediate_size=16",
]
FILES = ["data.train=train.jsonl", "data.validation=dev.jsonl", "data.test=dev.jsonl"]
FILES += ["data=embedding_files", "data.batch_size=8", "data.text_pair=pair"]
PAIRS = [*FILES, "data.largest_score=5", "criteria=[pair_score,vectors]"]
WORDS = ["a", "the", "cat", "dog", "sits", "runs", "rain", "in", "on", "park", "mat", "two", "men"]
WORDS += ["talk", "eat", "snow", "hill"]


def row(draw: random.Random) -> dict:
    words = [draw.choice(WORDS) for _ in range(draw.randint(2, 7))]
    changed = [w if draw.random() < 0.6 else draw.choice(WORDS) for w in words]
    same = sum(a == b for a, b in zip(words, changed, strict=True)) / len(words)
    bad = [" ".join(draw.choice(WORDS) for _ in range(4)) for _ in range(2)]
    texts = {"text": " ".join(words), "pair": " ".join(changed), "bad": bad}
    return {**texts, "score": round(5 * same, 2), "s": [9.0, 1.0, draw.random()],
            "v": [draw.random() for _ in range(6)]}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder, draw = tmp_path_factory.mktemp("runs"), random.Random(0)
    for name, count in (("train", 40), ("dev", 17)):
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


def vectors_of(path: Path, texts: list[str]) -> torch.Tensor:
    """Means of hidden states, text by text and without padding, by transformers alone."""
    model = AutoModel.from_pretrained(path).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    with torch.no_grad():
        found = [model(**tokenizer(t, return_tensors="pt"))[0][0].double().mean(0) for t in texts]
    return torch.stack(found)


def spearman_of(path: Path, folder: Path) -> float:
    rows = [json.loads(line) for line in (folder / "dev.jsonl").read_text().splitlines()]
    both = [vectors_of(path, [r[name] for r in rows]) for name in ("text", "pair")]
    cosines = torch.cosine_similarity(*both).tolist()
    return spearmanr(cosines, [r["score"] for r in rows]).statistic


def report(path: Path) -> dict:
    return json.loads((path / "report.json").read_text())


def steps(path: Path, name: str) -> list[float]:
    lines = [line.split(",") for line in (path / "metrics.csv").read_text().splitlines()]
    at = lines[0].index(f"train/{name}")
    return [float(line[at]) for line in lines[1:] if line[at]]


def test_a_run_and_the_jobs_on_what_it_leaves(run, folder):
    more = ["optimizer.lr=1e-2", "data.labelled_rows=10", "trainer.max_epochs=2"]
    first = run("first", *PAIRS, *STUDENT, *TEACHER, *more)
    found = report(first)
    assert found["metric"] == "spearman" and found["baseline"] is not None
    assert set(found["student"]["metrics"]) >= {"spearman", "similarity_agreement"}
    assert found["teacher"]["metrics"]["spearman"] is not None
    expected = spearman_of(first / "student", folder)
    assert found["student"]["metrics"]["spearman"] == pytest.approx(expected, abs=1e-4)
    evaluated = run("evaluated", "job=evaluate", "job.path=first", *PAIRS)
    of_job = json.loads((evaluated / "evaluation.json").read_text())["spearman"]
    assert of_job == pytest.approx(expected, abs=1e-4)
    run("exported", "job=export", "job.run=first", "job.to=out")
    assert spearman_of(folder / "out", folder) == pytest.approx(expected, abs=1e-9)
    inspected = run("inspected", "job=inspect", *PAIRS, *STUDENT, *TEACHER)
    shapes = json.loads((inspected / "layers.json").read_text())["student"]
    assert shapes["encoder"].endswith("x16")
    modules = json.loads((folder / "out" / "modules.json").read_text())
    assert [m["path"] for m in modules] == ["", "1_Pooling", "2_Normalize"]
    st = pytest.importorskip("sentence_transformers")
    texts = ["a cat", "two men talk in the rain on a hill", "snow"]
    theirs = st.SentenceTransformer(str(folder / "out"), device="cpu")
    found = torch.from_numpy(theirs.encode(texts))
    ours = torch.nn.functional.normalize(vectors_of(folder / "out", texts), dim=-1).float()
    torch.testing.assert_close(found, ours, rtol=0, atol=1e-6)


def test_lists_of_candidates_and_a_map_of_vectors_that_is_kept(run, folder):
    lists = [*FILES, "data.negatives=bad", "metrics=[ndcg,recall_at_k]"]
    scores = ["data.scores=s", "criteria.of_candidates.inputs.teacher=batch.scores"]
    ranked = run("ranked", *lists, *scores, "criteria=[of_candidates]", "~teacher", *STUDENT)
    found = report(ranked)
    assert found["metric"] == "ndcg" and 0 < found["student"]["metrics"]["recall_at_k"] <= 1
    base = ["student=projected", "student@student.of=from_config", "student.width=6"]
    base += [s.replace("student.", "student.of.") for s in STUDENT]
    texts = ["data=embedding_files", *FILES[:3], "data.vectors=v", "criteria=[vectors]"]
    given = ["criteria.vectors.inputs.teacher=batch.vectors", "~teacher", "monitor=val/loss"]
    mapped = run("mapped", *texts, *given, *base)
    run("mapped_out", "job=export", "job.run=mapped", "job.to=mapped_folder")
    parts = json.loads((folder / "mapped_folder" / "modules.json").read_text())
    assert [p["path"] for p in parts] == ["", "1_Pooling", "2_Dense", "3_Normalize"]
    for name in ("2_Dense/model.safetensors", "model.safetensors"):
        assert (mapped / "student" / name).is_file()
        assert (folder / "mapped_folder" / name).is_file()
    # It is a teacher with vectors of six numbers, for a student of another width.
    taught = [*PAIRS, "teacher=pretrained", "teacher.path=mapped_folder", "data.tokenizer=null"]
    again = run("again", *taught, *STUDENT, "baseline=false")
    assert steps(again, "vectors")
