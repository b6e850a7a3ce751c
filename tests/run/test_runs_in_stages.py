"""Runs in stages: killed in each of them and gone on with, beside one that was left alone."""

import json

import pytest
import torch
from test_resumed_runs import ARGUMENTS, command, equal, work  # noqa: F401  a fixture
from texts_on_disk import losses
from transformers import AutoModelForSequenceClassification

pytestmark = pytest.mark.slow

TERMS = [
    "criteria=[hint,hard_label,soft_target]",
    "criteria.hint.inputs.student='student.hidden_states[1:]'",
    "criteria.hint.inputs.teacher='teacher.hidden_states[1:]'",
    "student=from_teacher",
]
STAGES = (
    "stages=[{name:block,blocks:'bert.encoder.layer.*',criteria:[hint],trainer:{max_epochs:1}},"
    "{name:still,criteria:[hint],start:student,optimizer:{lr:0},trainer:{max_steps:6}},"
    "{name:logits,criteria:[hard_label,soft_target],start:block,optimizer:{lr:0.002}}]"
)
WORDS = [w for w in ARGUMENTS if not w.startswith("student.") and w != "baseline=false"]


def weights(folder):
    path = next(folder.glob("checkpoints/last.ckpt"))
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    return {n.removeprefix("student."): v for n, v in state.items() if n.startswith("student.")}


def test_a_run_killed_in_each_stage_ends_as_one_that_was_left_alone(work):  # noqa: F811
    words = [*WORDS, *TERMS, STAGES]
    whole = command(work, *words, "hydra.run.dir=whole")
    assert whole.returncode == 0, whole.stderr
    for line in (
        "Stage 1 of 4, block_0: learning from hint",
        "Stage 4 of 4, logits: learning from",
    ):
        assert line in whole.stdout
    # A stage on blocks has 4 steps, the third 6, the last 12.
    cut = command(work, *words, "hydra.run.dir=cut", stop="2 9")
    for stop in ("4 9", "9 9", "5 9"):
        assert cut.returncode == -9
        cut = command(work, "resume=cut", stop=stop)
    assert cut.returncode == -9
    last = command(work, "resume=cut")
    assert last.returncode == 0, last.stderr
    one, two = work / "whole", work / "cut"
    folders = [*(f"stages/{name}" for name in ("block_0", "block_1", "still")), ".", "baseline"]
    for folder in folders:
        states = [
            torch.load(run / folder / "checkpoints" / "last.ckpt", weights_only=True)
            for run in (one, two)
        ]
        assert equal(states[1]["state_dict"], states[0]["state_dict"]), folder
        assert (one / folder / "metrics.csv").read_text() == (
            two / folder / "metrics.csv"
        ).read_text()
    reports = [json.loads((run / "report.json").read_text()) for run in (one, two)]
    assert reports[0]["student"]["metrics"] == reports[1]["student"]["metrics"]
    # The student alone has the budget of all stages.
    stages = "block_0 4 steps, block_1 4 steps, still 6 steps, logits 12 steps"
    assert reports[0]["facts"]["stages"] == stages
    assert reports[0]["facts"]["training"].startswith("26 steps")
    assert json.loads((one / "baseline" / "result.json").read_text())["steps"] == 26
    _the_same_from_a_cache(work, words)
    auto = AutoModelForSequenceClassification
    _what_was_trained(one, auto.from_pretrained(work / "teacher"))
    loaded = auto.from_pretrained(one / "student").state_dict()
    best = json.loads((one / "result.json").read_text())["checkpoint"]
    state = torch.load(one / best, weights_only=True)["state_dict"]
    assert all(torch.equal(v, state[f"student.{n}"]) for n, v in loaded.items())


def _the_same_from_a_cache(work, words):  # noqa: F811
    """Of every stage, for a cache holds what the terms of all of them read."""
    kept = ["job=cache", "job.folder=kept", "job.hidden_dtype=float32", "hydra.run.dir=answers"]
    teacher = [word for word in words if word != "teacher=pretrained"]
    assert command(work, *words, *kept).returncode == 0
    cached = ["teacher=cached", "teacher.folder=kept", "baseline=false", "hydra.run.dir=cached"]
    done = command(work, *teacher, *cached)
    assert done.returncode == 0, done.stderr
    for folder in ("stages/block_0", "stages/block_1", "stages/still", "."):
        found, expected = (losses(work / run / folder) for run in ("cached", "whole"))
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-6) and len(expected) >= 4, folder


def _what_was_trained(run, teacher):
    first, second, still = (weights(run / "stages" / n) for n in ("block_0", "block_1", "still"))
    last = weights(run)
    # The second block alone, from what the first stage has left.
    moved = [n for n in first if not torch.equal(first[n], second[n])]
    assert moved and all(n.startswith("bert.encoder.layer.1.") for n in moved)
    # The student as it was made: both layers of the teacher.
    assert all(torch.equal(still[n], v) for n, v in teacher.state_dict().items())
    moved = [n for n in first if not torch.equal(last[n], still[n])]
    assert {"classifier.weight", "bert.encoder.layer.0.output.dense.weight"} <= {*moved}


def test_a_stage_of_blocks_that_are_not_as_many_as_the_layers(work):  # noqa: F811
    words = [
        *WORDS,
        *TERMS[:1],
        TERMS[3],
        "criteria.hint.inputs.student='student.hidden_states[*]'",
    ]
    words += ["criteria.hint.inputs.teacher='teacher.hidden_states[*]'", STAGES]
    failed = command(work, *words)
    assert failed.returncode == 1
    words = "In stage 'block_0': there are 2 blocks, and the term 'hint' compares 3 layers."
    assert words in " ".join(failed.stderr.split())
    failed = command(work, *WORDS, *TERMS, STAGES, "job=finetune")
    assert "`stages` are for job=distill" in " ".join(failed.stderr.split())
