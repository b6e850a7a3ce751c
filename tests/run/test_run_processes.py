"""More processes than cores get one line that says so."""

import logging

import pytest
from omegaconf import OmegaConf

from lightning_distill.run import processes
from lightning_distill.run.processes import warn_of_processes


def said(caplog, monkeypatch, cores=2, threads=None, **trainer):
    monkeypatch.setattr(processes, "_cores", lambda: cores)
    monkeypatch.setattr(processes.torch.accelerator, "is_available", lambda: False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    with caplog.at_level(logging.INFO, "lightning_distill"):
        warn_of_processes(OmegaConf.create({"trainer": trainer}))
    return [record.message for record in caplog.records]


@pytest.mark.parametrize("accelerator", ["cpu", "auto"])
def test_eight_processes_on_two_cores_are_said(caplog, monkeypatch, accelerator):
    (line,) = said(caplog, monkeypatch, accelerator=accelerator, devices=8)
    assert "trainer.devices=8 starts 8 on 2 cores" in line
    assert "trainer.devices=2 is as fast" in line


def test_threads_of_the_environment_count(caplog, monkeypatch):
    (line,) = said(caplog, monkeypatch, cores=4, threads="4", accelerator="cpu", devices="2")
    assert "starts 2 of 4 threads (OMP_NUM_THREADS) on 4 cores" in line
    assert "trainer.devices=1 is" in line


@pytest.mark.parametrize(
    "trainer",
    [
        {"accelerator": "cpu", "devices": 2},
        {"accelerator": "cpu", "devices": 1},
        {"accelerator": "cpu", "devices": "auto"},
        {"accelerator": "gpu", "devices": 8},
        {},
    ],
)
def test_what_fits_or_is_not_known_is_not(caplog, monkeypatch, trainer):
    assert said(caplog, monkeypatch, **trainer) == []


def test_one_process_may_have_many_threads(caplog, monkeypatch):
    assert said(caplog, monkeypatch, threads="8", accelerator="cpu", devices=1) == []
