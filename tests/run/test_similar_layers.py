"""The layers of a trained student beside its teacher's, at the end of a run."""

import json

import lightning as L
import pytest
import torch
from tiny import bert
from torch import nn

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.run.similar_layers import write_similar_layers

VOCABULARY = bert(1, 8).config.vocab_size


class Numbered(L.LightningDataModule):
    """Rows of a length; it remembers how many were asked for at once."""

    def __init__(self, length):
        super().__init__()
        self.length, self.sizes = length, []

    def fingerprint(self):
        return "rows"

    def preprocessing(self):
        return {}

    def row_lengths(self):
        return {"test": [self.length] * 300}

    def rows_dataloader(self, plan, num_workers=None):
        for _, rows, _ in plan:
            self.sizes.append(len(rows))
            ids = torch.tensor([[(row + i) % VOCABULARY for i in range(6)] for row in rows])
            yield {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@pytest.fixture
def module():
    logits = Term(nn.MSELoss(), {"input": "student.logits", "target": "teacher.logits"})
    student, teacher = bert(1, 8, num_labels=2), bert(2, 16, num_labels=2)
    return DistillationModule(student, teacher, Objective({"logits": logits}))


@pytest.mark.parametrize(
    ("length", "sizes"), [(20, [32] * 8), (1024, [2] * 8), (40_000, [1])], ids=str
)
def test_the_longer_rows_are_the_fewer_are_held_at_once(tmp_path, module, length, sizes):
    data = Numbered(length)
    write_similar_layers(tmp_path, module, data)
    assert data.sizes == sizes
    found = json.loads((tmp_path / "layer_similarity.json").read_text())
    (one,) = found.values()
    assert torch.tensor(one["cka"]).shape == (2, 3)


def test_a_run_whose_models_are_too_large_for_one_device_ends_well(
    tmp_path, module, monkeypatch, caplog
):
    def too_large(*_):
        raise torch.OutOfMemoryError("there is no memory left")

    monkeypatch.setattr("lightning_distill.run.similar_layers.trained_layers", too_large)
    write_similar_layers(tmp_path, module, Numbered(20))
    assert "Layers are not compared: OutOfMemoryError: there is no memory left" in caplog.text
    assert not list(tmp_path.iterdir())
