"""Checkpoints of a training are sealed, and gone on from only as they were written."""

import lightning as L
import pytest
import tiny
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.callbacks import LastCheckpoint, SealedCheckpointIO
from lightning_distill.criteria import SoftTarget
from lightning_distill.run.stage import newest_whole
from lightning_distill.sealed import ChangedFileError, check_sealed

OFF = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}


class Plain(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.layer(batch).mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


def fit(folder, epochs=2, **options):
    best = ModelCheckpoint(dirpath=folder, filename="best-{step}", monitor="val/loss")
    callbacks = [best, LastCheckpoint(folder)]
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=epochs, callbacks=callbacks, default_root_dir=folder, **OFF
    )
    loader = torch.utils.data.DataLoader(torch.ones(4, 2), batch_size=2)
    trainer.fit(Plain(), loader, loader, **options)
    return trainer


def test_all_are_sealed_and_those_that_go_take_their_seal_along(tmp_path):
    trainer = fit(tmp_path, epochs=3)
    assert isinstance(trainer.strategy.checkpoint_io, SealedCheckpointIO)
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["best-step=6.ckpt", "best-step=6.ckpt.sha256", "last.ckpt", "last.ckpt.sha256"]
    for path in tmp_path.glob("*.ckpt"):
        check_sealed(path)
        torch.load(path, weights_only=True)


def test_a_changed_one_is_not_gone_on_from_and_the_newest_whole_one_is(tmp_path, caplog):
    fit(tmp_path)
    last = tmp_path / "last.ckpt"
    assert newest_whole(tmp_path) == last
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 4
    last.write_bytes(content)
    with pytest.raises(ChangedFileError, match=r"last.ckpt is not what was written"):
        fit(tmp_path, epochs=3, ckpt_path=last)
    best = newest_whole(tmp_path)
    assert best.name.startswith("best-") and "last.ckpt is not what was written" in caplog.text
    assert fit(tmp_path, epochs=3, ckpt_path=best).global_step == 6
    for path in tmp_path.glob("*.ckpt"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"No checkpoint in .* is what was written: last.ckpt"):
        newest_whole(tmp_path)
    assert newest_whole(tmp_path / "none") is None


def test_a_way_that_the_user_has_chosen_stays(tmp_path):
    from lightning.pytorch.plugins.io import AsyncCheckpointIO

    chosen = AsyncCheckpointIO()
    trainer = L.Trainer(accelerator="cpu", plugins=[chosen], default_root_dir=tmp_path, **OFF)
    LastCheckpoint(tmp_path).setup(trainer, Plain(), "fit")
    assert trainer.strategy.checkpoint_io is chosen


def test_distill_seals_too(tmp_path, student, teacher, batches):
    inputs = {"student": "student.logits", "teacher": "teacher.logits"}
    objective = Objective({"soft_target": Term(SoftTarget(), inputs)})
    module = DistillationModule(student, teacher, objective)
    trainer = L.Trainer(accelerator="cpu", max_steps=1, default_root_dir=tmp_path, **OFF)
    trainer.fit(module, tiny.loader(batches))
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    check_sealed(tmp_path / "own.ckpt")
    assert (tmp_path / "own.ckpt.sha256").is_file()
