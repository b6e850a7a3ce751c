"""`distill()` refuses what it cannot use, in words of its own and before a step."""

import lightning as L
import pytest
import torch
from tiny import bert, loader, text_batches
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
    from tiny import trainer

    student = bert(1, 8)
    before = student.classifier.weight.clone()
    distill(student, bert(2, 8), [loader(text_batches(1))], trainer=trainer(tmp_path))
    assert not torch.equal(before, student.classifier.weight)
