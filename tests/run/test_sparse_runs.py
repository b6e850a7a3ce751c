"""Runs whose student becomes sparse: in stages, killed, beside a student alone, and exported."""

import json

import pytest
import torch
from test_resumed_runs import ARGUMENTS, command, equal, work  # noqa: F401  a fixture
from transformers import AutoModelForSequenceClassification

pytestmark = pytest.mark.slow

WORDS = [w for w in ARGUMENTS if not w.startswith("student.") and w != "baseline=false"]
WORDS += ["student=from_teacher"]


def zeros(folder):
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    layers = [p for n, p in model.named_parameters() if ".layer." in n and p.dim() == 2]
    return [float((p == 0).float().mean()) for p in layers]


def test_killed_and_gone_on_with_every_stage_keeps_its_zeros(work):  # noqa: F811
    stages = (
        "stages=[{name:sparse,trainer:{max_epochs:2}},"
        "{name:longer,sparsity:null,trainer:{max_epochs:1}}]"
    )
    words = [*WORDS, "sparsity=movement", "sparsity.amount=0.75", "sparsity.start=0", stages]
    whole = command(work, *words, "hydra.run.dir=whole")
    assert whole.returncode == 0, whole.stderr
    assert command(work, *words, "hydra.run.dir=cut", stop="6 9").returncode == -9
    # The first stage has 8 steps, the second 4.
    assert command(work, "resume=cut", stop="4 9").returncode == -9
    last = command(work, "resume=cut")
    assert last.returncode == 0, last.stderr
    for folder in ("stages/sparse", ".", "baseline"):
        one, two = (
            torch.load(work / run / folder / "checkpoints" / "last.ckpt", weights_only=True)
            for run in ("whole", "cut")
        )
        assert equal(two["state_dict"], one["state_dict"]), folder
    report = json.loads((work / "whole" / "report.json").read_text())
    assert report["facts"]["weights that are 0"].startswith("75.0% of ")
    assert zeros(work / "whole" / "student") == pytest.approx([0.75] * 12, abs=0.01)
    # The student alone is as sparse as the one that it is compared with.
    path = json.loads((work / "whole" / "baseline" / "result.json").read_text())["checkpoint"]
    state = torch.load(work / "whole" / "baseline" / path, weights_only=True)["state_dict"]
    weight = state["student.bert.encoder.layer.0.intermediate.dense.weight"]
    assert float((weight == 0).float().mean()) == pytest.approx(0.75, abs=0.01)


def test_a_model_that_learns_from_labels_alone_says_what_is_zero(work):  # noqa: F811
    words = [w for w in ARGUMENTS if not w.startswith(("teacher", "student.layers", "baseline"))]
    more = ["job=finetune", "student=from_config", "sparsity=magnitude", "hydra.run.dir=own"]
    done = command(work, *words, *more)
    assert done.returncode == 0, done.stderr
    report = json.loads((work / "own" / "report.json").read_text())
    assert report["facts"]["weights that are 0"].startswith("50.0% of ")


def test_pruned_distilled_sparse_and_quantised_in_one_run(work):  # noqa: F811
    words = [w for w in WORDS if not w.startswith(("student", "trainer.max_epochs"))]
    words += ["experiment=prune_distil_quantise", "hydra.run.dir=run", "student.parameters=90%"]
    short = [f"stages.{i}.trainer.max_epochs=1" for i in range(3)]
    done = command(work, *words, *short)
    assert done.returncode == 0, done.stderr
    for name in ("Stage 1 of 3, recover", "Stage 2 of 3, sparse", "Stage 3 of 3, quantised"):
        assert name in done.stdout
    report = json.loads((work / "run" / "report.json").read_text())
    assert report["facts"]["weights that are 0"].startswith("50.")
    # Rounding leaves zeros zeros, and each row of a weight has 255 values at most.
    assert min(zeros(work / "run" / "student")) >= 0.49
    model = AutoModelForSequenceClassification.from_pretrained(work / "run" / "student")
    row = model.bert.encoder.layer[0].intermediate.dense.weight[0]
    steps = row / (row.abs().max() / 127)
    assert torch.allclose(steps, steps.round(), atol=1e-3)
    exported = command(work, "job=export", "job.run=run", "job.to=small")
    assert exported.returncode == 0, exported.stderr
    assert json.loads((work / "small" / "export.json").read_text())


def test_two_processes_and_what_does_not_fit(work):  # noqa: F811
    two = ["trainer.devices=2", "trainer.strategy=ddp", "hydra.run.dir=two", "baseline=false"]
    done = command(work, *WORDS, "sparsity=magnitude", "sparsity.amount=null",
                   "sparsity.pattern='2:4'", *two)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert zeros(work / "two" / "student") == [0.5] * 12
    refused = command(work, *WORDS, "sparsity=magnitude", "sparsity.pattern=3x3")
    words = "does not divide the weights of bert.encoder.layer.0.attention.self.query (16, 16)"
    assert refused.returncode == 1 and words in refused.stderr
    typo = command(work, *WORDS, "sparsity=magnitud")
    assert typo.returncode == 1 and "magnitude" in typo.stderr
