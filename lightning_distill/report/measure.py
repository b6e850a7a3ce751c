"""How large and how fast a model is."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..models.plain_tensors import plain_tensors


def parameter_count(model: nn.Module) -> int:
    """Number of parameters, each shared one counted once."""
    return sum(p.numel() for p in model.parameters())


def size_mb(model: nn.Module) -> float:
    """Size of the weights on disk in megabytes (10^6 bytes), each shared tensor counted once."""
    seen = {}
    for held in model.state_dict().values():
        for tensor in plain_tensors(held):
            seen[(tensor.data_ptr(), tensor.shape)] = tensor.numel() * tensor.element_size()
    return sum(seen.values()) / 1e6


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
