"""How fast a model is."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


@torch.no_grad()
def latency_ms(forward: Callable[[Any], Any], inputs: Any, runs: int = 30) -> float:
    """Median wall time of one forward in milliseconds, after five to warm up."""
    times = []
    for i in range(runs + 5):
        start = time.perf_counter()
        forward(inputs)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if i >= 5:
            times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)
