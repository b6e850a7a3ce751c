"""A run that is made longer has schedules of its new length."""

import lightning as L
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader

from lightning_distill.callbacks import LastCheckpoint
from lightning_distill.run.longer_schedule import LongerSchedule
from lightning_distill.run.wall_time import WallTime


class Module(L.LightningModule):
    def __init__(self, make):
        super().__init__()
        self.layer, self.make, self.rates = nn.Linear(1, 1), make, []

    def training_step(self, batch, batch_idx):
        self.rates.append(self.optimizers().param_groups[0]["lr"])
        return self.layer(batch).sum()

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = self.make(optimizer, int(self.trainer.estimated_stepping_batches))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def rates(folder, make, epochs, resume=False):
    module, clock = Module(make), WallTime()
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=epochs,
        callbacks=[clock, LongerSchedule(), LastCheckpoint(folder)],
        default_root_dir=folder,
    )
    data = DataLoader(torch.ones(4, 1))
    trainer.fit(module, data, ckpt_path=folder / "last.ckpt" if resume else None)
    return module.rates, clock.seconds


def one_cycle(optimizer, steps):
    return lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=steps, anneal_strategy="linear")


def test_a_longer_run_ends_its_schedule_at_its_new_end(tmp_path):
    first, seconds = rates(tmp_path, one_cycle, 2)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]["WallTime"]
    more, all_seconds = rates(tmp_path, one_cycle, 4, resume=True)
    whole, _ = rates(tmp_path / "whole", one_cycle, 4)
    assert len(first) == len(more) == 8 and min(first) == pytest.approx(first[-1])
    # From the second step on: the first one was set by the shorter schedule.
    assert more[1:] == pytest.approx(whole[9:])
    # The time of both parts.
    assert seconds > 0 and all_seconds > saved["seconds"] > 0
