"""What a model costs where it is used: time, operations and memory."""

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from rich.filesize import decimal
from torch import nn

from ..models.live_memory import LiveMemory
from ..models.memory import memory_of_machine
from ..models.operations import counting_operations
from ..models.plain_tensors import is_quantized, plain_tensors

log = logging.getLogger("lightning_distill")

# Rows of the larger batch.
ROWS = 32
# Of fewer runs a 95th percentile says no more than the slowest of them.
ENOUGH = 20
# A forward of that many seconds is too long to be run again and again.
LONGEST = 2.0
FIGURES = (
    "flops",
    "latency_ms",
    "latency_p95_ms",
    "latency_32_ms",
    "latency_32_p95_ms",
    "memory_32_mb",
)


@dataclass
class Costs:
    """What a model costs where it is used; `None` where that was not measured.

    Attributes:
        flops: floating-point operations of one row; a multiplication and an addition are two.
        latency_ms: median time of one row in milliseconds.
        latency_p95_ms: its 95th percentile.
        latency_32_ms: median time of a batch of 32 rows in milliseconds.
        latency_32_p95_ms: its 95th percentile.
        memory_32_mb: the most that weights and activations of such a batch take together, in
            megabytes (10^6 bytes).
        missing: why a figure is not there, by its name.
    """

    flops: int | None = None
    latency_ms: float | None = None
    latency_p95_ms: float | None = None
    latency_32_ms: float | None = None
    latency_32_p95_ms: float | None = None
    memory_32_mb: float | None = None
    missing: dict[str, str] = field(default_factory=dict)

    @classmethod
    def unknown(cls, why: str) -> "Costs":
        """Of a model that cannot be measured."""
        return cls(missing=dict.fromkeys(FIGURES, why))


@torch.no_grad()
def forward_times(
    forward: Callable[[Any], Any], inputs: Any, runs: int = 30, seconds: float = 1.0
) -> list[float]:
    """Wall times of forwards in milliseconds, after up to five to warm up.

    Args:
        forward: called with the inputs.
        inputs: a batch.
        runs: how many times are returned at most.
        seconds: after which no further run begins; three are made in any case.
    """
    times: list[float] = []
    begin = time.perf_counter()
    warm, warmed = 0, False
    while len(times) < runs:
        took = _seconds(forward, inputs)
        spent = time.perf_counter() - begin
        if warmed:
            times.append(1000 * took)
        else:
            warm += 1
            # Of a long forward one is enough.
            warmed = warm == 5 or spent > seconds / 4
        if len(times) >= 3 and spent > seconds:
            break
    return times


def _seconds(forward: Callable[[Any], Any], inputs: Any) -> float:
    start = time.perf_counter()
    forward(inputs)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def latency_ms(forward: Callable[[Any], Any], inputs: Any, runs: int = 30) -> float:
    """Median wall time of one forward, in milliseconds."""
    return statistics.median(forward_times(forward, inputs, runs))


def measure_costs(
    model: nn.Module,
    forward: Callable[[Any], Any],
    one: Any,
    many: Any,
    seconds: float = 0.5,
    longest: float = LONGEST,
) -> Costs:
    """Measure a model in eval mode; it is left as it is.

    Args:
        model: with the weights that are used.
        forward: runs it on a batch.
        one: a batch of one row, on the model's device.
        many: a batch of `ROWS` rows.
        seconds: for the times of each of the two batches. A few forwards are made in any case,
            each of less than about `longest` seconds.
        longest: a batch that may take more seconds is not measured.

    Returns:
        What could be measured, and why the rest could not.
    """
    try:
        return _measured(model, forward, one, many, seconds, longest)
    except Exception as error:
        # The run is over, and what it has learnt shall not be lost for a figure.
        log.warning(f"Time and memory were not measured: {type(error).__name__}: {error}")
        return Costs.unknown(f"it failed with a {type(error).__name__}, see the log")


def _measured(
    model: nn.Module,
    forward: Callable[[Any], Any],
    one: Any,
    many: Any,
    seconds: float,
    longest: float,
) -> Costs:
    found = Costs()
    weights = _weights(model)
    # Modes of dispatch do not see into operations in inference mode, but do without gradients.
    with torch.no_grad():
        took = _seconds(forward, one)
        if took > longest:
            return Costs.unknown(f"one row takes {took:.1f} s")
        if any(is_quantized(tensor) for tensor in weights):
            for name in ("flops", "memory_32_mb"):
                found.missing[name] = "not counted for weights of fewer bits"
            of_one = None
        else:
            with counting_operations() as counter:
                forward(one)
            found.flops = int(counter.get_total_flops())
            of_one = peak_memory(model, forward, one)
    with torch.inference_mode():
        times = forward_times(forward, one, seconds=seconds)
        found.latency_ms = statistics.median(times)
        found.latency_p95_ms = _slow(times, "latency_p95_ms", found)
        why = _too_much(found.latency_ms, of_one, _bytes(weights), longest, weights)
        if why is None:
            times = forward_times(forward, many, seconds=seconds)
            found.latency_32_ms = statistics.median(times)
            found.latency_32_p95_ms = _slow(times, "latency_32_p95_ms", found)
    if why is not None:
        found.missing |= dict.fromkeys(FIGURES[3:], why)
    elif of_one is not None:
        with torch.no_grad():
            found.memory_32_mb = peak_memory(model, forward, many) / 1e6
    return found


def peak_memory(model: nn.Module, forward: Callable[[Any], Any], batch: Any) -> int:
    """The most bytes that weights and activations of one forward take together.

    On a CUDA device as its allocator says it. Elsewhere the tensors that operations return are
    added up while they are there; what an operation takes for itself is not seen.

    Args:
        model: whose weights count.
        forward: runs it.
        batch: given to it.
    """
    weights = _weights(model)
    device = weights[0].device if weights else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        # Other models lie there too.
        before = torch.cuda.memory_allocated(device)
        forward(batch)
        return torch.cuda.max_memory_allocated(device) - before + _bytes(weights)
    with LiveMemory(weights) as live:
        forward(batch)
    return live.peak


def _weights(model: nn.Module) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]


def _bytes(weights: Sequence[torch.Tensor]) -> int:
    plain = (part for tensor in weights for part in plain_tensors(tensor))
    storages = {s._cdata: s.nbytes() for s in (part.untyped_storage() for part in plain)}
    return sum(storages.values())


def _slow(times: Sequence[float], name: str, found: Costs) -> float | None:
    if len(times) >= ENOUGH:
        return float(np.percentile(times, 95))
    found.missing[name] = f"only {len(times)} runs were made"
    return None


def _too_much(
    latency: float, of_one: int | None, of_weights: int, longest: float, weights: Any
) -> str | None:
    """Why the larger batch is not tried; `None` if it is."""
    took = ROWS * latency / 1000
    if took > longest:
        return f"{ROWS} rows may take {took:.1f} s"
    device = weights[0].device if weights else torch.device("cpu")
    there = memory_of_machine() // 2
    if device.type == "cuda":
        there = torch.cuda.mem_get_info(device)[0]
    more = ROWS * max((of_one or 0) - of_weights, 0)
    if more > there:
        return f"{ROWS} rows may take {decimal(more)} of memory"
    return None
