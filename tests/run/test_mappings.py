"""Layers that are paired by what they are like: killed, from a cache, and in two processes."""

import json

import pytest
import torch
from test_resumed_runs import ARGUMENTS, command, equal, work  # noqa: F401  a fixture
from test_runs_in_stages import losses

pytestmark = pytest.mark.slow

TERMS = [
    "criteria=[hint]",
    "criteria.hint.inputs.student='student.hidden_states[1:]'",
    "criteria.hint.inputs.teacher='teacher.hidden_states[*]'",
    "student.num_hidden_layers=2",
]


@pytest.mark.parametrize("mapping", ["auto", "emd"])
def test_killed_and_cached_runs_compare_the_same_layers(work, mapping):  # noqa: F811
    words = [*ARGUMENTS, *TERMS, f"criteria.hint.mapping={mapping}"]
    whole = command(work, *words, "hydra.run.dir=whole")
    assert whole.returncode == 0, whole.stderr
    assert command(work, *words, "hydra.run.dir=cut", stop="5 9").returncode == -9
    assert command(work, "resume=cut").returncode == 0
    folders = [work / name for name in ("whole", "cut")]
    states = [torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in folders]
    assert equal(states[1]["state_dict"], states[0]["state_dict"])
    kept = ["job=cache", "job.folder=kept", "job.hidden_dtype=float32", "hydra.run.dir=answers"]
    assert command(work, *words, *kept).returncode == 0
    rest = [word for word in words if word != "teacher=pretrained"]
    cached = ["teacher=cached", "teacher.folder=kept", "hydra.run.dir=cached"]
    done = command(work, *rest, *cached)
    assert done.returncode == 0, done.stderr
    assert losses(work / "cached") == pytest.approx(losses(work / "whole"), rel=1e-6, abs=1e-6)
    if mapping == "auto":
        found = [
            json.loads((work / name / "layer_similarity.json").read_text())["hint"]
            for name in ("whole", "cut", "cached")
        ]
        assert found[0]["students"] == ["student.hidden_states[1]", "student.hidden_states[2]"]
        assert len(found[0]["teachers"]) == 3 and len(found[0]["pairs"]) == 2
        assert found[0]["pairs"] == found[1]["pairs"] == found[2]["pairs"]
        assert found[1]["cka"] == found[0]["cka"]
        assert (work / "whole" / "layer_similarity.png").stat().st_size > 1000
        assert "hint: layers by similarity (CKA): student.hidden_states[1] learns" in whole.stdout


def test_two_processes_compare_the_same_layers(work):  # noqa: F811
    words = [*ARGUMENTS, *TERMS[1:], "criteria.hint.mapping=auto", "trainer.max_epochs=1"]
    two = [
        "criteria=[hard_label,hint]",
        "trainer.devices=2",
        "trainer.strategy=ddp",
        "hydra.run.dir=two",
    ]
    done = command(work, *words, *two)
    assert done.returncode == 0, done.stderr
    # One of them says what they agreed on.
    assert done.stdout.count("layers by similarity") == 1
    state = torch.load(work / "two" / "checkpoints" / "last.ckpt", weights_only=True)
    assert "objective.terms.hint.similar.similarity" in state["state_dict"]
