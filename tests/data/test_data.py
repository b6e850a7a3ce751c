"""The three levels of a data module: what a job says is missing, and what holds without it."""

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from lightning_distill.data import Cacheable, DataFacts, Docstrings, KeepsTeacher, Trainable
from lightning_distill.data.data import (
    CACHING,
    check_cacheable,
    check_keeps_teacher,
    check_trainable,
    KEEPING,
    LOADERS,
)


class Mine(L.LightningDataModule):
    def train_dataloader(self):
        return DataLoader([1, 2])


class Whole(Mine):
    val_dataloader = test_dataloader = Mine.train_dataloader


def test_each_level_names_what_is_missing_and_what_to_do():
    with pytest.raises(ValueError, match="job=distill needs data that can train") as info:
        check_trainable(Mine(), "job=distill")
    assert "Mine lacks val_dataloader, test_dataloader. Define it" in str(info.value)
    with pytest.raises(ValueError, match=r"teacher=trained trains a teacher once") as info:
        check_keeps_teacher(Whole(), "teacher=trained")
    assert "Whole lacks fingerprint, replace." in str(info.value)
    assert "KeepsTeacher" in str(info.value) and "teacher=pretrained" in str(info.value)
    with pytest.raises(ValueError, match="job=cache walks over the rows by number") as info:
        check_cacheable(Whole(), "job=cache")
    assert "lacks fingerprint, preprocessing, row_lengths, rows_dataloader." in str(info.value)
    assert "data.Cacheable" in str(info.value) and "teacher=caching" in str(info.value)


def test_only_the_loaders_that_a_job_reads_are_asked_for():
    check_trainable(Mine(), "job=inspect", loaders=("train_dataloader",))
    check_trainable(Whole(), "job=distill")
    made = L.LightningDataModule.from_datasets(train_dataset=[1], val_dataset=[2])
    with pytest.raises(ValueError, match="LightningDataModule lacks test_dataloader"):
        check_trainable(made, "job=distill")


@pytest.mark.parametrize(
    ("level", "members"), [(Trainable, LOADERS), (KeepsTeacher, KEEPING), (Cacheable, CACHING)]
)
def test_a_level_asks_for_what_its_protocol_documents(level, members):
    assert all(getattr(level, name).__doc__ for name in members)
    ours = Docstrings(packages=2)
    assert all(callable(getattr(ours, name)) for name in members)


def test_data_that_say_nothing_have_facts():
    facts = DataFacts(Mine())
    assert facts.task is facts.num_labels is facts.label_names is facts.num_rows is None
    assert facts.tokenizer is facts.teacher_tokenizer is facts.preprocessing is None
    assert facts.labelled_rows is None
    assert facts.counts == {} and facts.splits == {} and facts.views == 1
    assert not facts.is_streaming and not facts.draws_anew
    assert facts.replaced(drop_unlabelled=True) is facts.data


def test_data_are_replaced_under_the_options_that_they_have():
    class Options(Mine):
        batch_size = 4

        def replace(self, **changes):
            return changes

    assert DataFacts(Options()).replaced(batch_size=8, views=None) == {"batch_size": 8}


@pytest.mark.parametrize("limit", [{"overfit_batches": 2}, {"limit_train_batches": 2}, {}])
def test_lightning_may_take_its_own_sampler(limit):
    """`overfit_batches` puts a sequential sampler in the place of ours: batches are numbered."""

    class Sees(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.seen, self.validated = [], []
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.automatic_optimization = False

        def training_step(self, batch):
            self.seen.append(batch["row"].tolist())

        def validation_step(self, batch):
            self.validated.append(batch["row"].tolist())

        def configure_optimizers(self):
            return None

    data = Docstrings(packages=2, vocab_size=300, labelled_rows=None)
    module = Sees()
    L.Trainer(
        max_epochs=2,
        logger=False,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
        **limit,
    ).fit(module, datamodule=data)
    half = len(module.seen) // 2
    assert half == 2 if limit else half == len(data.train_dataloader())
    assert all(len(rows) > 1 for rows in module.seen[:-1])
    same = module.seen[:half] == module.seen[half:]
    assert same == ("overfit_batches" in limit)
    first = [list(rows) for rows in data.train_dataloader().sampler]
    assert module.seen[:half] == first[:half]
