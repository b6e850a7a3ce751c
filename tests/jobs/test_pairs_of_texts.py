"""Every job on pairs of texts: encoder-decoders, their caches, and texts that a teacher wrote."""

import json
import random
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from lightning_distill.main import main

pytestmark = pytest.mark.slow

SMALL = [
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=1",
    "callbacks=[best_checkpoint,last_checkpoint,finite_loss]",
    "optimizer.lr=1e-2",
]
FILES = ["data=pair_files", "data.train=train.jsonl", "data.validation=dev.jsonl"]
FILES += ["data.test=dev.jsonl", "data.batch_size=8", "data.vocab_size=300"]
SIZES = ["hidden_size=16", "num_attention_heads=2", "head_dim=8", "d_ff=16"]
STUDENT = ["student=sequence_to_sequence", *(f"student.{size}" for size in SIZES)]
MEASURED = ["metrics=[perplexity,rouge,exact_match,agreement]", "metrics.rouge.max_new_tokens=8"]
MEASURED += ["metrics.exact_match.max_new_tokens=8"]
TERMS = ["criteria=[hard_label,soft_target]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder, draw = tmp_path_factory.mktemp("runs"), random.Random(0)
    for name, count in (("train", 40), ("dev", 12)):
        rows = []
        for _ in range(count):
            colour, animal = draw.choice(["red", "blue", "green"]), draw.choice(["cat", "dog"])
            more = "very " * draw.randint(0, 4)
            rows.append({"source": f"the {colour} {animal} is {more}old",
                         "target": f"{animal} {colour}" + " so" * draw.randint(0, 2)})  # fmt: skip
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
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


@pytest.fixture
def teacher(run, folder) -> list[str]:
    if not (folder / "taught" / "report.json").is_file():
        run("taught", "job=finetune", *FILES, *STUDENT, "student.num_layers=2",
            "trainer.max_epochs=4", "metrics=[perplexity]")  # fmt: skip
    return ["teacher=pretrained", f"teacher.path={folder / 'taught' / 'student'}"]


def report(path: Path) -> dict:
    return json.loads((path / "report.json").read_text())


def exact(path: Path, folder: Path) -> float:
    """The share of rows that a saved model writes as they are, one by one, by transformers."""
    model = AutoModelForSeq2SeqLM.from_pretrained(path).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    rows = [json.loads(line) for line in (folder / "dev.jsonl").read_text().splitlines()]
    right = 0
    for row in rows:
        given = tokenizer(row["source"], return_tensors="pt")
        with torch.no_grad():
            (ids,) = model.generate(**given, max_new_tokens=8, do_sample=False)
        right += tokenizer.decode(ids, skip_special_tokens=True).strip() == row["target"]
    return right / len(rows)


def test_a_run_and_the_jobs_on_what_it_leaves(run, folder, teacher):
    first = run("first", *FILES, *STUDENT, *teacher, *MEASURED, *TERMS, "trainer.max_epochs=3")
    found = report(first)
    assert found["metric"] == "perplexity" and found["baseline"] is not None
    assert found["teacher"]["metrics"]["rouge"] >= 0 and found["student"]["agreement"] is not None
    assert {"teacher", "student distilled"} <= found["samples"][0]["continuations"].keys()
    config = json.loads((first / "student" / "config.json").read_text())
    assert config["architectures"] == ["T5ForConditionalGeneration"]
    expected = exact(first / "student", folder)
    assert found["student"]["metrics"]["exact_match"] == pytest.approx(expected, abs=1e-6)
    again = run("evaluated", "job=evaluate", "job.path=first", *FILES, *MEASURED)
    of_job = json.loads((again / "evaluation.json").read_text())
    for name in ("perplexity", "rouge", "exact_match"):
        assert of_job[name] == pytest.approx(found["student"]["metrics"][name], rel=1e-5), name
    run("exported", "job=export", "job.run=first", "job.to=out")
    assert exact(folder / "out", folder) == expected
    seen = run("inspected", "job=inspect", *FILES, *STUDENT, *teacher)
    shapes = json.loads((seen / "layers.json").read_text())["student"]
    assert shapes["lm_head"].startswith("8x")


def test_a_student_learns_from_the_texts_that_its_teacher_wrote(run, folder, teacher, capsys):
    writing = ["job=generate", *FILES, *teacher, "job.file=texts.jsonl", "job.batch_size=8"]
    run("wrote", *writing)
    lines = (folder / "texts.jsonl").read_text().splitlines()
    assert len(lines) == 40
    # Cut off within a line: it goes on there, and the file is the same.
    (folder / "texts.jsonl").write_text("\n".join(lines[:20]) + "\n" + lines[20][:30])
    run("went_on", *writing)
    again = (folder / "texts.jsonl").read_text().splitlines()
    assert again[:20] == lines[:20]
    texts = [{json.loads(x)["source"]: json.loads(x)["text"] for x in own}
             for own in (lines, again)]  # fmt: skip
    assert texts[0] == texts[1]
    keep = "data.keep=[{_target_: lightning_distill.data.KeepByLogProbability, least: -3}]"
    found = run("learnt", "job=finetune", *FILES, *STUDENT, "data.targets=texts.jsonl", keep,
                "metrics=[perplexity]")  # fmt: skip
    assert "train rows left out by data.keep" in json.dumps(report(found)["facts"])
    with pytest.raises(SystemExit):
        run("refused", *writing, "job.beams=2")
    assert "were written otherwise: beams was 1 and is 2" in capsys.readouterr().err
