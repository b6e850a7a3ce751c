import os
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_model
from torch import nn

from lightning_distill.report import latency_ms, parameter_count, size_mb


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(40, 50), nn.Linear(40, 50)
        self.second.weight = self.first.weight
        self.register_buffer("steps", torch.zeros(1000, dtype=torch.int64))


def test_shared_parameters_count_once(tmp_path):
    assert parameter_count(Tied()) == 40 * 50 + 50 + 50
    save_model(Tied(), str(tmp_path / "model.safetensors"))
    on_disk = os.path.getsize(tmp_path / "model.safetensors") / 1e6
    assert abs(size_mb(Tied()) - on_disk) < 0.001
    assert size_mb(Tied().half()) < 0.8 * size_mb(Tied())


def test_latency_is_the_median_in_milliseconds(monkeypatch):
    now, durations = [0.0], iter([9.0] * 5 + [0.5, 0.002, 0.002, 0.5, 0.001])
    clock = SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr("lightning_distill.report.measure.time", clock)

    def forward(row):
        now[0] += next(durations)

    assert latency_ms(forward, "row", runs=5) == pytest.approx(2.0)
