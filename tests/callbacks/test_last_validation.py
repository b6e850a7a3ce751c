"""The weights of the last step are validated, wherever an epoch ends, and once."""

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from tiny import loader, trainer
from torch import nn
from torch.utils.data import IterableDataset

from lightning_distill import distill, DistillationModule, Objective, Term
from lightning_distill.callbacks import LastValidation
from lightning_distill.criteria import SoftTarget

LOGITS = {"student": "student.logits", "teacher": "teacher.logits"}
EPOCH = 5


class Endless(IterableDataset):
    """Batches of which nobody knows how many there are."""

    def __iter__(self):
        return iter(batches(EPOCH))


def batches(count: int) -> list:
    draw = torch.Generator().manual_seed(0)
    return [(torch.randn(4, 4, generator=draw), torch.zeros(4).long()) for _ in range(count)]


def module() -> DistillationModule:
    torch.manual_seed(0)
    objective = Objective({"soft_target": Term(SoftTarget(), LOGITS)})
    optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.1)  # noqa: E731
    return DistillationModule(nn.Linear(4, 3), nn.Linear(4, 3), objective, optimizer=optimizer)


class Seen(L.Callback):
    def __init__(self):
        self.steps = []

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.steps.append(trainer.global_step)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_steps": 3}, [3]),
        ({"max_steps": 5}, [5]),
        ({"max_steps": 13}, [5, 10, 13]),
        ({"max_steps": 4, "accumulate_grad_batches": 2}, [3, 4]),
        ({"max_steps": 6, "val_check_interval": 2}, [2, 4, 6]),
        ({"max_steps": 7, "check_val_every_n_epoch": 2}, [7]),
        ({"max_epochs": 2}, [5, 10]),
        ({"max_epochs": 1, "max_steps": 9}, [5]),
    ],
    ids=str,
)
@pytest.mark.parametrize("endless", [False, True])
def test_it_is_validated_once_after_the_last_step(tmp_path, options, expected, endless):
    seen, kept = Seen(), ModelCheckpoint(tmp_path, monitor="val/loss", mode="min", save_top_k=-1)
    given = {"max_epochs": -1, "enable_checkpointing": True, **options}
    run = trainer(tmp_path, callbacks=[seen, LastValidation(), kept], **given)
    data = torch.utils.data.DataLoader(Endless(), batch_size=None) if endless else batches(EPOCH)
    run.fit(module(), data if endless else loader(data), loader(batches(2)))
    assert seen.steps == expected
    saved = sorted(int(p.stem.partition("step=")[2]) for p in tmp_path.glob("*.ckpt"))
    assert saved[-1] == expected[-1], "its weights can be the best ones"


def test_where_nothing_is_validated_it_stays_so(tmp_path):
    seen = Seen()
    run = trainer(tmp_path, callbacks=[seen, LastValidation()], max_steps=3, limit_val_batches=0)
    run.fit(module(), loader(batches(EPOCH)), loader(batches(2)))
    assert seen.steps == []


def test_distill_returns_the_weights_of_the_last_step_where_these_are_best(tmp_path):
    torch.manual_seed(0)
    student, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
    objective = Objective({"soft_target": Term(SoftTarget(), LOGITS)})
    run = trainer(tmp_path, max_steps=7, max_epochs=-1)
    ends = []

    class End(L.Callback):
        def on_train_end(self, trainer, pl_module):
            ends.append(pl_module.student.weight.detach().clone())

    run.callbacks.append(End())
    theirs = list(run.callbacks)
    found = distill(
        student,
        teacher,
        (loader(batches(EPOCH)), loader(batches(EPOCH))),
        objective,
        trainer=run,
        monitor="val/loss",
        task="classification",
    )
    assert torch.equal(found.weight, ends[0]) and run.callbacks == theirs
