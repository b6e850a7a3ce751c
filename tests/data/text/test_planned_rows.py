"""All rows in an order of one's own, as training and evaluation would give them."""

import lightning as L
import numpy as np
import pytest
import torch
from data.text.test_token_masking import made, rows
from tiny import bert

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.criteria import HardLabel
from lightning_distill.data import TokenMasking
from lightning_distill.data.text.word_pieces import train_word_pieces


def test_a_plan_gives_the_batches_of_training_and_evaluation():
    data = made(labelled_rows=20)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(1)
    plan = [("train", list(draw), 1) for draw in loader.sampler]
    plan += [("test", list(draw), None) for draw in data.test_dataloader().sampler]
    expected = [*loader, *data.test_dataloader()]
    for workers in (0, 2):
        found = list(data.rows_dataloader(plan, num_workers=workers))
        assert len(found) == len(expected) == len(data.rows_dataloader(plan))
        for ours, theirs, (_, numbers, _) in zip(found, expected, plan, strict=True):
            assert ours.keys() == theirs.keys() and ours["row"].tolist() == list(numbers)
            assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_lightning_does_not_shard_the_plan(tmp_path):
    class Seen(L.LightningModule):
        def predict_step(self, batch, batch_idx):
            return batch["row"]

    data = made()
    loader = data.rows_dataloader([("train", [3], 0), ("train", [1, 2], 0), ("train", [4], 0)])
    options = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    trainer = L.Trainer(
        accelerator="cpu", devices=2, strategy="ddp_fork", default_root_dir=tmp_path, **options
    )
    from lightning.pytorch.trainer.connectors.data_connector import _DataConnector

    connector: _DataConnector = trainer._data_connector
    assert not connector._requires_distributed_sampler(loader)
    single = L.Trainer(accelerator="cpu", devices=1, default_root_dir=tmp_path, **options)
    found = single.predict(Seen(), loader)
    assert [numbers.tolist() for numbers in found] == [[3], [1, 2], [4]]


def test_lengths_are_those_of_the_longer_side():
    data = made(augmentation=None)
    letters = train_word_pieces(rows(60)["text"], 45, 64)
    both = made(augmentation=None, teacher_tokenizer=letters)
    for split, held in both.splits.items():
        own = np.array([len(row) for row in held.student["input_ids"]])
        other = np.array([len(row) for row in held.teacher["input_ids"]])
        assert (own != other).any()
        assert both.row_lengths()[split].tolist() == np.maximum(own, other).tolist()
        assert data.row_lengths()[split].tolist() == own.tolist()


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ([("train", [60], 0)], "rows of train from 0 to 59, got 60"),
        ([("train", [-1], 0)], "rows of train from 0 to 59, got -1"),
        ([("test", [], None)], "rows of test from 0 to 9, got none"),
        ([("dev", [1], None)], "a split 'dev'; there are train, validation, test"),
    ],
)
def test_rows_that_there_are_not_are_refused(plan, words):
    with pytest.raises(ValueError, match=words):
        made().rows_dataloader(plan)


def test_preprocessing_tells_apart_what_gives_other_tokens():
    plain = made().preprocessing()
    assert plain == made(batch_size=3, num_workers=1, seed=4).preprocessing()
    assert plain["student_tokenizer"] == plain["teacher_tokenizer"]
    assert all(isinstance(v, str | int | type(None)) for v in plain.values())
    other = train_word_pieces(["abc def"], 90, 32)
    changes = [
        {"max_length": 9},
        {"views": 2},
        {"augmentation": TokenMasking(0.3, seed=2)},
        {"augmentation": TokenMasking(0.2, seed=1)},
        {"augmentation": None},
        {"tokenizer": other},
        {"augmentation": None, "teacher_tokenizer": other},
    ]
    found = [made(**change).preprocessing() for change in changes]
    assert len({str(p) for p in [plain, *found]}) == len(changes) + 1


def test_the_trainer_knows_the_number_of_steps_under_a_budget_of_tokens(tmp_path):
    data = made(augmentation=None, tokens_per_batch=64)
    objective = Objective(
        {"label": Term(HardLabel(), {"student": "student.logits", "labels": "batch.labels"})}
    )
    seen = []

    class Module(DistillationModule):
        def training_step(self, batch, batch_idx):
            seen.append(tuple(batch["input_ids"].shape))
            return super().training_step(batch, batch_idx)

    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        limit_val_batches=0,
        default_root_dir=tmp_path,
    )
    module = Module(bert(1, 8, vocab_size=100, num_labels=2), None, objective)
    trainer.fit(module, datamodule=data)
    assert trainer.estimated_stepping_batches == trainer.global_step == len(seen)
    assert len(seen) == 3 * len(data.train_dataloader())
    assert all(count * tokens <= 64 for count, tokens in seen)
    assert len({count for count, _ in seen}) > 2
