"""What is measured of a student is what will be used: integers, where it rounds its weights."""

from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from tiny import bert, loader, text_batches

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.criteria import HardLabel
from lightning_distill.report import parameter_count, size_mb
from lightning_distill.run.student_as_used import student_as_used

TERMS = {"hard": Term(HardLabel(), {"student": "student.logits", "labels": "batch.labels"})}


def module(student) -> DistillationModule:
    return DistillationModule(student, None, Objective(TERMS)).eval()


def test_of_full_precision_it_is_the_student_itself():
    made = module(bert(1, 32))
    used = student_as_used(made)
    assert used.model is made.student
    assert used.parameters == parameter_count(made.student)
    assert used.size_mb == size_mb(made.student)


@pytest.mark.parametrize("train", ["weights", "scales"])
def test_of_rounded_weights_it_is_a_copy_in_integers(train):
    pytest.importorskip("torchao", reason="pip install 'lightning-distill[quantization]'")
    from lightning_distill.students import quantized

    plain = bert(1, 32, seed=1)
    count, size = parameter_count(plain), size_mb(plain)
    made = module(quantized(plain, {"scheme": "int8_weights", "train": train}))
    student, batch = made.student, text_batches(1)[0]
    used = student_as_used(made)
    assert used.model is not student and made.student is student
    assert used.parameters == count and used.size_mb < size
    with torch.no_grad():
        found, trained = used.forward(batch), made.student_forward(batch)
    assert made.student is student
    assert torch.allclose(found.logits, trained.logits, atol=1e-4)


def test_a_trial_of_a_search_is_measured_so(monkeypatch):
    pytest.importorskip("torchao", reason="pip install 'lightning-distill[quantization]'")
    pytest.importorskip("optuna", reason="pip install 'lightning-distill[search]'")
    from lightning_distill.run import search_trial
    from lightning_distill.run.distillation import Distillation
    from lightning_distill.students import quantized

    def figures(how):
        made = module(bert(1, 32, seed=1) if how is None else quantized(bert(1, 32, seed=1), how))
        data = SimpleNamespace(setup=lambda _: None, test_dataloader=lambda: rows)
        monkeypatch.setattr(search_trial, "build_module", lambda *_: made)
        monkeypatch.setattr(search_trial, "build_objective", lambda _: None)
        given = Distillation(data, {}, made.student, None, [])
        return search_trial._size_and_speed(OmegaConf.create({}), given)

    rows = loader(text_batches(1, rows=3))
    plain, eight, scales = map(
        figures, (None, "int8_weights", {"scheme": "int8_weights", "train": "scales"})
    )
    assert plain["size"] == eight["size"] == scales["size"]
    assert eight["size_mb"] == scales["size_mb"] < plain["size_mb"]
    assert min(one["latency"] for one in (plain, eight, scales)) > 0
