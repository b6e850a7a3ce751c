"""What chooses the best weights is not measured on nothing."""

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from test_conventions import LABELS, LOGITS, made, pairs
from tiny import loader, trainer
from torchmetrics.classification import MulticlassAccuracy

from lightning_distill import Term
from lightning_distill.criteria import HardLabel, SoftTarget
from lightning_distill.metrics import Agreement

HARD, SOFT = Term(HardLabel(), LABELS), Term(SoftTarget(), LOGITS)


def unlabelled(count=3):
    return [(x, torch.full_like(y, -100)) for x, y in pairs(4 * count, seed=1)]


def fitted(path, watching, val, metrics=None, terms=None, **options):
    module = made(terms=terms or {"hard": HARD, "soft": SOFT}, metrics=metrics)
    run = trainer(path, max_epochs=2, callbacks=watching, enable_checkpointing=True, **options)
    run.fit(module, loader(pairs()), [loader(v) for v in val] if val else None)
    return run


def accuracy():
    return {"accuracy": MulticlassAccuracy(3), "agreement": Agreement("classification")}


@pytest.mark.parametrize("labels", ["ignored", "absent"])
@pytest.mark.parametrize("kind", ["checkpoint", "early stopping"])
def test_a_metric_of_labels_that_are_not_there_chooses_nothing(tmp_path, labels, kind):
    if kind == "checkpoint":
        watching = ModelCheckpoint(tmp_path, monitor="val/accuracy", mode="max")
    else:
        watching = EarlyStopping("val/accuracy", mode="max")
    val = unlabelled() if labels == "ignored" else [{"input": x} for x, _ in unlabelled()]
    terms = {"hard": HARD} if labels == "ignored" else {"soft": SOFT}
    missing = "val/accuracy, val/loss" if labels == "ignored" else "val/accuracy"
    told = f"No row of the validation data counts in {missing}:.*monitor='val/accuracy'.*labels"
    with pytest.raises(ValueError, match=told):
        fitted(tmp_path, [watching], [val], accuracy(), terms)


def test_it_is_said_before_the_first_step_where_all_was_seen(tmp_path):
    class Steps(L.Callback):
        steps = 0

        def on_train_batch_end(self, *_):
            self.steps += 1

    for batches, steps in ((2, 0), (3, 3)):
        counter, best = Steps(), ModelCheckpoint(tmp_path, monitor="val/accuracy", mode="max")
        with pytest.raises(ValueError, match="No row of the validation"):
            fitted(
                tmp_path, [counter, best], [unlabelled(batches)], accuracy(), num_sanity_val_steps=2
            )
        assert counter.steps == steps


def test_the_loss_of_terms_without_labels_is_not_zero_but_absent(tmp_path):
    best = ModelCheckpoint(tmp_path, monitor="val/loss")
    with pytest.raises(ValueError, match=r"counts in val/loss"):
        fitted(tmp_path, [best], [unlabelled()], terms={"hard": HARD})


def test_what_needs_no_label_may_choose(tmp_path):
    best = ModelCheckpoint(tmp_path, monitor="val/agreement", mode="max")
    with pytest.warns(UserWarning, match=r"No row of the validation data counts in val/accuracy:"):
        run = fitted(tmp_path, [best], [unlabelled()], accuracy())
    assert best.best_model_score == run.callback_metrics["val/agreement"]
    assert "val/hard" not in run.callback_metrics and "val/loss" in run.callback_metrics


def test_one_row_with_a_label_is_enough_and_each_loader_is_asked(tmp_path):
    best = ModelCheckpoint(tmp_path, monitor="val/accuracy", mode="max")
    some = unlabelled()
    some[2][1][3] = 1
    with pytest.warns(UserWarning, match=r"counts in val/accuracy/dataloader_idx_1:"):
        fitted(tmp_path, [best], [some, unlabelled()], accuracy())
    watching = EarlyStopping("val/accuracy/dataloader_idx_1", mode="max")
    with pytest.raises(ValueError, match=r"monitor='val/accuracy/dataloader_idx_1'"):
        fitted(tmp_path, [watching], [some, unlabelled()], accuracy())


def test_a_test_without_labels_is_measured_and_says_so(tmp_path):
    module = made(metrics=accuracy())
    with pytest.warns(UserWarning, match=r"No row of the test data counts in test/accuracy:"):
        (found,) = trainer(tmp_path).test(module, loader(unlabelled()))
    assert "test/agreement" in found
