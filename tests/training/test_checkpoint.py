"""What a module's checkpoint holds, and modules that are read from one."""

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import FSDPStrategy
from tiny import bert, loader, text_batches, trainer
from torch import nn
from torchmetrics.classification import MulticlassAccuracy

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.balance import Uncertainty
from lightning_distill.criteria import HardLabel, Hint, SoftTarget, SRD
from lightning_distill.training.strategies import check_strategy

LABELS = {"student": "student.logits", "labels": "batch.labels"}
LOGITS = {"student": "student.logits", "teacher": "teacher.logits"}
HIDDEN = {"student": "student.hidden_states[-1]", "teacher": "teacher.hidden_states[-1]"}
POOLED = {
    "student": "student.layer_input:classifier",
    "teacher": "teacher.layer_input:classifier",
}
ALL = {"student": "student.hidden_states[:]", "teacher": "teacher.hidden_states[:]"}
BATCHES = text_batches(3)


class Kept(DistillationModule):
    """A user's module, with hyper-parameters of its own."""

    def __init__(
        self, student, teacher, objective, metrics=None, optimizer=None, scheduler=None, note="x"
    ):
        super().__init__(student, teacher, objective, metrics, optimizer, scheduler)
        self.save_hyperparameters()


OBJECTIVES = {
    "adapter": lambda: Objective({"hint": Term(Hint(), HIDDEN, adapter="linear")}),
    "adapters of many layers": lambda: Objective({"hint": Term(Hint(), ALL, adapter="linear")}),
    "trained criterion": lambda: Objective({"srd": Term(SRD(), POOLED)}),
    "balance": lambda: Objective(
        {"hard": Term(HardLabel(), LABELS), "soft": Term(SoftTarget(), LOGITS)}, Uncertainty()
    ),
}


def fitted(tmp_path, objective, kind=DistillationModule, **options):
    made = kind(bert(1, 8), bert(2, 16), objective, **options)
    keep = ModelCheckpoint(tmp_path, filename="kept")
    trainer(tmp_path, callbacks=[keep], enable_checkpointing=True).fit(made, loader(BATCHES))
    return made, tmp_path / "kept.ckpt"


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_module_is_read_from_its_checkpoint_with_all_that_was_trained(tmp_path, name):
    made, path = fitted(tmp_path, OBJECTIVES[name]())
    again = DistillationModule.load_from_checkpoint(
        path, student=bert(1, 8, seed=5), teacher=bert(2, 16), objective=OBJECTIVES[name]()
    )
    for key, value in made.student.state_dict().items():
        assert torch.equal(value, again.student.state_dict()[key]), key
    again.prepare(BATCHES[0])
    assert made.state_dict().keys() == again.state_dict().keys()
    for key, value in made.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    # It is measured alike, and a checkpoint before it has seen a batch loses nothing.
    values = [
        trainer(tmp_path).test(m, loader(BATCHES), verbose=False)[0]["test/loss"]
        for m in (made, again)
    ]
    assert values[0] == values[1]


def test_what_is_read_and_written_before_a_batch_is_whole(tmp_path):
    made, path = fitted(tmp_path, OBJECTIVES["adapter"]())
    again = DistillationModule.load_from_checkpoint(
        path, student=bert(1, 8), teacher=bert(2, 16), objective=OBJECTIVES["adapter"]()
    )
    checkpoint = {"state_dict": again.state_dict()}
    again.on_save_checkpoint(checkpoint)
    assert checkpoint["state_dict"].keys() == made.state_dict().keys()


def test_another_objective_than_that_of_the_checkpoint_is_refused(tmp_path):
    _, path = fitted(tmp_path, OBJECTIVES["adapter"]())
    again = DistillationModule.load_from_checkpoint(
        path,
        student=bert(1, 8),
        teacher=bert(2, 16),
        objective=OBJECTIVES["balance"](),
        strict=False,
    )
    with pytest.raises(ValueError, match="objective.terms.hint.* this objective does not build"):
        again.prepare(BATCHES[0])


def test_hyper_parameters_of_a_subclass_keep_no_teacher_and_can_be_read_safely(tmp_path):
    metrics = {"accuracy": MulticlassAccuracy(3)}
    made, path = fitted(tmp_path, OBJECTIVES["adapter"](), Kept, metrics=metrics, note="mine")
    saved = torch.load(path, weights_only=True)
    assert saved["hyper_parameters"] == {"note": "mine", "optimizer": None, "scheduler": None}
    parameters = sum(p.numel() for p in made.parameters())
    assert path.stat().st_size < 40 * parameters + 100_000
    wide = bert(2, 512)
    made = Kept(bert(1, 8), wide, Objective({"soft": Term(SoftTarget(), LOGITS)}))
    keep = ModelCheckpoint(tmp_path, filename="wide")
    trainer(tmp_path, callbacks=[keep], enable_checkpointing=True).fit(made, loader(BATCHES))
    assert (tmp_path / "wide.ckpt").stat().st_size < 300_000
    again = Kept.load_from_checkpoint(
        path, student=bert(1, 8), teacher=bert(2, 16), objective=OBJECTIVES["adapter"]()
    )
    assert again.hparams["note"] == "mine"


def test_a_resumed_subclass_goes_on(tmp_path):
    _, path = fitted(tmp_path, OBJECTIVES["adapter"](), Kept)
    made = Kept(bert(1, 8), bert(2, 16), OBJECTIVES["adapter"]())
    fit = trainer(tmp_path, max_epochs=2)
    fit.fit(made, loader(BATCHES), ckpt_path=path)
    assert fit.global_step == 6


def test_strategies_that_shard_weights_are_refused():
    words = "FSDPStrategy shards the student's weights, and the adapters .* trainer.strategy=ddp"
    with pytest.raises(ValueError, match=words):
        check_strategy(FSDPStrategy())


def test_they_are_refused_before_the_first_step(tmp_path, monkeypatch):
    made = DistillationModule(nn.Linear(4, 3), nn.Linear(4, 3), OBJECTIVES["balance"]())
    fit = trainer(tmp_path)
    monkeypatch.setattr(fit.strategy, "__class__", type("Own", (FSDPStrategy,), {}))
    with pytest.raises(ValueError, match="Own shards"):
        made.trainer = fit
        made.setup("fit")
