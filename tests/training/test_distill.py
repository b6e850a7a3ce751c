"""`distill()` refuses what it cannot use, in words of its own and before a step."""

import logging

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from tiny import bert, loader, text_batches, trainer
from torch import nn
from torchmetrics.classification import MulticlassAccuracy

from lightning_distill import distill
from lightning_distill.criteria import SoftTarget

ONE = nn.Parameter(torch.zeros(1))
SGD = torch.optim.SGD([ONE], lr=0.1)
BAD = {
    "no data": ({"data": []}, "train and validation DataLoaders, got 0 entries"),
    "batches": ({"data": text_batches()}, r"got dict in it. Batches in a list: torch.utils.data.D"),
    "a word as data": ({"data": "train.tsv"}, "must be a LightningDataModule, .* got str"),
    "a criterion": (
        {"objective": SoftTarget()},
        r"got a SoftTarget. Wrap a criterion: .*Term\(So",
    ),
    "a word as metric": (
        {"metrics": "accuracy"},
        "torchmetrics objects by name.* got 'accuracy'",
    ),
    "a class as metric": ({"metrics": {"a": MulticlassAccuracy}}, "torchmetrics objects by name"),
    "epochs": ({"trainer": 3}, "`trainer` must be a lightning.Trainer, got 3; for so many epochs"),
    "an optimizer": ({"optimizer": SGD}, "`optimizer` must be a function .*partial.* got SGD"),
    "its name": ({"optimizer": "adam"}, "`optimizer` must be a function that makes one.*'adam'"),
    "a scheduler": (
        {"scheduler": torch.optim.lr_scheduler.ConstantLR(SGD)},
        "`scheduler` must be a function that makes one, .* got ConstantLR",
    ),
    "monitor": ({"monitor": "val/nope"}, "`monitor` is 'val/nope', but there are no validation"),
    "mode": ({"mode": "largest"}, "`mode` must be min or max, got 'largest'"),
}


@pytest.mark.parametrize("case", BAD)
def test_arguments_are_checked_before_anything_is_trained(unchecked_types, monkeypatch, case):
    changes, words = BAD[case]
    monkeypatch.setattr(L.Trainer, "fit", lambda *_, **__: pytest.fail("it began to train"))
    arguments = {"student": bert(1, 8), "teacher": bert(2, 8), "data": loader(text_batches())}
    with pytest.raises(ValueError, match=words):
        distill(**(arguments | changes))


def test_one_loader_in_a_list_is_a_loader(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    student = bert(1, 8)
    before = student.classifier.weight.clone()
    distill(student, bert(2, 8), [loader(text_batches(1))], trainer=trainer(tmp_path))
    assert not torch.equal(before, student.classifier.weight)


class Table:
    """As a `datasets.Dataset` or a `DataFrame`: it iterates over rows."""

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return {"input_ids": [1, 2], "labels": 0}

    def __iter__(self):
        return (self[i] for i in range(4))


NO_LOADERS = {
    "a table": (Table(), r"got Table. It has rows and no batches: torch.utils.data.DataLoader\("),
    "a generator": ((b for b in text_batches()), "got generator. It can be read only once"),
    "an iterator": (iter(loader(text_batches())), "It can be read only once, and every epoch"),
    "a list of batches": (text_batches(2), "got dict in it. Batches in a list: torch"),
}


@pytest.mark.parametrize("kind", NO_LOADERS)
def test_what_is_no_loader_is_refused_and_loses_nothing(kind):
    data, words = NO_LOADERS[kind]
    with pytest.raises(ValueError, match=words):
        distill(bert(1, 8), bert(2, 8), data)


@pytest.mark.parametrize("kind", ["a table", "a generator"])
def test_nor_is_it_a_loader_of_validation_rows(kind):
    words = (
        NO_LOADERS[kind][1].replace("got Table", "got Table in it").replace("or. ", "or in it. ")
    )
    with pytest.raises(ValueError, match=words):
        distill(bert(1, 8), bert(2, 8), (loader(text_batches()), NO_LOADERS[kind][0]))


class Reads:
    """An iterable that begins again each time."""

    def __iter__(self):
        return iter(text_batches())


@pytest.mark.parametrize("monitor", [None, "val/soft_target", "val/loss"])
def test_monitor_chooses_whatever_else_the_trainer_watches(tmp_path, monitor):
    theirs = ModelCheckpoint(tmp_path, monitor="val/loss", filename="{epoch}")
    fit = trainer(tmp_path, max_epochs=3, enable_checkpointing=True, callbacks=[theirs, Worse()])
    student = bert(1, 8)
    distill(student, bert(2, 8), (Reads(), loader(text_batches())), trainer=fit, monitor=monitor)
    epoch = {None: 2, "val/loss": 2, "val/soft_target": 0}[monitor]
    assert torch.equal(student.classifier.weight, fit.kept[epoch])
    assert theirs in fit.callbacks and not any(
        isinstance(c, ModelCheckpoint) and c is not theirs for c in fit.callbacks
    )


class Worse(L.Callback):
    """The loss falls from epoch to epoch, and the soft target rises."""

    def on_validation_epoch_end(self, trainer, pl_module):
        trainer.kept = {**getattr(trainer, "kept", {})}
        trainer.kept[trainer.current_epoch] = pl_module.student.classifier.weight.detach().clone()

    def on_validation_end(self, trainer, pl_module):
        epoch = float(trainer.current_epoch)
        trainer.callback_metrics["val/loss"] = torch.tensor(-epoch)
        trainer.callback_metrics["val/soft_target"] = torch.tensor(epoch)


def test_nothing_is_advertised(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    name = "lightning.pytorch.utilities.rank_zero"
    # Lightning keeps its lines from the root where that has no handler when it is imported.
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "propagate", True)
    with caplog.at_level("INFO", name):
        distill(bert(1, 8), bert(1, 8), (loader(text_batches()), loader(text_batches())))
        assert caplog.text and "Tip" not in caplog.text
        # Whoever makes a trainer afterwards reads what Lightning says.
        logging.getLogger(name).info("Tip: For seamless cloud uploads, take another package.")
    assert "Tip" in caplog.text
