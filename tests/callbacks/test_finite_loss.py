"""A loss that is not finite ends the run, also where nobody waits for the device."""

import lightning as L
import pytest
import torch
from tiny import loader, trainer
from torch import nn

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.callbacks import FiniteLoss, LastCheckpoint
from lightning_distill.criteria import SoftTarget

LOGITS = {"student": "student.logits", "teacher": "teacher.logits"}


class BehindTheProgram(FiniteLoss):
    """As beside a GPU: a loss is only marked when it comes, and the mark is read later."""

    def _is_at_hand(self, loss):
        return False


def data(bad: int, count: int = 14):
    batches = [(torch.randn(4, 4), torch.zeros(4, dtype=torch.long)) for _ in range(count)]
    batches[bad][0][0, 0] = torch.nan
    return batches


def module():
    torch.manual_seed(0)
    objective = Objective({"soft_target": Term(SoftTarget(), LOGITS)})
    return DistillationModule(nn.Linear(4, 3), nn.Linear(4, 3), objective)


class Count(L.Callback):
    steps = 0

    def on_train_batch_end(self, *_):
        self.steps += 1


def stops(tmp_path, bad, callback, words, **options):
    made, count = module(), Count()
    fit = trainer(tmp_path, callbacks=[callback, count], **options)
    with pytest.raises(ValueError, match=words):
        fit.fit(made, loader(data(bad)))
    return made, count.steps


@pytest.mark.parametrize("bad", [1, 3, 12])
def test_on_the_cpu_the_weights_stay_those_of_the_step_before(tmp_path, bad):
    words = f"loss is nan at step {bad} .*batch {bad}.*the step before.*soft_target="
    made, steps = stops(tmp_path, bad, FiniteLoss(), words)
    assert steps == bad and all(p.isfinite().all() for p in made.student.parameters())


@pytest.mark.parametrize("bad", [1, 3, 12])
def test_on_other_devices_it_is_found_in_the_next_batch_and_nothing_else_is_said(tmp_path, bad):
    words = f"NaN or infinite in batch {bad} of this .*1 batches later.*may not be finite"
    made, steps = stops(tmp_path, bad, BehindTheProgram(), words)
    assert steps == bad + 1 and not all(p.isfinite().all() for p in made.student.parameters())


@pytest.mark.parametrize("every", [None, 5, 100])
def test_the_last_batch_of_an_epoch_is_looked_at_before_anything_is_written(tmp_path, every):
    last = LastCheckpoint(tmp_path)
    made, count = module(), Count()
    fit = trainer(
        tmp_path, callbacks=[BehindTheProgram(every), count, last], enable_checkpointing=True
    )
    with pytest.raises(ValueError, match="in batch 13 of this .*0 batches later"):
        fit.fit(made, loader(data(13)))
    assert count.steps == 14 and not (tmp_path / "last.ckpt").exists()


def test_no_checkpoint_within_an_epoch_holds_what_was_seen(tmp_path):
    last = LastCheckpoint(tmp_path, every_n_train_steps=1)
    made = module()
    fit = trainer(tmp_path, callbacks=[BehindTheProgram(100), last], enable_checkpointing=True)
    with pytest.raises(ValueError, match="in batch 3 of this"):
        fit.fit(made, loader(data(3)))
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 3
    assert all(v.isfinite().all() for v in saved["state_dict"].values())


def test_every_n_steps_is_at_least_1():
    with pytest.raises(ValueError, match="`every_n_steps` must be at least 1, got 0"):
        FiniteLoss(0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_it_is_found_in_the_next_batch(tmp_path):
    with pytest.raises(ValueError, match="in batch 3 of this .*1 batches later"):
        trainer(tmp_path, accelerator="gpu", devices=1, callbacks=[FiniteLoss()]).fit(
            module(), loader(data(3))
        )


class Broken(torch.autograd.Function):
    """A finite value with a gradient that is not."""

    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * torch.inf


class BreaksAt(nn.Linear):
    def __init__(self, batch):
        super().__init__(4, 3)
        self.batch, self.seen = batch, 0

    def forward(self, inputs):
        out = super().forward(inputs)
        self.seen += self.training and torch.is_grad_enabled()
        return Broken.apply(out) if self.training and self.seen > self.batch else out


def broken(batch):
    torch.manual_seed(0)
    objective = Objective({"soft_target": Term(SoftTarget(), LOGITS)})
    return DistillationModule(BreaksAt(batch), nn.Linear(4, 3), objective)


def clean(count=14):
    return [(torch.randn(4, 4), torch.zeros(4, dtype=torch.long)) for _ in range(count)]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("batch", [0, 5, 13])
def test_a_gradient_that_is_not_finite_never_reaches_the_weights(tmp_path, batch, accumulate):
    made = broken(batch)
    last = LastCheckpoint(tmp_path, every_n_train_steps=1)
    fit = trainer(
        tmp_path,
        callbacks=[FiniteLoss(), last],
        accumulate_grad_batches=accumulate,
        enable_checkpointing=True,
    )
    with pytest.raises(ValueError, match=r"gradient of student.weight and 1 more is NaN or inf"):
        fit.fit(made, loader(clean()))
    assert all(p.isfinite().all() for p in made.student.parameters())
    for path in tmp_path.glob("*.ckpt"):
        kept = torch.load(path, weights_only=True)["state_dict"]
        assert all(value.isfinite().all() for value in kept.values())


@pytest.mark.parametrize("every", [None, 5, 100])
def test_beside_a_gpu_no_checkpoint_holds_such_a_step_and_the_last_one_is_looked_at(
    tmp_path, every
):
    made = broken(13)
    last = LastCheckpoint(tmp_path)
    fit = trainer(tmp_path, callbacks=[BehindTheProgram(every), last], enable_checkpointing=True)
    with pytest.raises(ValueError, match="loss or its gradient was NaN or infinite in batch 13"):
        fit.fit(made, loader(clean()))
    assert not list(tmp_path.glob("*.ckpt"))


def regression(batches, teacher=None):
    torch.manual_seed(0)
    inputs = {"input": "student.logits", "target": "batch.labels"}
    terms = {"mse": Term(nn.MSELoss(), inputs)}
    if teacher is not None:
        terms["soft_target"] = Term(SoftTarget(), LOGITS)
    return DistillationModule(nn.Linear(4, 3), teacher, Objective(terms), task="regression")


class Forbids(nn.Linear):
    """A teacher that rules one class out, and knows nothing of large inputs."""

    def forward(self, inputs):
        logits = super().forward(inputs).masked_fill(inputs[:, :1] > 50, torch.nan)
        return logits.masked_fill(torch.tensor([True, False, False]), -torch.inf)


CULPRITS = {
    "inputs": (0, r"The batch's inputs is NaN or infinite in its rows \[2\]"),
    "labels": (1, r"The batch's labels is NaN or infinite in its rows \[2\]"),
    "teacher": (2, r"teacher.logits is NaN or infinite in its rows \[2\]"),
}


@pytest.mark.parametrize("callback", [FiniteLoss, BehindTheProgram])
@pytest.mark.parametrize("kind", CULPRITS)
def test_what_is_not_finite_is_named_and_so_are_its_rows(tmp_path, kind, callback):
    batches = [(torch.randn(4, 4), torch.randn(4, 3)) for _ in range(6)]
    place, words = CULPRITS[kind]
    if kind == "teacher":
        batches[3][0][2, 0] = 99.0
    else:
        batches[3][place][2, 0] = torch.nan
    made = regression(batches, Forbids(4, 3))
    with pytest.raises(ValueError, match=rf"{words}.*Terms: ") as error:
        trainer(tmp_path, callbacks=[callback()]).fit(made, loader(batches))
    assert "batch 3" in str(error.value)


def test_rows_have_the_numbers_that_the_data_gives_them(tmp_path):
    batches = [
        {"input": torch.randn(4, 4), "labels": torch.randn(4, 3), "row": torch.arange(4) + 4 * i}
        for i in range(6)
    ]
    batches[3]["labels"][2, 0] = torch.inf
    with pytest.raises(ValueError, match=r"rows \[12, 13, 14, 15\].*labels .* in rows \[14\] of"):
        trainer(tmp_path, callbacks=[FiniteLoss()]).fit(regression(batches), loader(batches))
