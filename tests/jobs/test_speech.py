"""Every job on speech: Whisper from wav files, its encoder shared with its teacher's."""

import json
import sys
from pathlib import Path

import pytest
import torch
from speech import whisper, write_table
from texts_on_disk import losses
from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor

from lightning_distill.data import KeepByLogProbability, SpeechFiles
from lightning_distill.data.pairs.sounds import read_wav
from lightning_distill.main import main

pytestmark = pytest.mark.slow

SMALL = [
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=1",
    "callbacks=[best_checkpoint,last_checkpoint,finite_loss]",
    "optimizer.lr=1e-2",
]
FILES = ["data=speech_files", "data.train=train.jsonl", "data.validation=dev.jsonl"]
FILES += ["data.test=dev.jsonl", "data.batch_size=8"]
MEASURED = ["metrics=[word_error_rate,perplexity]", "metrics.word_error_rate.max_new_tokens=6"]
CUT = ["student=from_teacher", "student.layers={encoder: 2, decoder: 1}"]
SHARED = [*CUT, "student.freeze=[encoder]"]
TERMS = ["criteria=[hard_label,soft_target]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("speech")
    whisper(folder / "whisper")
    write_table(folder, "train", 32)
    dev = write_table(folder, "dev", 9, seed=500)
    lines = dev.read_text().splitlines()
    # A word that nobody has learnt: the error rate is not 0, however good a model is.
    last = json.dumps({**json.loads(lines[-1]), "text": "never"})
    dev.write_text("\n".join([*lines[:-1], last]) + "\n")
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
        run("taught", "job=finetune", *FILES, "student=pretrained", "student.path=whisper",
            "trainer.max_epochs=5", "metrics=[perplexity]")  # fmt: skip
    return ["teacher=pretrained", f"teacher.path={folder / 'taught' / 'student'}"]


def error_rate(path: Path, folder: Path) -> float:
    """Of a saved model on the test rows, by transformers alone: texts have one word each."""
    model = AutoModelForSpeechSeq2Seq.from_pretrained(path).eval()
    processor = AutoProcessor.from_pretrained(path)
    rows = [json.loads(line) for line in (folder / "dev.jsonl").read_text().splitlines()]
    wrong = 0
    for row in rows:
        samples, rate = read_wav(folder / row["audio"])
        given = processor(samples, sampling_rate=rate, return_tensors="pt")
        with torch.no_grad():
            (ids,) = model.generate(given["input_features"], max_new_tokens=6, do_sample=False)
        words = processor.decode(ids, skip_special_tokens=True).split()
        # With one word to hit, each other word is one put in, or takes the place of it.
        wrong += max(len(words) - (row["text"] in words), 1 - (row["text"] in words))
    return wrong / len(rows)


@pytest.fixture
def first(run, folder, teacher) -> Path:
    if not (folder / "first" / "report.json").is_file():
        run("first", *FILES, *SHARED, *teacher, *MEASURED, *TERMS)
    return folder / "first"


def test_a_run_and_the_jobs_on_what_it_leaves(run, folder, first):
    assert "it runs once for both" in (first / "log.txt").read_text()
    found = json.loads((first / "report.json").read_text())
    assert found["metric"] == "word_error_rate" and found["baseline"] is not None
    rate = found["student"]["metrics"]["word_error_rate"]
    assert rate >= 1 / 9
    assert rate == pytest.approx(error_rate(first / "student", folder), abs=1e-6)
    again = run("evaluated", "job=evaluate", "job.path=first", *MEASURED)
    of_job = json.loads((again / "evaluation.json").read_text())
    assert of_job["word_error_rate"] == pytest.approx(rate, abs=1e-6)
    assert of_job["perplexity"] == pytest.approx(found["student"]["metrics"]["perplexity"])
    run("exported", "job=export", "job.run=first", "job.to=out")
    assert "on 8 test rows" in (folder / "exported" / "log.txt").read_text()
    assert error_rate(folder / "out", folder) == pytest.approx(rate, abs=1e-6)
    # It is a whole model: the encoder is the teacher's, to the last bit.
    out, own = (AutoModelForSpeechSeq2Seq.from_pretrained(path) for path in
                (folder / "out", folder / "taught" / "student"))  # fmt: skip
    before = own.model.encoder.state_dict()
    assert all(torch.equal(w, before[n]) for n, w in out.model.encoder.state_dict().items())
    assert len(out.model.decoder.layers) == 1


def test_a_cached_and_a_caching_teacher_make_the_steps_of_a_live_one(run, folder, teacher, first):
    more = [*FILES, *TERMS, "metrics=[perplexity]", "baseline=false"]
    run("kept", "job=cache", *more, *CUT, *teacher, "job.folder=answers")
    live = losses(first)
    assert len(live) == 4
    for name, kept in (
        ("cached", ["teacher=cached", teacher[1], "teacher.folder=answers"]),
        ("caching", ["teacher=caching", teacher[1], "teacher.folder=asked"]),
    ):
        assert losses(run(name, *more, *SHARED, *kept)) == pytest.approx(live, abs=2e-6), name


def test_a_student_learns_from_what_its_teacher_heard(run, folder, teacher):
    run("wrote", "job=generate", *FILES, *teacher, "job.file=texts.jsonl", "job.max_new_tokens=6")
    lines = [json.loads(line) for line in (folder / "texts.jsonl").read_text().splitlines()]
    assert len(lines) == 32
    path = str(folder / "whisper")
    data = SpeechFiles("train.jsonl", tokenizer=path, feature_extractor=path, targets="texts.jsonl",
                       keep=KeepByLogProbability(least=-9))  # fmt: skip
    data.setup()
    heard = {(line["source"], line["text"]) for line in lines}
    assert set(data.splits["train"].texts) <= heard and data.num_rows > 20
