import os
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_model
from tiny import bert, text_batches
from torch import nn

from lightning_distill.models.batch import repeated_rows
from lightning_distill.report import Costs, latency_ms, measure_costs, parameter_count, size_mb
from lightning_distill.report.measure import FIGURES, forward_times, peak_memory, ROWS


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


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only where a forward says so, in seconds."""
    now = [0.0]
    fake = SimpleNamespace(perf_counter=lambda: now[0])
    monkeypatch.setattr("lightning_distill.report.measure.time", fake)

    def lasts(*durations):
        left, asked = iter(durations), []

        def forward(batch):
            asked.append(batch)
            now[0] += next(left)

        return forward, asked

    return lasts


def test_latency_is_the_median_in_milliseconds(clock):
    forward, _ = clock(*[0.009] * 5, 0.1, 0.002, 0.002, 0.1, 0.001)
    assert latency_ms(forward, "row", runs=5) == pytest.approx(2.0)


def test_of_a_long_forward_one_warms_up_and_three_are_measured(clock):
    forward, asked = clock(9.0, 2.0, 3.0, 4.0, 5.0)
    assert forward_times(forward, "row", runs=30, seconds=1.0) == pytest.approx([2e3, 3e3, 4e3])
    assert asked == ["row"] * 4


def test_no_run_begins_when_the_time_is_over(clock):
    forward, asked = clock(*[0.01] * 200)
    times = forward_times(forward, "row", runs=100, seconds=0.255)
    assert len(times) == 21 and len(asked) == 26


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(10, 300), nn.Linear(300, 7)

    def forward(self, x):
        return self.second(self.first(x))


ONE, MANY = torch.zeros(1, 10), torch.zeros(ROWS, 10)
OF_LAYERS = 4 * (10 * 300 + 300 + 300 * 7 + 7)


def test_time_of_a_model_that_sleeps():
    class Sleeps(Layers):
        def forward(self, x):
            assert not torch.is_grad_enabled()
            time.sleep(0.002 * (1 if len(x) == 1 else 4))
            return super().forward(x)

    model = Sleeps().eval()
    found = measure_costs(model, model, ONE, MANY, seconds=5)
    # A sleep is never shorter; how much longer is up to the machine.
    assert 2 <= found.latency_ms < 8 <= found.latency_32_ms < 32
    assert found.latency_ms <= found.latency_p95_ms and found.latency_32_p95_ms >= 8
    assert found.missing == {}


def test_the_percentile_is_that_of_numpy(clock):
    draw = np.random.default_rng(0).uniform(0.001, 0.01, 30)
    # Three forwards come before the times of one row, five warm up.
    forward, _ = clock(*[0.001] * 8, *draw, *[0.001] * 5, *(2 * draw), 0.001)
    found = measure_costs(Layers(), forward, "one", "many", seconds=100)
    assert found.latency_ms == pytest.approx(1000 * np.median(draw))
    assert found.latency_p95_ms == pytest.approx(1000 * np.percentile(draw, 95))
    assert found.latency_32_ms == pytest.approx(2000 * np.median(draw))
    assert found.latency_32_p95_ms == pytest.approx(2000 * np.percentile(draw, 95))


def test_operations_and_memory_are_those_on_paper():
    model = Layers().eval()
    found = measure_costs(model, model, ONE, MANY, seconds=0.01)
    assert found.flops == 2 * (10 * 300 + 300 * 7)
    # The wide layer is there while the last one is made of it.
    assert found.memory_32_mb == pytest.approx((OF_LAYERS + 4 * ROWS * (300 + 7)) / 1e6)


def test_memory_of_bert_is_what_the_profiler_of_torch_sees():
    model = bert(2, 32, attn_implementation="eager").eval()
    batch = repeated_rows(text_batches(1)[0], ROWS)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        found = peak_memory(model, lambda batch: model(**batch), inputs)
        with torch.profiler.profile(profile_memory=True) as profile:
            model(**inputs)
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    there = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        there += event.nbytes()
        peak = max(peak, there)
    weights = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
    assert found - weights == pytest.approx(peak, rel=0.1)


def test_a_long_forward_is_made_once_and_the_cells_say_so(clock):
    forward, asked = clock(3.0)
    found = measure_costs(Layers(), forward, "one", "many", longest=2.0)
    assert asked == ["one"] and found == Costs.unknown("one row takes 3.0 s")
    assert set(found.missing) == set(FIGURES)


def test_a_batch_that_may_take_long_is_not_tried(clock):
    forward, asked = clock(*[0.1] * 100)
    found = measure_costs(Layers(), forward, "one", "many", seconds=0.5, longest=2.0)
    assert "many" not in asked and len(asked) < 12
    assert found.latency_ms == pytest.approx(100) and found.latency_32_ms is None
    assert (
        found.missing["memory_32_mb"] == found.missing["latency_32_ms"] == "32 rows may take 3.2 s"
    )
    assert found.missing["latency_p95_ms"] == "only 4 runs were made"


def test_a_batch_that_does_not_fit_is_not_tried(monkeypatch):
    # Of one row 4 * 307 bytes beside the weights.
    monkeypatch.setattr("lightning_distill.report.measure.memory_of_machine", lambda: 60_000)
    rows = []
    model = Layers().eval()

    def forward(x):
        rows.append(len(x))
        return model(x)

    found = measure_costs(model, forward, ONE, MANY, seconds=0.01)
    assert set(rows) == {1} and found.memory_32_mb is None
    assert found.missing["latency_32_ms"] == "32 rows may take 39.3 kB of memory"
    monkeypatch.setattr("lightning_distill.report.measure.memory_of_machine", lambda: 80_000)
    assert measure_costs(model, forward, ONE, MANY, seconds=0.01).memory_32_mb is not None


def test_a_model_that_fails_costs_no_report(caplog):
    def forward(batch):
        raise KeyError("no such entry")

    found = measure_costs(Layers(), forward, ONE, MANY)
    assert found.missing["flops"] == "it failed with a KeyError, see the log"
    assert "Time and memory were not measured: KeyError: 'no such entry'" in caplog.text


def test_of_weights_of_fewer_bits_operations_are_not_counted():
    torchao = pytest.importorskip("torchao.quantization")
    model = nn.Sequential(nn.Linear(64, 64)).eval()
    torchao.quantize_(model, torchao.Int8WeightOnlyConfig())
    found = measure_costs(model, model, torch.zeros(1, 64), torch.zeros(ROWS, 64), seconds=0.01)
    assert found.latency_ms > 0 and found.latency_32_ms > 0
    assert found.missing["flops"] == found.missing["memory_32_mb"]
    assert found.missing["flops"] == "not counted for weights of fewer bits"
