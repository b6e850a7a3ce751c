"""Classifiers with a decoder, which know of no padding, are trained, taught, cut and measured."""

import json
import sys

import pytest
from tiny import gpt2
from tokenizers_of_text import byte_level
from transformers import AutoConfig, GPT2ForSequenceClassification

from lightning_distill.main import main

TEXTS = [("a fine film", "good"), ("poor", "bad"), ("very fine", "good"), ("so poor", "bad")]


@pytest.fixture
def job(tmp_path, monkeypatch):
    for name in ("train", "dev"):
        rows = [json.dumps({"text": text, "label": label}) for text, label in 3 * TEXTS]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    made = byte_level()
    made.pad_token = None
    made.save_pretrained(tmp_path / "gpt")
    model = GPT2ForSequenceClassification(gpt2(2, 16, vocabulary=len(made)).config)
    model.config.pad_token_id = None
    model.save_pretrained(tmp_path / "gpt")
    assert AutoConfig.from_pretrained(tmp_path / "gpt").pad_token_id is None
    files = [f"data.train={tmp_path}/train.jsonl", f"data.validation={tmp_path}/dev.jsonl"]
    files += [f"data.test={tmp_path}/dev.jsonl", "data=text_files", "data.batch_size=4"]
    files += ["trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.log_every_n_steps=1"]

    def run(name, *words):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        folder = tmp_path / name
        monkeypatch.setattr(sys, "argv", ["x", *files, *words, f"hydra.run.dir={folder}"])
        main()
        return folder

    return run


@pytest.mark.slow
def test_every_job_knows_what_the_tokenizer_pads_with(job, tmp_path):
    tuned = job("tuned", "job=finetune", "student=pretrained", f"student.path={tmp_path / 'gpt'}")
    teacher = ["teacher=pretrained", f"teacher.path={tuned / 'student'}"]
    taught = job("taught", *teacher, "student=from_teacher", "student.layers=1", "baseline=false")
    measured = job("measured", "job=evaluate", f"job.path={taught}")
    accuracy = json.loads((measured / "evaluation.json").read_text())["accuracy"]
    assert 0 <= accuracy <= 1
    # What loads the student elsewhere is told as well.
    config = AutoConfig.from_pretrained(taught / "student")
    assert config.pad_token_id is not None
