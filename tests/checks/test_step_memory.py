"""Memory that is predicted on paper is what real steps take."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from encoder_decoders import batch as encoder_decoder_batch, FAMILIES, model as encoder_decoder
from tiny import bert, loader, text_batches, trainer
from torch import nn
from torch.profiler import profile, ProfilerActivity

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.checks import Level
from lightning_distill.checks.memory import check_memory, on_paper, step_memory, StepMemory
from lightning_distill.criteria import HardLabel, SoftTarget
from lightning_distill.models.gradient_checkpointing import checkpoint_gradients

PRECISION = SimpleNamespace(forward_context=nullcontext)
LOGITS = {"student": "student.logits", "teacher": "teacher.logits"}


def module(recomputed: bool = False) -> DistillationModule:
    terms = {
        "hard_label": Term(HardLabel(), {"student": "student.logits", "labels": "batch.labels"}),
        "soft_target": Term(SoftTarget(), LOGITS),
    }
    make = partial(torch.optim.AdamW, fused=True)
    models = bert(4, 32, vocab_size=5000), bert(2, 64, vocab_size=500)
    if recomputed:
        checkpoint_gradients(models[0])
    return DistillationModule(*models, Objective(terms), optimizer=make, task="classification")


def batch() -> dict:
    return text_batches(1, rows=16, tokens=30)[0]


def allocated(made: DistillationModule, given: dict, folder: Path) -> int:
    """The most bytes that torch's own allocator gave at any moment of a fit, with the weights."""
    parts = [made.student, made.teacher]
    held = [tensor for part in parts for tensor in (*part.parameters(), *part.buffers())]
    weights = sum(tensor.numel() * tensor.element_size() for tensor in held)
    fit = trainer(folder, max_epochs=1)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        fit.fit(made, loader([given] * 3))
    assert fit.global_step == 3
    events = [e for e in found.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return weights + most


@pytest.mark.parametrize("recomputed", [False, True], ids=["kept", "recomputed"])
def test_what_is_predicted_is_what_the_allocator_gives_in_a_fit(recomputed, tmp_path):
    """With the batch that is tried before the first step, and gradients of the step before."""
    with on_paper() as mode:
        predicted = step_memory(module(recomputed), batch(), PRECISION, mode=mode)
    assert predicted.whole
    found = allocated(module(recomputed), batch(), tmp_path)
    # Attention takes some for itself, which only the allocator sees.
    assert predicted.peak == pytest.approx(found, rel=0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_encoder_with_a_decoder_takes_the_same_on_paper(family):
    """Its decoder reads the labels one place later."""

    def measured(mode=None):
        objective = Objective({"soft_target": Term(SoftTarget(), LOGITS)})
        models = encoder_decoder(family), encoder_decoder(family, layers=2)
        make = partial(torch.optim.SGD, lr=0.1)
        made = DistillationModule(*models, objective, optimizer=make, task="sequence_to_sequence")
        return step_memory(made, encoder_decoder_batch(family), PRECISION, mode=mode)

    with on_paper() as mode:
        predicted = measured(mode)
    assert predicted.whole and predicted == measured()


def test_layers_are_counted_where_a_criterion_looks_at_values():
    def look_at_values(student, teacher):
        return student.mean() if float(teacher.sum()) else teacher.mean()

    def measured(layers: str):
        inputs = {role: f"{role}.hidden_states{layers}" for role in ("student", "teacher")}
        make = partial(torch.optim.SGD, lr=0.1)
        with on_paper() as mode:
            models = bert(4, 32, vocab_size=500), bert(4, 32, vocab_size=500)
            objective = Objective({"own": Term(look_at_values, inputs)})
            made = DistillationModule(*models, objective, optimizer=make, task="classification")
            return step_memory(made, batch(), PRECISION, mode=mode)

    found = {layers: measured(layers) for layers in ("[-1]", "[1:]")}
    assert not any(one.whole for one in found.values())
    # A term of many layers keeps what one of the last keeps, and more.
    assert found["[1:]"].peak >= found["[-1]"].peak > found["[-1]"].weights


def test_paper_and_real_tensors_take_the_same():
    with on_paper() as mode:
        predicted = step_memory(module(), batch(), PRECISION, mode=mode)
    assert step_memory(module(), batch(), PRECISION) == predicted


def test_its_parts_are_weights_and_what_adam_keeps():
    made = module()
    found = step_memory(made, batch(), PRECISION)
    student, teacher = (
        sum(p.numel() for p in model.parameters()) for model in (made.student, made.teacher)
    )
    buffers = sum(
        b.numel() * b.element_size() for m in (made.student, made.teacher) for b in m.buffers()
    )
    assert found.weights == 4 * (student + teacher) + buffers
    # A gradient, two moments, and a count of steps for each parameter.
    steps = 4 * len(list(made.student.parameters()))
    assert found.kept == pytest.approx(4 * 3 * student + steps, rel=1e-3)


def test_a_criterion_that_looks_at_values_is_left_out_and_said():
    class Looks(nn.Module):
        def forward(self, student, teacher):
            return (student - teacher).abs().mean() * (1.0 if student.sum() > 0 else 2.0)

    make = partial(torch.optim.SGD, lr=0.1)
    with on_paper() as mode:
        models = bert(1, 8), bert(1, 8)
        objective = Objective({"looks": Term(Looks(), LOGITS)})
        made = DistillationModule(*models, objective, optimizer=make, task="classification")
        found = step_memory(made, batch(), PRECISION, mode=mode)
    assert not found.whole and found.peak > found.weights
    (finding,) = check_memory(found, 2**40, 16)
    assert "without the criteria, which look at values" in finding.found


def test_more_than_there_is_is_wrong():
    found = StepMemory(10, 20, 2_000_000, 3_000_000_000, True)
    (right,), (wrong,) = (check_memory(found, there, 4) for there in (2_000_000, 1_999_999))
    assert right.level is Level.RIGHT and wrong.level is Level.WRONG
    assert "2.0 MB predicted for the largest batch (4 rows)" in right.found
    assert "3 GFLOP a step" in right.found
    assert "data.batch_size" in wrong.do
