"""Costs of the models of a run, on its own rows."""

import lightning as L
import torch
from tiny import bert, loader, text_batches

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.criteria import SoftTarget
from lightning_distill.models.operations import counting_operations
from lightning_distill.run.inference_costs import Measuring, NOT_THERE


class Rows(L.LightningDataModule):
    """Three test rows of seven tokens; a token is changed on its way to the models."""

    def test_dataloader(self):
        return loader(text_batches(1, rows=3))

    def on_after_batch_transfer(self, batch, dataloader_idx):
        return {**batch, "changed": torch.ones(len(batch["labels"]))}


def module() -> DistillationModule:
    terms = {"soft": Term(SoftTarget(), {"student": "student.logits", "teacher": "teacher.logits"})}
    return DistillationModule(bert(1, 8), bert(2, 16), Objective(terms), task="classification")


def test_models_are_given_one_row_and_thirty_two_through_the_hooks_of_the_data():
    made, seen = module().eval(), []

    def forward(batch):
        seen.append((len(batch["labels"]), len(batch["changed"])))
        assert not torch.is_grad_enabled() and not made.student.training
        return made.student_forward(batch)

    measuring = Measuring(Rows())
    found = measuring.costs(made, made.student, forward)
    assert set(seen) == {(1, 1), (32, 32)}
    assert found.latency_ms > 0 and found.latency_32_ms > 0 and found.memory_32_mb > 0
    # The row is padded as it is in its batch.
    batch = text_batches(1, rows=3)[0]
    inputs = {name: batch[name][:1] for name in ("input_ids", "attention_mask")}
    with torch.no_grad(), counting_operations() as counter:
        made.student(**inputs)
    assert found.flops == counter.get_total_flops()
    assert measuring.about["times and memory"].startswith("on cpu, ")
    assert measuring.about["times and memory"].endswith("; input_ids 1 × 7, input_ids 32 × 7")


def test_a_teacher_is_measured_as_it_is_asked():
    made = module().eval()
    measuring = Measuring(Rows())
    teacher = measuring.costs(made, made.taught_by.model, made.teacher_forward)
    student = measuring.costs(made, made.student, made.student_forward)
    assert teacher.flops > student.flops and teacher.memory_32_mb > student.memory_32_mb


def test_of_a_model_that_is_not_there_nothing_is_measured():
    found = Measuring(Rows()).costs(module(), None, lambda batch: 1 / 0)
    assert found.flops is None and set(found.missing.values()) == {NOT_THERE}


def test_models_train_as_before_afterwards():
    """Nothing that was made in inference mode stays behind."""
    made = module()
    made.eval()
    Measuring(Rows()).costs(made, made.student, made.student_forward)
    made.train()
    made.losses(text_batches(1)[0])["loss"].backward()
    assert all(p.grad is not None for n, p in made.student.named_parameters() if "query" in n)
