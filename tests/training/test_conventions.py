"""What people who know Lightning expect of a LightningModule."""

import lightning as L
import pytest
import torch
from tiny import loader, trainer
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, IterableDataset
from torchmetrics.classification import MulticlassAccuracy

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.criteria import HardLabel, Hint, SoftTarget

LOGITS = {"student": "student.logits", "teacher": "teacher.logits"}
LABELS = {"student": "student.logits", "labels": "batch.labels"}


def pairs(rows=12, size=4, seed=0):
    numbers = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 6, generator=numbers)
    y = torch.randint(0, 3, (rows,), generator=numbers)
    return [(x[i : i + size], y[i : i + size]) for i in range(0, rows, size)]


def made(cls=DistillationModule, terms=None, metrics=None, student=None):
    torch.manual_seed(0)
    student = nn.Linear(6, 3) if student is None else student
    terms = terms or {"hard": Term(HardLabel(), LABELS), "soft": Term(SoftTarget(), LOGITS)}
    sgd = lambda groups: torch.optim.SGD(groups, lr=0.1)  # noqa: E731
    return cls(student, nn.Linear(6, 3), Objective(terms), metrics, optimizer=sgd)


class Detached(SoftTarget):
    def forward(self, student, teacher):
        return super().forward(student.detach(), teacher)


def test_predict_gives_the_students_predictions(tmp_path):
    module, data = made(), pairs()
    found = torch.cat(trainer(tmp_path).predict(module, loader(data)))
    assert_close(found, module.student(torch.cat([x for x, _ in data])))
    assert_close(module(data[0]), module.student(data[0][0]))


def test_several_validation_loaders_are_measured_one_by_one(tmp_path):
    module = made(metrics={"accuracy": MulticlassAccuracy(3, average="micro")})
    loaders = [loader(pairs(seed=1)), loader(pairs(8, seed=2))]
    runner = trainer(tmp_path, max_epochs=1)
    runner.fit(module, loader(pairs()), loaders)
    found = runner.callback_metrics
    for suffix, data in (("", pairs(seed=1)), ("/dataloader_idx_1", pairs(8, seed=2))):
        x, y = (torch.cat(parts) for parts in zip(*data, strict=True))
        logits, taught = module.student(x), module.teacher(x)
        assert_close(found[f"val/accuracy{suffix}"], (logits.argmax(-1) == y).float().mean())
        assert_close(found[f"val/hard{suffix}"], nn.functional.cross_entropy(logits, y))
        soft = SoftTarget()(logits, taught)
        assert_close(found[f"val/soft{suffix}"], soft)
        assert_close(found[f"val/loss{suffix}"], found[f"val/hard{suffix}"] + soft)
    tested = trainer(tmp_path)
    tested.test(module, loaders, verbose=False)
    assert {"test/teacher_accuracy", "test/teacher_accuracy/dataloader_idx_1"} <= set(
        tested.callback_metrics
    )
    # The same module may see more loaders next time.
    trainer(tmp_path).validate(module, [*loaders, loader(pairs(seed=3))], verbose=False)


def test_validating_first_takes_no_check_from_the_training(tmp_path):
    module = made(terms={"soft": Term(Detached(), LOGITS)})
    trainer(tmp_path).validate(module, loader(pairs()), verbose=False)
    with pytest.raises(ValueError, match="'soft' has a positive weight but gives the student no"):
        trainer(tmp_path).fit(module, loader(pairs()))


def test_validating_first_builds_the_adapter_that_is_trained_afterwards(tmp_path):
    wide = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3))
    inputs = {"student": "student.layer:0", "teacher": "teacher.layer:0"}
    teacher = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))
    objective = Objective({"hint": Term(Hint(), inputs, adapter="linear")})
    module = DistillationModule(wide, teacher, objective)
    trainer(tmp_path).validate(module, loader(pairs()), verbose=False)
    adapter = dict(objective.terms["hint"].adapters.items())["0"]
    before = [p.clone() for p in adapter.parameters()]
    trainer(tmp_path).fit(module, loader(pairs()))
    assert dict(objective.terms["hint"].adapters.items())["0"] is adapter
    assert not torch.equal(next(adapter.parameters()), before[0])


class InBytes(DistillationModule):
    """Its batches are bytes until they are on the device."""

    calls: list

    def on_before_batch_transfer(self, batch, dataloader_idx):
        self.calls.append("before")
        return batch

    def on_after_batch_transfer(self, batch, dataloader_idx):
        self.calls.append("after")
        x, y = batch
        return x.float() / 255, y


def in_bytes(data):
    return [((x * 40 + 128).clamp(0, 255).to(torch.uint8), y) for x, y in data]


def test_the_trial_takes_the_way_of_a_training_batch(tmp_path):
    module = made(InBytes)
    module.calls = []
    data = in_bytes(pairs())
    trainer(tmp_path).fit(module, loader(data), loader(data))
    # One trial, three batches of training and three of validation.
    assert module.calls == ["before", "after"] * 7


def test_the_hooks_of_a_data_module_shape_the_trial_too(tmp_path):
    class Data(L.LightningDataModule):
        def train_dataloader(self):
            return loader(in_bytes(pairs()))

        def on_after_batch_transfer(self, batch, dataloader_idx):
            return batch[0].float() / 255, batch[1]

    module = made()
    trainer(tmp_path).fit(module, datamodule=Data())
    assert module.is_checked


class Once(IterableDataset):
    """What is read is gone."""

    def __init__(self, items):
        self.items = iter(items)

    def __iter__(self):
        return self.items


class Seen(DistillationModule):
    rows: list

    def training_step(self, batch, batch_idx):
        self.rows.append(batch[0][0, 0].item())
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize(
    "once",
    [
        lambda items: (item for item in items),
        lambda items: DataLoader(Once(items), batch_size=None),
    ],
    ids=["an iterator", "a stream"],
)
def test_data_that_can_be_read_only_once_lose_no_batch_to_the_trial(once, tmp_path):
    module, data = made(Seen), pairs()
    module.rows = []
    trainer(tmp_path).fit(module, once(data))
    assert module.rows == [x[0, 0].item() for x, _ in data]
    # It is the same training as on a list.
    other = made(Seen)
    other.rows = []
    trainer(tmp_path).fit(other, loader(data))
    assert_close(module.student.weight, other.student.weight, rtol=0, atol=0)


def test_data_that_can_be_read_only_once_are_tried_in_the_first_step(tmp_path):
    module = made(terms={"soft": Term(Detached(), LOGITS)})
    with pytest.raises(ValueError, match="gives the student no gradient"):
        trainer(tmp_path).fit(module, DataLoader(Once(pairs()), batch_size=None))
    inputs = {"student": "student.layer:0", "teacher": "teacher.logits"}
    student = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))
    module = made(terms={"hint": Term(Hint(), inputs, adapter="linear")}, student=student)
    with pytest.raises(ValueError, match="can be read only once.*override example_batch"):
        trainer(tmp_path).fit(module, DataLoader(Once(pairs()), batch_size=None))


def test_a_stream_without_an_end_is_tried_before_the_first_step(tmp_path):
    class Stream(IterableDataset):
        def __iter__(self):
            while True:
                yield from pairs()

    module = made(terms={"soft": Term(Detached(), LOGITS)})
    runner = trainer(tmp_path, max_epochs=-1, max_steps=3)
    with pytest.raises(ValueError, match="gives the student no gradient"):
        runner.fit(module, DataLoader(Stream(), batch_size=None))
    assert runner.global_step == 0


@pytest.mark.parametrize("options", [{"overfit_batches": 2}, {"fast_dev_run": True}])
def test_a_first_look_works(options, tmp_path):
    module = made()
    runner = trainer(tmp_path, **options)
    runner.fit(module, loader(pairs()), loader(pairs()))
    assert runner.global_step == (2 if "overfit_batches" in options else 1)


def test_losses_serve_a_loop_of_ones_own():
    """Against the definition, and against the module in Lightning's hands."""
    module = made()
    x, y = pairs()[0]
    losses = module.losses((x, y))
    logits, taught = module.student(x), module.teacher(x)
    assert_close(losses["hard"], nn.functional.cross_entropy(logits, y))
    assert_close(losses["soft"], SoftTarget()(logits, taught))
    assert_close(losses["loss"], losses["hard"] + losses["soft"])
    losses["loss"].backward()
    assert module.student.weight.grad is not None
    assert all(p.grad is None for p in module.teacher.parameters())


def test_a_loop_of_ones_own_trains_as_lightning_does(tmp_path):
    module, data = made(), pairs()
    module.prepare(data[0])
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for batch in data:
        optimizer.zero_grad()
        module.losses(batch)["loss"].backward()
        optimizer.step()
    other = made()
    trainer(tmp_path).fit(other, loader(data))
    assert_close(module.student.weight, other.student.weight)


def test_losses_refuse_what_cannot_be_learnt_from():
    module = made(terms={"soft": Term(Detached(), LOGITS)})
    with pytest.raises(ValueError, match="gives the student no gradient"):
        module.losses(pairs()[0])


class Mixed(DistillationModule):
    """Mixes each sample with another one, and its label with that of the other."""

    def training_batch(self, batch):
        x, y = batch
        labels = 0.3 * nn.functional.one_hot(y, 3) + 0.7 * nn.functional.one_hot(y.flip(0), 3)
        return {"input": 0.3 * x + 0.7 * x.flip(0), "mixed": labels, "labels": y}

    def student_inputs(self, batch):
        return batch["input"] if isinstance(batch, dict) else batch[0]

    teacher_inputs = student_inputs


@pytest.mark.parametrize("alone", [False, True])
def test_a_term_for_training_only_is_left_out_of_validation(alone, tmp_path):
    sources = {"input": "student.logits", "target": "batch.mixed"}
    terms = {"mixup": Term(nn.CrossEntropyLoss(), sources, training_only=True)}
    if not alone:
        terms["soft"] = Term(SoftTarget(), LOGITS)
    module = made(Mixed, terms, {"accuracy": MulticlassAccuracy(3)})
    runner = trainer(tmp_path)
    x, y = pairs(4)[0]
    both = 0.3 * nn.functional.one_hot(y, 3) + 0.7 * nn.functional.one_hot(y.flip(0), 3)
    expected = nn.functional.cross_entropy(module.student(0.3 * x + 0.7 * x.flip(0)), both)
    runner.fit(module, loader(pairs(4)), loader(pairs()))
    found = runner.callback_metrics
    assert_close(found["train/mixup"], expected.detach())
    assert "val/mixup" not in found and "val/accuracy" in found
    assert ("val/loss" in found) is not alone
    if not alone:
        assert_close(found["val/loss"], found["val/soft"])
    assert list(module.objective.terms) == list(terms)
