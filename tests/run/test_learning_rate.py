"""Learning rate and epochs follow the student's weights, and what is typed wins."""

import logging

import pytest
import torch
from omegaconf import OmegaConf
from tiny import bert

from lightning_distill.run.learning_rate import settle_training


def config(folder, **values):
    found = {"lr": None, "max_epochs": None, "max_steps": -1} | values
    cfg = OmegaConf.create(
        {
            "output_dir": str(folder),
            "optimizer": {"lr": found["lr"]},
            "trainer": {name: found[name] for name in ("max_epochs", "max_steps")},
        }
    )
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg))
    return cfg


def trained():
    model = bert(1, 8)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return model


def settled(cfg):
    return cfg.optimizer.lr, cfg.trainer.max_epochs


@pytest.mark.parametrize(
    ("student", "values", "expected"),
    [
        (lambda: bert(1, 8), {}, (2e-3, 12)),
        (trained, {}, (5e-5, 4)),
        (trained, {"lr": 0.1}, (0.1, 4)),
        (trained, {"max_epochs": 9}, (5e-5, 9)),
        (lambda: bert(1, 8), {"max_steps": 100}, (2e-3, -1)),
        (lambda: bert(1, 8), {"lr": 0.1, "max_epochs": 2}, (0.1, 2)),
    ],
)
def test_they_are_settled_where_nobody_has_set_them(tmp_path, caplog, student, values, expected):
    cfg = config(tmp_path, **values)
    with caplog.at_level(logging.INFO, "lightning_distill"):
        settle_training(cfg, student())
    assert settled(cfg) == expected
    # A resumed run reads the same.
    saved = OmegaConf.load(tmp_path / "config.yaml")
    assert settled(saved) == expected
    assert ("because the student starts from" in caplog.text) == (
        not {"lr", "max_epochs"} <= set(values)
    )
    settle_training(saved, trained())
    assert settled(saved) == expected


def test_what_is_only_tried_leaves_the_file_alone(tmp_path):
    cfg = config(tmp_path)
    before = (tmp_path / "config.yaml").read_text()
    settle_training(cfg, bert(1, 8), write=False)
    assert settled(cfg) == (2e-3, 12)
    assert (tmp_path / "config.yaml").read_text() == before


def test_adapters_have_a_rate_of_their_own(tmp_path):
    pytest.importorskip("peft")
    from lightning_distill.students import lora

    cfg = config(tmp_path)
    settle_training(cfg, lora(trained(), rank=2, alpha=4))
    assert settled(cfg) == (2e-4, 4)
