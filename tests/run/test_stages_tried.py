"""All stages of a run are tried before the first one begins, as they will be trained."""

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf, open_dict
from tiny import bert

import lightning_distill.main  # noqa: F401  registers the resolvers
from lightning_distill.run.stages import stages_of
from lightning_distill.run.train_stages import rehearse_stages
from lightning_distill.run.trainer import check_validations
from lightning_distill.teachers import Teacher


class Data:
    def __init__(self, batches=2):
        torch.manual_seed(0)
        ids = torch.randint(1, 20, (batches, 3, 5))
        self.batches = [{"input_ids": one, "labels": torch.tensor([0, 1, 0])} for one in ids]

    def train_dataloader(self):
        return self.batches

    def val_dataloader(self):
        return self.batches


class Kept(Teacher):
    """One whose answers are of one precision."""

    def check_precision(self, precision):
        if precision != "32-true":
            raise ValueError(f"answers of 32-true, got {precision}")


ON_POLICY = {"_target_": "lightning_distill.OnPolicyDistillationModule", "_partial_": True}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"module": ON_POLICY}, "The student is a .* and cannot generate"),
        (
            {"module": {**ON_POLICY, "student_fraction": 0}},
            "batches of language modelling",
        ),
        (
            {"trainer": {"val_check_interval": 3}},
            "val_check_interval is 3, and an epoch has 2 batch",
        ),
        ({"trainer": {"precision": "bf16-mixed"}}, "answers of 32-true, got bf16-mixed"),
        ({"trainer": {"val_check_interval": 2}}, None),
    ],
)
def test_what_a_later_stage_would_fail_of_is_found_before_the_first(entry, words):
    with initialize_config_module("lightning_distill.conf", version_base="1.3"):
        cfg = compose("main", ["trainer.max_epochs=5", "optimizer.lr=0.1", "output_dir=x"])
    with open_dict(cfg):
        cfg.task, cfg.monitor, cfg.mode = "classification", "val/loss", "min"
        cfg.stages = [{}, {"name": "b", **entry}]
    student, teacher = bert(1, 8), Kept(bert(2, 8, seed=1))
    stages = stages_of(cfg, student)
    if words is None:
        rehearse_stages(stages, Data(), student, teacher, {})
        return
    with pytest.raises(ValueError, match=f"In stage 'b': .*{words}"):
        rehearse_stages(stages, Data(), student, teacher, {})


@pytest.mark.parametrize(
    ("settings", "fits"),
    [
        ({"val_check_interval": 8}, True),
        ({"val_check_interval": 9}, False),
        ({"val_check_interval": 0.5}, True),
        ({"val_check_interval": 9, "check_val_every_n_epoch": None}, True),
        ({"val_check_interval": 9, "limit_val_batches": 0}, True),
        ({"val_check_interval": 5, "limit_train_batches": 4}, False),
        ({"val_check_interval": 5, "limit_train_batches": 0.5}, False),
        ({}, True),
    ],
)
def test_a_validation_comes_within_an_epoch(settings, fits):
    cfg = OmegaConf.create({"trainer": settings})
    if fits:
        check_validations(cfg, Data(8))
        return
    with pytest.raises(ValueError, match="there would be no validation. Take at most [84]"):
        check_validations(cfg, Data(8))
