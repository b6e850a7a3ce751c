"""What a run says before its first step, and that it is the same run without it."""

import logging
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from texts_on_disk import call_in, losses, write_csv

from lightning_distill.checks.memory import StepMemory
from lightning_distill.run import first_lines
from lightning_distill.run.memory_on_paper import UnknownOnPaper

WORDS = (
    *("data=text_files", "data.train=tr.csv", "data.validation=te.csv", "data.test=te.csv"),
    *("data.label=kind", "data.tokenizer=model", "trainer.accelerator=cpu", "data.batch_size=4"),
    *("student.num_hidden_layers=1", "student.hidden_size=16", "student.intermediate_size=32"),
    *("teacher.path=model", "baseline=false", "trainer.max_epochs=2"),
    "trainer.log_every_n_steps=1",
)
TITLES = ["Memory", "Teacher", "Parameters", "Both models", "Learnt from", "Start"]
STEP = StepMemory(10_000_000, 20_000_000, 50_000_000, None, True)


def cfg(**changes):
    return OmegaConf.create({"preview": True, "resume": None, "trainer": {}} | changes)


def said(caplog, monkeypatch, found=(STEP, 32), there=60_000_000, **changes):
    """What is said of the memory, and how often it is predicted."""
    asked = []

    def predict(*arguments, **options):
        asked.append(arguments)
        torch.rand(1), np.random.rand()
        logging.getLogger("lightning_distill").warning("said of a model that is not there")
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(first_lines, "memory_on_paper", predict)
    monkeypatch.setattr(first_lines, "memory_of", lambda _: there)
    caplog.clear()
    with caplog.at_level(logging.INFO, "lightning_distill"):
        first_lines.say_memory(cfg(**changes), None)
    return [(r.levelname, r.getMessage()) for r in caplog.records], len(asked)


def test_the_memory_is_said_and_a_warning_if_there_is_less(caplog, monkeypatch):
    line = "Memory: 50.0 MB predicted for a step of the largest batch, 32 rows"
    assert said(caplog, monkeypatch) == ([("INFO", line)], 1)
    ((level, text),), _ = said(caplog, monkeypatch, there=40_000_000)
    assert level == "WARNING" and "this machine has 40.0 MB" in text
    assert "Lower data.batch_size" in text


@pytest.mark.parametrize("error", [UnknownOnPaper("it is loaded"), KeyError("x")])
def test_what_cannot_be_told_is_left_out(error, caplog, monkeypatch):
    assert said(caplog, monkeypatch, error) == ([], 1)


@pytest.mark.parametrize(
    "changes",
    [{"preview": False}, {"resume": "runs/x"}, {"trainer": {"strategy": "ddp_fork"}}],
    ids=str,
)
def test_it_is_not_predicted_where_nobody_would_read_it(changes, caplog, monkeypatch):
    assert said(caplog, monkeypatch, **changes) == ([], 0)


def test_other_processes_say_nothing(caplog, monkeypatch):
    monkeypatch.setattr(first_lines.rank_zero_only, "rank", 1)
    assert said(caplog, monkeypatch) == ([], 0)


def test_random_numbers_are_what_they_were(caplog, monkeypatch):
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()
    said(caplog, monkeypatch)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == np.random.get_state()[1].tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("lines")
    write_csv(made, "model", 2)
    return made


def run(folder, name, *words):
    """Weights, losses and what was said of a run."""
    call_in(folder, *WORDS, *words, f"hydra.run.dir={name}")
    return of_run(folder / name)


def of_run(directory):
    weights = load_file(directory / "student" / "model.safetensors")
    return weights, losses(directory), (directory / "log.txt").read_text().splitlines()


def titles(lines):
    found = [line.partition(":")[0] for line in lines]
    return [title for title in found if title in TITLES]


@pytest.mark.slow
def test_a_run_is_the_same_bit_for_bit_without_its_first_lines(folder):
    """With a teacher that keeps its answers: a row that was only looked at must not be kept."""
    runs = []
    for preview in ("true", "false"):
        own = ["teacher=caching", f"teacher.folder=kept_{preview}"]
        runs.append(run(folder, f"run_{preview}", f"preview={preview}", *own))
    (weights, curve, lines), (plain_weights, plain_curve, plain) = runs
    assert titles(plain) == [] and titles(lines) == [TITLES[0], *TITLES[2:5], TITLES[1], TITLES[5]]
    assert curve == plain_curve and len(curve) == 24
    assert all(torch.equal(v, plain_weights[n]) for n, v in weights.items())
    # Answers to validation rows come from the teacher and from a cache in the same way.
    cached = ["teacher=cached", "teacher.folder=kept_true", "~teacher.path"]
    *_, again = run(folder, "cached", *cached)
    start = [[line for line in one if line.startswith("Start")] for one in (lines, again)]
    assert start[0] == start[1]


@pytest.mark.slow
def test_over_two_processes_each_line_is_said_once_and_of_the_same_rows(folder):
    *_, alone = run(folder, "alone", "teacher=pretrained")
    words = ["trainer=ddp", "trainer.devices=2", "teacher=pretrained", "hydra.run.dir=both"]
    command = [sys.executable, "-m", "lightning_distill.main", *WORDS, *words]
    # Where the fonts are yet to be listed, as for whoever types their first command.
    first = {**os.environ, "MPLCONFIGDIR": str(folder / "fonts")}
    subprocess.run(command, cwd=folder, check=True, capture_output=True, env=first)
    *_, lines = of_run(folder / "both")
    assert list((folder / "fonts").glob("fontlist*")) and "font" not in " ".join(lines)
    assert titles(lines) == titles(alone)
    start = [next(line for line in one if line.startswith("Start")) for one in (alone, lines)]
    assert start[0] == start[1]
    assert re.search(r"on 20 validation rows$", start[1])
