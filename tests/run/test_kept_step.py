"""After how many steps the weights were kept by which a run is measured."""

from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from lightning_distill.callbacks.kept_weights import chooser
from lightning_distill.run.stage import load_checkpoint
from lightning_distill.sparsity import MagnitudeSparsity, zeros_in_place

pytest.importorskip("optuna", reason="pip install 'lightning-distill[search]'")

from lightning_distill.search import EndEarly

# Of a study it asks whether trials end early, of a trial that it keeps what was measured.
pytestmark = pytest.mark.usefixtures("unchecked_types")


class Module(L.LightningModule):
    """A student that loses what it can as soon as its weights become 0."""

    def __init__(self):
        super().__init__()
        self.student = nn.Linear(8, 2)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            nn.init.normal_(self.student.weight)
        self.right = nn.Linear(8, 2).requires_grad_(False)
        self.right.load_state_dict(self.student.state_dict())
        self.in_place = []

    def training_step(self, batch, _):
        return ((self.student(batch) - self.right(batch)) ** 2).mean()

    def validation_step(self, batch, _):
        self.log("val/loss", self.training_step(batch, 0))

    def on_validation_end(self):
        self.in_place.append(zeros_in_place(self.trainer))

    def configure_optimizers(self):
        return torch.optim.SGD(self.student.parameters(), 0.5, momentum=0.9)


@pytest.mark.parametrize("amount", [None, 0.75])
@pytest.mark.parametrize("monitor", [None, "val/loss"])
def test_the_metric_of_a_trial_is_that_of_the_weights_that_are_kept(amount, monitor, tmp_path):
    generator = torch.Generator().manual_seed(0)
    data = DataLoader([torch.randn(8, generator=generator) for _ in range(8)], 4)
    plan = SimpleNamespace(prune=False, validations=4)
    trial = SimpleNamespace(set_user_attr=lambda *_: None)
    early = EndEarly(SimpleNamespace(plan=plan), trial, "val/loss", "min")
    best = [ModelCheckpoint(tmp_path, monitor=monitor)] if monitor else []
    sparse = [] if amount is None else [MagnitudeSparsity(amount, layers=["*"])]
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=4, callbacks=[early, *sparse, *best], logger=False,
        enable_checkpointing=bool(best), enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, log_every_n_steps=1,
    )  # fmt: skip
    module = Module()
    trainer.fit(module, data, data)
    assert module.in_place == ([True] * 4 if amount is None else [False, False, True, True])
    step = trainer.global_step
    chosen = chooser(trainer)
    assert chosen is (best[0] if best else None)
    if chosen is not None:
        step = load_checkpoint(module, Path(chosen.best_model_path))
    kept = trainer.validate(module, data, verbose=False)[0]["val/loss"]
    assert early.of_weights(step) == pytest.approx(kept)
