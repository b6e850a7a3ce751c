"""A sweep whose members would start processes of their own is refused."""

import pytest
import torch
from omegaconf import OmegaConf

from lightning_distill import main as command

ONE = [
    {"devices": 1},
    {"devices": "1"},
    {"devices": [1]},
    {"devices": "0,"},
    {"devices": 1, "strategy": "ddp"},
    {"devices": "auto", "accelerator": "cpu"},
    {"devices": -1, "accelerator": "cpu"},
]
SEVERAL = [
    {"devices": 2},
    {"devices": "2"},
    {"devices": [0, 1]},
    {"devices": "0,1"},
    {"devices": 2, "strategy": "auto"},
    {"devices": 1, "num_nodes": 2},
    {"devices": "auto"},
    {"devices": -1},
    {},
]


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    monkeypatch.setattr(command, "_is_sweep", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)


@pytest.mark.parametrize("trainer", ONE, ids=str)
def test_members_of_one_process_are_run(trainer):
    command._refuse_sweeps_over_processes(OmegaConf.create({"trainer": trainer}))


@pytest.mark.parametrize("trainer", SEVERAL, ids=str)
def test_members_of_several_processes_are_refused(trainer):
    with pytest.raises(ValueError, match="cannot start several processes per run.*devices=1"):
        command._refuse_sweeps_over_processes(OmegaConf.create({"trainer": trainer}))


def test_where_there_is_one_device_auto_is_one(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    test_members_of_one_process_are_run({"devices": "auto"})
